"""SQL is fixed text; values are sent to the server separately, as parameters."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import marketflow
from marketflow.adapters.db import statements

ROOT = Path(marketflow.__file__).parent / "adapters" / "db"
MODULES = sorted(ROOT.rglob("*.py"))
CALLS = {"execute": 0, "executemany": 0, "copy": 0, "_rows": 1}
"""The argument of each call that is a statement."""
SQL = re.compile(r"\s*(SELECT|INSERT|UPDATE|DELETE|CREATE|ALTER|DROP|COPY|SET|LISTEN)\b", re.IGNORECASE)


def statements_of(tree: ast.AST) -> Iterator[ast.expr]:
    """The statements that are sent to the server."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if name in CALLS:
                yield node.args[CALLS[name]]


def fixed_names(tree: ast.AST) -> set[str]:
    """Names that stand only for fixed text, or for what the type checker knows to be that."""
    fixed: dict[str, list[bool]] = {}
    for node in ast.walk(tree):
        match node:
            case ast.Assign(targets=[ast.Name(id=name)], value=value):
                fixed.setdefault(name, []).append(is_fixed(value, set()))
            case ast.arg(arg=name, annotation=ast.Name(id=kind)):
                fixed.setdefault(name, []).append(kind == "LiteralString")
    return {name for name, all_fixed in fixed.items() if all(all_fixed)}


def is_fixed(node: ast.expr, names: set[str]) -> bool:
    match node:
        case ast.Constant(value=str()):
            return True
        case ast.Name(id=name):
            return name in names
        case ast.Attribute(value=ast.Name(id="statements"), attr=name):
            return isinstance(getattr(statements, name), str)
        case ast.Attribute(value=ast.Name(id="migration"), attr="sql"):
            return True  # a file of ours
        case ast.IfExp(body=body, orelse=orelse):
            return is_fixed(body, names) and is_fixed(orelse, names)
    return False


@pytest.mark.parametrize("module", MODULES, ids=lambda path: path.name)
def test_every_statement_is_fixed_text(module: Path) -> None:
    tree = ast.parse(module.read_text())
    for node in statements_of(tree):
        assert is_fixed(node, fixed_names(tree)), f"{module.name}:{node.lineno}: {ast.unparse(node)}"


def constants(tree: ast.Module) -> set[str]:
    """Names of `Final` texts of a module that have only fixed text, or other such texts, in them."""
    fixed: set[str] = set()
    for node in tree.body:
        match node:
            case ast.AnnAssign(
                target=ast.Name(id=name), annotation=ast.Name(id="Final"), value=ast.expr() as value
            ) if is_fixed(value, set()) or has_only(value, fixed):
                fixed.add(name)
    return fixed


def has_only(node: ast.AST, names: set[str]) -> bool:
    """Whether it is an f-string of fixed text and of these names."""
    return isinstance(node, ast.JoinedStr) and all(
        isinstance(each, ast.Constant)
        or (
            isinstance(each, ast.FormattedValue)
            and isinstance(each.value, ast.Name)
            and each.value.id in names
        )
        for each in node.values
    )


@pytest.mark.parametrize("module", MODULES, ids=lambda path: path.name)
def test_no_sql_is_put_together(module: Path) -> None:
    """Except of constants of the same module."""
    tree = ast.parse(module.read_text())
    for node in ast.walk(tree):
        match node:
            case ast.JoinedStr() if has_only(node, constants(tree)):
                continue
            case ast.JoinedStr(values=[ast.Constant(value=str(text)), *_]):
                pass
            case ast.BinOp(left=ast.Constant(value=str(text)), op=ast.Mod() | ast.Add()):
                pass
            case ast.Call(func=ast.Attribute(value=ast.Constant(value=str(text)), attr="format" | "join")):
                pass
            case _:
                continue
        assert SQL.match(text) is None, f"{module.name}:{node.lineno}: {text}"


def test_the_scan_sees_the_statements() -> None:
    found = [node for module in MODULES for node in statements_of(ast.parse(module.read_text()))]
    assert len(found) > 10


@pytest.mark.parametrize(
    "code",
    [
        'c.execute(f"SELECT {x}")',
        'c.execute("SELECT %s" % x)',
        'q = "SELECT 1"\nq = "SELECT " + x\nc.execute(q)',
        "def f(query: str):\n    c.execute(query)",
        'c.executemany("SELECT {}".format(x), [])',
    ],
)
def test_the_scan_finds_what_it_looks_for(code: str) -> None:
    tree = ast.parse(code)
    [node] = statements_of(tree)
    assert not is_fixed(node, fixed_names(tree))


def test_a_text_of_constants_is_fixed() -> None:
    source = (
        'A: Final = "x"\nB: Final = f"SELECT {A}"\nC = "y"\nD: Final = f"SELECT {C}"\nE: Final = f"{A()}"'
    )
    assert constants(ast.parse(source)) == {"A", "B"}
