"""The rules of docs/determinism.md hold: app/ and domain/ use no chance, clock or thread of their own.

The check reads the sources. It is tested itself, with planted violations.
"""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import pytest

import marketflow

ROOT = Path(marketflow.__file__).parent

MODULES = frozenset(
    {
        "random",
        "secrets",
        "uuid",
        "time",
        "datetime",
        "threading",
        "multiprocessing",
        "concurrent",
        "asyncio",
        "socket",
        "select",
        "os",
        "gc",
        "weakref",
        "tempfile",
    }
)
"""Modules that draw random numbers, read clocks, start threads, or ask the system."""
BUILTINS = frozenset({"id", "hash", "open", "input"})
"""Functions whose result differs from run to run, or that ask the system."""
SETS = frozenset({"set", "frozenset", "Set", "AbstractSet", "MutableSet"})

ALLOWED = {
    (
        "app/instruments/clocks.py",
        "import of time",
    ): "SystemClock, which fills the port Clock with the machine's clock",
}


def offences(source: str) -> list[str]:
    """The places in a source that make one run differ from another."""
    tree = ast.parse(source)
    sets = _names_of_sets(tree)
    found = []
    for node in ast.walk(tree):
        found += [f"line {node.lineno}: {what}" for what in _offence(node, sets)]
    return found


def _offence(  # noqa: C901, PLR0911 - a table
    node: Any, sets: frozenset[str]
) -> list[str]:
    match node:
        case ast.Import(names=names):
            return [f"import of {name}" for alias in names if (name := alias.name.split(".")[0]) in MODULES]
        case ast.ImportFrom(module=str(module), level=0):
            return [f"import of {name}"] if (name := module.split(".")[0]) in MODULES else []
        case ast.Attribute(value=ast.Name(id="trio"), attr="to_thread" | "from_thread" | "run_process"):
            return [f"trio.{node.attr}"]
        case ast.Attribute(attr="hazmat") | ast.Attribute(attr="current_root_task"):
            return [node.attr]
        case ast.Call(func=ast.Name(id=name)) if name in BUILTINS:
            return [f"{name}()"]
        case ast.For(iter=iterated) | ast.AsyncFor(iter=iterated):
            return ["iteration over a set"] if _is_set(iterated, sets) else []
        case ast.ListComp() | ast.DictComp() | ast.GeneratorExp():
            # A set comprehension has no order anyway.
            return ["iteration over a set" for each in node.generators if _is_set(each.iter, sets)]
        case ast.Call(func=ast.Name(id="list" | "tuple" | "iter" | "next" | "enumerate"), args=[first, *_]):
            return ["order of a set"] if _is_set(first, sets) else []
        case ast.Starred(value=value):
            return ["order of a set"] if _is_set(value, sets) else []
        case ast.Call(func=ast.Attribute(value=value, attr="pop"), args=[]):
            return ["pop of a set"] if _is_set(value, sets) else []
    return []


def _is_set(  # noqa: PLR0911 - a table
    node: ast.AST, names: frozenset[str]
) -> bool:
    match node:
        case ast.Set() | ast.SetComp():
            return True
        case ast.Call(func=ast.Name(id="set" | "frozenset")):
            return True
        case ast.Call(
            func=ast.Attribute(
                value=value, attr="difference" | "union" | "intersection" | "symmetric_difference"
            )
        ):
            return _is_set(value, names)
        case ast.BinOp(left=left, right=right, op=ast.BitOr() | ast.BitAnd() | ast.Sub() | ast.BitXor()):
            return any(_is_set(side, names) or _is_view(side) for side in (left, right))
        case ast.Name(id=name):
            return name in names
        case ast.Attribute(attr=name):
            return f".{name}" in names
    return False


def _is_view(node: ast.AST) -> bool:
    """Whether it is a view of keys: these are ordered, but results of set operations on them are not."""
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "keys"


def _names_of_sets(tree: ast.AST) -> frozenset[str]:
    """Variables (`name`) and attributes (`.name`) that are sets, by annotation or assignment."""
    names = set()
    fields = {field for node in ast.walk(tree) if isinstance(node, ast.ClassDef) for field in node.body}
    for node in ast.walk(tree):
        match node:
            case ast.AnnAssign(target=target, annotation=annotation) if _annotates_set(annotation):
                names |= {f".{name}" for name in _names(target)} if node in fields else _names(target)
            case ast.Assign(targets=targets, value=value) if _is_set(value, frozenset()):
                for target in targets:
                    names |= _names(target)
            case ast.arg(arg=name, annotation=ast.expr() as annotation) if _annotates_set(annotation):
                names.add(name)
    return frozenset(names)


def _annotates_set(node: ast.expr) -> bool:
    base = node.value if isinstance(node, ast.Subscript) else node
    return isinstance(base, ast.Name) and base.id in SETS


def _names(target: ast.AST) -> set[str]:
    match target:
        case ast.Name(id=name):
            return {name}
        case ast.Attribute(attr=name):
            return {f".{name}"}
    return set()


SOURCES = sorted([*ROOT.glob("app/**/*.py"), *ROOT.glob("domain/**/*.py")])


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_nothing_in_the_core_differs_from_run_to_run(path):
    name = path.relative_to(ROOT).as_posix()
    found = [each for each in offences(path.read_text()) if (name, each.split(": ")[1]) not in ALLOWED]
    assert found == []


def test_what_is_allowed_is_still_there():
    for name, what in ALLOWED:
        assert any(each.endswith(what) for each in offences((ROOT / name).read_text())), (name, what)


@pytest.mark.parametrize(
    "planted",
    [
        "import random",
        "from random import Random",
        "def f():\n    import time\n    return time.time()",
        "from datetime import datetime",
        "import secrets as s",
        "import os.path",
        "from concurrent.futures import Future",
        "import threading",
        "async def f(g):\n    await trio.to_thread.run_sync(g)",
        "key = id(self)",
        "key = hash(pair)",
        "for each in {1, 2}:\n    pass",
        "for each in set(pairs):\n    pass",
        "found = [each for each in {f(x) for x in y}]",
        "names: set[str] = make()\nfor name in names:\n    pass",
        "def f(self):\n    self.s: set[str] = set()\n    return [each for each in self.s]",
        "def f(keys: AbstractSet[str]):\n    return list(keys)",
        "def f(keys: frozenset[str]):\n    return [*keys]",
        "for each in one.keys() & other.keys():\n    pass",
        "for each in wanted.keys() - found:\n    pass",
        "waiting = set()\nfirst = waiting.pop()",
    ],
)
def test_planted_offences_are_found(planted):
    assert len(offences(planted)) == 1


@pytest.mark.parametrize(
    "innocent",
    [
        "import trio",
        "for each in sorted({1, 2}):\n    pass",
        "known = set(pairs)\nif pair in known:\n    pass",
        "for key in mapping:\n    pass",
        "for key in mapping.keys():\n    pass",
        "total = first | second",
        "last = names.pop()",
        "if keys.isdisjoint(others):\n    pass",
    ],
)
def test_what_is_ordered_is_no_offence(innocent):
    assert offences(innocent) == []
