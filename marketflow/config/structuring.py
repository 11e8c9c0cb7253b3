"""Converts between settings as classes and as keys like `http.port`."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from types import GenericAlias, UnionType
from typing import Any, Final, get_args, get_origin

import attrs
from cattrs import ClassValidationError, Converter, IterableValidationError
from cattrs.gen import make_dict_structure_fn

from marketflow.config.kinds import Kind, Text, UnexpectedError
from marketflow.config.settings import Settings

converter: Final = Converter()


def kind_of(annotation: Any) -> Kind | None:
    """The kind in an annotation; None if it has none."""
    return next((each for each in getattr(annotation, "__metadata__", ()) if isinstance(each, Kind)), None)


def fields(cls: Any) -> dict[str, Any]:
    """The annotations of a settings class, by field."""
    return {field.name: field.type for field in attrs.fields(attrs.resolve_types(cls))}


def item_of(annotation: Any) -> Any:
    """The type of the items, if the annotation is a list of settings; else None."""
    return get_args(annotation)[0] if get_origin(annotation) is tuple else None


def tables_of(annotation: Any) -> tuple[Any, ...]:
    """The settings classes that a table of this type may have; the first is the usual one."""
    alternatives = get_args(annotation) if isinstance(annotation, UnionType) else (annotation,)
    return tuple(each for each in alternatives if attrs.has(each))


def table_of(annotation: Any, value: object) -> Any:
    """The one of these classes that a table has: the first that takes its `kind`, or else the last."""
    *others, last = tables_of(annotation)
    if not others:
        return last
    told = value.get("kind") if isinstance(value, dict) else None
    for cls in others:
        if told is None or told == attrs.fields(cls).kind.default:
            return cls
    return last


def _keys(cls: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, annotation in fields(cls).items():
        if attrs.has(annotation):
            yield from _keys(annotation, f"{prefix}{name}.")
        else:
            yield prefix + name, annotation


KEYS: Final[Mapping[str, Any]] = dict(_keys(Settings))
"""The annotation of each key, in the order of the documentation."""
GROUPS: Final[Mapping[str, Any]] = {name: cls for name, cls in fields(Settings).items() if attrs.has(cls)}
"""The class of each table of keys."""


@converter.register_structure_hook_factory(lambda annotation: kind_of(annotation) is not None)
def _read_kind(annotation: Any) -> Any:
    kind = annotation.__metadata__[0]
    return lambda value, _: kind.read(value)


@converter.register_structure_hook_factory(lambda annotation: item_of(annotation) is not None)
def _read_list(annotation: Any) -> Any:
    items: Any = GenericAlias(list, (item_of(annotation),))

    def read(value: object, _: Any) -> tuple[Any, ...]:
        if not isinstance(value, list):
            raise UnexpectedError("a list as JSON" if isinstance(value, Text) else "a list", value)
        return tuple(converter.structure(value, items))

    return read


@converter.register_structure_hook_factory(
    lambda annotation: isinstance(annotation, UnionType) and bool(tables_of(annotation))
)
def _read_one_of(annotation: Any) -> Any:
    return lambda value, _: converter.structure(value, table_of(annotation, value))


@converter.register_structure_hook_factory(attrs.has)
def _read_table(cls: Any) -> Any:
    structure = make_dict_structure_fn(cls, converter)

    def read(value: object, _: Any) -> Any:
        if not isinstance(value, dict):
            raise UnexpectedError("a table", value)
        return structure(value, cls)

    return read


def structured(values: Mapping[str, object]) -> tuple[Settings, dict[str, list[str]]]:
    """The settings made from values by key, and the problems by key. Wrong values are replaced by defaults.

    A problem begins with the exact place, `exchanges[1].port: ...`.
    """
    try:
        return converter.structure(_tree(values), Settings), {}
    except ClassValidationError as error:
        wrong: dict[str, list[str]] = {}
        for place, cause in _causes(error):
            key = place.partition("[")[0]
            wrong.setdefault(key, []).append(f"{place}: {_worded(cause, key)}")
    good = {key: value for key, value in values.items() if key not in wrong}
    return converter.structure(_tree(good), Settings), wrong


def _tree(values: Mapping[str, object]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for key, value in values.items():
        group, dot, name = key.rpartition(".")
        (tree.setdefault(group, {}) if dot else tree)[name] = value
    return tree


def _causes(error: BaseException, place: str = "") -> Iterator[tuple[str, BaseException]]:
    match error:
        case ClassValidationError():
            for cause, note in error.group_exceptions()[0]:
                yield from _causes(cause, f"{place}.{note.name}" if place else note.name)
        case IterableValidationError():
            for cause, item in error.group_exceptions()[0]:
                yield from _causes(cause, f"{place}[{item.index}]")
        case _:
            yield place, error


def _worded(cause: BaseException, key: str) -> str:
    match cause:
        case KeyError():
            return "missing"
        case UnexpectedError() if (kind := kind_of(KEYS[key])) and kind.secret:
            return f"expected {cause.expected}"
        case UnexpectedError():
            return str(cause)
        case _:
            # Not about a value, so it is a bug.
            raise cause


def shown(settings: Settings) -> dict[str, str]:
    """Each value by its key, for people, with secrets masked."""
    texts = {}
    for key, annotation in KEYS.items():
        value: Any = settings
        for name in key.split("."):
            value = getattr(value, name)
        kind = kind_of(annotation)
        texts[key] = kind.show(value) if kind else json.dumps([_shown_item(each) for each in value])
    return texts


def _shown_item(item: Any) -> Any:
    """An item of a list, for people: a table without what is not set, and with secrets masked."""
    if not attrs.has(type(item)):
        return item
    table = {}
    for name, annotation in fields(type(item)).items():
        value, kind = getattr(item, name), kind_of(annotation)
        if value is not None:
            table[name] = kind.show(value) if kind and kind.secret else converter.unstructure(value)
    return table
