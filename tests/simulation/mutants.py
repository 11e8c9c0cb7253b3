"""Planted bugs: each is a small change of the product's source that the simulation must find.

A mutant names a module, a piece of its source, and what stands there instead. The functions whose code
changes get their new code in place, so that everything that refers to them has the bug. A piece that is not
in the source any more, or more than once, is an error: the mutant has to follow the product.
"""

from __future__ import annotations

import contextlib
import importlib
import inspect
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs


@attrs.frozen
class Mutant:
    """A planted bug."""

    module: str
    """Within marketflow."""
    old: str
    new: str
    what: str
    """What is wrong then, in a few words."""

    @property
    def source(self) -> str:
        """The module's source without the bug."""
        return Path(inspect.getfile(self.loaded)).read_text()

    @property
    def loaded(self) -> types.ModuleType:
        """The module."""
        return importlib.import_module(f"marketflow.{self.module}")

    def changes(self) -> dict[types.FunctionType, types.CodeType]:
        """The functions that have to change, with their new code.

        Raises:
            ValueError: the piece is not there exactly once, or nothing changes.
        """
        source, module = self.source, self.loaded
        if source.count(self.old) != 1:
            raise ValueError(f"{self.module}: {source.count(self.old)} times in the source: {self.old!r}")
        before = _codes(compile(source, "before", "exec", dont_inherit=True))
        after = _codes(compile(source.replace(self.old, self.new), "after", "exec", dont_inherit=True))
        functions = _functions(module)
        changes = {
            functions[name]: code
            for name, code in after.items()
            if name in functions and not _same(before.get(name), code)
        }
        if not changes:
            raise ValueError(f"{self.module}: no function changes by {self.new!r}")
        return changes


def _codes(code: types.CodeType) -> dict[str, types.CodeType]:
    """All functions' code by qualified name, but for functions within functions: those come with theirs."""
    found: dict[str, types.CodeType] = {}
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            found[constant.co_qualname] = constant
            if "<locals>" not in constant.co_qualname:
                found |= _codes(constant)
    return found


def _same(one: types.CodeType | None, other: types.CodeType) -> bool:
    """Whether two functions do the same; where they stand does not matter."""
    if one is None or len(one.co_consts) != len(other.co_consts):
        return False
    if (one.co_code, one.co_names, one.co_varnames) != (other.co_code, other.co_names, other.co_varnames):
        return False
    for mine, theirs in zip(one.co_consts, other.co_consts, strict=True):
        if isinstance(mine, types.CodeType) and isinstance(theirs, types.CodeType):
            if not _same(mine, theirs):
                return False
        elif type(mine) is not type(theirs) or mine != theirs:
            return False
    return True


def _functions(module: types.ModuleType) -> dict[str, types.FunctionType]:
    """The functions and methods that a module defines, by qualified name."""
    found: dict[str, types.FunctionType] = {}

    def add(thing: Any) -> None:
        if isinstance(thing, property):
            for each in (thing.fget, thing.fset):
                add(each)
            return
        if isinstance(thing, staticmethod | classmethod):
            thing = thing.__func__
        thing = inspect.unwrap(thing) if callable(thing) else thing
        if isinstance(thing, types.FunctionType) and thing.__module__ == module.__name__:
            found[thing.__qualname__] = thing
        elif inspect.isclass(thing) and thing.__module__ == module.__name__:
            for each in vars(thing).values():
                if not inspect.isclass(each):
                    add(each)

    for thing in list(vars(module).values()):
        add(thing)
    return found


@contextlib.contextmanager
def mutated(mutant: Mutant | None) -> Iterator[None]:
    """Within it the product has that bug; none with None."""
    changes = mutant.changes() if mutant is not None else {}
    originals = {function: function.__code__ for function in changes}
    try:
        for function, code in changes.items():
            function.__code__ = code
        yield
    finally:
        for function, code in originals.items():
            function.__code__ = code
