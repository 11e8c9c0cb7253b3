"""Generates config.toml and docs/configuration.md from the settings classes.

`python -m marketflow.config.reference`, in a checkout, rewrites both. The text above the line with `MADE` is
written by hand.
"""

from __future__ import annotations

import ast
import inspect
import json
import textwrap
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import attrs

from marketflow.config.layers import variable_of
from marketflow.config.settings import Settings
from marketflow.config.structuring import converter, fields, item_of, kind_of, tables_of

MADE: Final = "made from marketflow/config/settings.py by `nox -s reference`"
TOML: Final = Path("config.toml")
MARKDOWN: Final = Path("docs", "configuration.md")

_WIDTH: Final = 110


@attrs.frozen
class Entry:
    """The documentation of a setting."""

    key: str
    meaning: str
    takes: str
    default: object
    """The default as a value of TOML or JSON; None if the setting must be given."""
    items: tuple[Entry, ...] = ()
    """For a list of tables: the settings of each table."""

    @property
    def name(self) -> str:
        """The last part of the key."""
        return self.key.rpartition(".")[2]


@attrs.frozen
class Group:
    """The settings of one table."""

    name: str
    """The name of the table; empty for the settings outside of tables."""
    meaning: str
    entries: tuple[Entry, ...]


def main() -> None:
    """Rewrite both files in the current directory."""
    for path, made in ((TOML, toml()), (MARKDOWN, markdown())):
        path.write_text(rewritten(path.read_text(encoding="utf-8"), made), encoding="utf-8")


def rewritten(text: str, made: str) -> str:
    """The text of a file with its generated part replaced.

    Raises:
        ValueError: it has no line that marks the beginning of that part.
    """
    by_hand, mark, rest = text.partition(MADE)
    if not mark:
        raise ValueError(f"there must be a line that says: {MADE}")
    return f"{by_hand}{mark}{rest.partition(chr(10))[0]}\n\n{made}"


# ---- from the classes ----


def groups() -> list[Group]:
    """All settings, in the order of the classes; the ones outside of tables come first."""
    tables = {name: cls for name, cls in fields(Settings).items() if attrs.has(cls)}
    alone = tuple(entry for entry in _entries(Settings) if entry.name not in tables)
    return [Group("", "", alone)] + [
        Group(name, _one_line(cls.__doc__), tuple(_entries(cls, f"{name}."))) for name, cls in tables.items()
    ]


def _entries(cls: Any, prefix: str = "") -> Iterator[Entry]:
    meanings = _meanings(cls)
    for field in attrs.fields(attrs.resolve_types(cls)):
        key, item = prefix + field.name, item_of(field.type)
        if attrs.has(field.type):
            continue
        if field.name not in meanings:
            raise LookupError(f"{key} has no docstring that says what it means")
        yield Entry(key, meanings[field.name], _takes(field.type), _written(field), _items(item, f"{key}[]."))


def _items(item: Any, prefix: str) -> tuple[Entry, ...]:
    """The settings of each table of a list; those of all its classes, each name once."""
    by_name: dict[str, Entry] = {}
    for cls in tables_of(item):
        for entry in _entries(cls, prefix):
            by_name.setdefault(entry.name, entry)
    return tuple(by_name.values())


def _meanings(cls: Any) -> dict[str, str]:
    """The docstrings of a class's fields, read from its source, since Python does not keep them."""
    (tree,) = ast.parse(inspect.getsource(cls)).body
    found = {}
    for field, text in pairwise(getattr(tree, "body", ())):
        match field, text:
            case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(meaning))):
                found[name] = _one_line(meaning)
    return found


def _one_line(text: str | None) -> str:
    return " ".join((text or "").split())


def _takes(annotation: Any) -> str:
    item = item_of(annotation)
    if classes := tables_of(item):
        names = dict.fromkeys(name for cls in classes for name in fields(cls))
        return f"a list of tables of {', '.join(names)}"
    kind = kind_of(annotation if item is None else item)
    if kind is None:
        raise LookupError(f"{annotation} is no kind of setting")
    return kind.takes if item is None else f"a list, each {kind.takes}"


def _written(field: attrs.Attribute[Any]) -> object:
    """The default as people would write it."""
    kind, value = kind_of(field.type), field.default
    if value is attrs.NOTHING:
        return None
    if kind is None:
        return converter.unstructure(value)
    if value is None or isinstance(value, attrs.Factory):  # type: ignore[arg-type]
        return kind.none[-1] if kind.none else ""
    shown = kind.show(value)
    try:
        return json.loads(shown) if isinstance(value, int | float) else shown
    except ValueError:  # with a unit
        return shown


# ---- to the files ----


def toml() -> str:
    """The generated part of config.toml: each key with its default, below its meaning."""
    return "\n".join(line for group in groups() for line in _toml_group(group)).lstrip("\n") + "\n"


def _toml_group(group: Group) -> Iterator[str]:
    if group.name:
        yield from ["", *_comment(group.meaning), f"[{group.name}]"]
    # Tables come last: a key after a table would belong to that table.
    for entry in sorted(group.entries, key=lambda entry: bool(entry.items)):
        if not group.name:
            yield ""
        yield from _comment(entry.meaning)
        yield from _toml_tables(entry) if entry.items else [f"{entry.name} = {json.dumps(entry.default)}"]


def _toml_tables(entry: Entry) -> Iterator[str]:
    """A list of tables; the first one has the meanings of the keys. Keys that it lacks come at the end."""
    tables: Any = entry.default
    for number, table in enumerate(tables):
        yield from ["", f"[[{entry.key}]]"] if number else [f"[[{entry.key}]]"]
        for item in entry.items:
            if item.name in table and not (number and table[item.name] == item.default):
                yield from [] if number else _comment(item.meaning)
                yield f"{item.name} = {json.dumps(table[item.name])}"
    for item in entry.items:
        if all(item.name not in table for table in tables):
            yield from ["#", *_comment(f"{item.name}: {item.meaning}")]


def _comment(text: str) -> list[str]:
    return textwrap.wrap(text, _WIDTH, initial_indent="# ", subsequent_indent="# ", break_on_hyphens=False)


def markdown() -> str:
    """The generated part of docs/configuration.md: a table for each group."""
    return "\n".join(line for group in groups() for line in _markdown_group(group))


def _markdown_group(group: Group) -> Iterator[str]:
    yield from [f"## {group.name}", "", group.meaning, ""] if group.name else ["## Without a table", ""]
    yield from ["| key, variable | takes | by default | meaning |", "|---|---|---|---|"]
    for entry in group.entries:
        variable = f"<br>`{variable_of(entry.key)}`"
        yield _markdown_row(entry, variable)
        yield from (_markdown_row(item, "") for item in entry.items)
    yield ""


def _markdown_row(entry: Entry, variable: str) -> str:
    default = "(must be given)" if entry.default is None else f"`{json.dumps(entry.default)}`"
    cells = f"`{entry.key}`{variable}", entry.takes, default, entry.meaning
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


if __name__ == "__main__":
    main()
