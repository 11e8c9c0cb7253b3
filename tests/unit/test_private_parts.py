"""Our modules do not use private parts of libraries: an update may change these without notice.

Undocumented parts are used only in `marketflow.adapters.http.hypercorn_parts`, each with its reason.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import sys
import textwrap
from collections.abc import Iterator
from types import ModuleType

import pytest
from test_architecture import imported, modules, within

PARTS = "marketflow.adapters.http.hypercorn_parts"
"""The only module that may use parts with public names that are not documented."""
DOCUMENTED = {
    "hypercorn": ("hypercorn.config", "hypercorn.logging", "hypercorn.typing"),
    "quart": ("quart.utils", "quart.wrappers"),
    "quart_trio": ("quart_trio.wrappers",),
    "h11": (),
    "wsproto": ("wsproto.connection", "wsproto.events", "wsproto.utilities"),
    "redis": ("redis.backoff", "redis.connection", "redis.exceptions", "redis.retry"),
    "psycopg_pool": (),
    "trio_util": (),
}
"""Modules of these libraries that may be imported besides the topmost one."""

MADE = {"_abc_impl", "_is_protocol", "_is_runtime_protocol"}
"""Names that Python itself adds to a class."""


def _is_private(name: str) -> bool:
    return name.startswith("_") and not (name.startswith("__") and name.endswith("__"))


def own_names(tree: ast.Module) -> set[str]:
    """Private names that the module defines itself: functions, methods, variables and fields."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            found.add(node.id)
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and _root(node) == "self":
            found.add(node.attr)
    return found


def _root(node: ast.expr) -> str:
    """The first name in a chain of attributes."""
    while isinstance(node, ast.Attribute):
        node = node.value
    return node.id if isinstance(node, ast.Name) else ""


def offences(source: str) -> set[str]:
    """Uses of private parts, and assignments to parts of imported modules, as source text."""
    tree = ast.parse(source)
    own, names = own_names(tree), imported_names(tree)
    found = set()
    for node in ast.walk(tree):
        if (
            (isinstance(node, ast.Import | ast.ImportFrom) and imports_private(node))
            or (isinstance(node, ast.Attribute) and is_offence(node, own, names))
            or (isinstance(node, ast.Call) and is_hidden_offence(node, names))
        ):
            found.add(ast.unparse(node))
    return found


def imported_names(tree: ast.Module) -> set[str]:
    """Names that imports bind, at any depth."""
    return {
        (alias.asname or alias.name).split(".")[0]
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in node.names
    }


def imports_private(node: ast.Import | ast.ImportFrom) -> bool:
    origin = (node.module or "") if isinstance(node, ast.ImportFrom) else ""
    parts = [*origin.split("."), *(part for alias in node.names for part in alias.name.split("."))]
    return origin != "__future__" and any(map(_is_private, parts))


def is_offence(node: ast.Attribute, own: set[str], imports: set[str]) -> bool:
    """Whether it is a private attribute of another object, or an assignment to something imported."""
    ours = node.attr in own or (isinstance(node.value, ast.Name) and node.value.id in {"self", "cls"})
    set_on_import = not isinstance(node.ctx, ast.Load) and _root(node) in imports
    return (_is_private(node.attr) and not ours) or set_on_import


def is_hidden_offence(node: ast.Call, imports: set[str]) -> bool:
    """The same through `getattr`, `setattr` or `delattr`."""
    kind = getattr(node.func, "id", "")
    if kind not in {"getattr", "setattr", "delattr"}:
        return False
    target, name = node.args[:2]
    private = isinstance(name, ast.Constant) and isinstance(name.value, str) and _is_private(name.value)
    return private or (kind != "getattr" and _root(target) in imports)


def undocumented(source: str, module: str, *, is_package: bool = False) -> set[str]:
    """Imports of modules that a library does not document."""
    found = set()
    for name in imported(source, module, is_package=is_package):
        library, _, rest = name.partition(".")
        if library not in DOCUMENTED or not rest or not _is_module(name):
            continue
        if not any(within(name, each) for each in DOCUMENTED[library]):
            found.add(name)
    return found


def _is_module(name: str) -> bool:
    """Whether a dotted name is in a module below the topmost one: `quart.utils.x` is, `quart.g` is not."""
    library, *rest = name.split(".")
    module = importlib.import_module(library)
    return len(rest) > 1 or isinstance(getattr(module, rest[0], None), ModuleType)


def private_overrides(module: ModuleType) -> set[str]:
    """Private names of a class that override or use those of a library's base class."""
    found = set()
    for kind in vars(module).values():
        if not isinstance(kind, type) or kind.__module__ != module.__name__:
            continue
        mentioned = set(vars(kind)) | _mentioned(kind)
        for base in kind.__mro__[1:]:
            library = base.__module__.partition(".")[0]
            if library == "marketflow" or library in sys.stdlib_module_names:
                continue
            theirs = set(vars(base)) | _mentioned(base)
            found |= {f"{kind.__name__}.{name}" for name in mentioned & theirs - MADE if _is_private(name)}
    return found


def _mentioned(kind: type) -> set[str]:
    """Attributes of `self` and of `super()` in the source of a class."""
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(kind)))
    except (OSError, TypeError, SyntaxError):  # it is not written in Python
        return set()
    return set(_attributes(tree))


def _attributes(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) in {"self", "cls", "super()"}:
            yield node.attr


ALLOWED: dict[str, dict[str, str]] = {
    "marketflow.adapters.http.app": dict.fromkeys(
        ("g.began", "g.request_id"), "Quart's g is for such values"
    ),
    "marketflow.cli": {"os._exit": "documented by Python"},
    "marketflow.embedded.processes": {"os._exit": "documented by Python"},
    "marketflow.service": {"os._exit": "documented by Python"},
}
"""Uses that look private but are not, with the reason."""


@pytest.mark.parametrize("module", sorted(modules()))
def test_no_module_touches_private_parts(module: str) -> None:
    path = modules()[module]
    source = path.read_text()
    assert offences(source) == set(ALLOWED.get(module, {}))
    if not module.endswith("__main__"):  # importing it would start the service
        assert private_overrides(importlib.import_module(module)) == set()
    if module != PARTS:
        assert undocumented(source, module, is_package=path.name == "__init__.py") == set()


def test_the_one_module_overrides_nothing() -> None:
    """It only calls undocumented parts, and has no subclass of them."""
    parts = importlib.import_module(PARTS)
    ours = [each for each in vars(parts).values() if inspect.isclass(each) and each.__module__ == PARTS]
    bases = {base for each in ours for base in each.__mro__ if base.__module__ != PARTS}
    assert {base.__module__ for base in bases} <= {"builtins", "typing"}
    assert undocumented(inspect.getsource(parts), PARTS) != set()


# ---- the check itself ----


@pytest.mark.parametrize(
    "offence",
    [
        "from redis._parsers import Parser",
        "import trio._core",
        "from trio import _core",
        "from hypercorn.protocol.h11 import _private",
        "import trio\ntrio._core._run",
        "def f(protocol): protocol._close_stream()",
        "def f(self): self.stream._socket.close()",
        "class A(B):\n def f(self): super()._close()",
        "from hypercorn.protocol.h11 import H11Protocol\nH11Protocol.handle = print",
        "import hypercorn.protocol.h11\nhypercorn.protocol.h11.WSStream = print",
        "import hypercorn.protocol.h11 as it\nit.WSStream: object = print",
        "import redis\nsetattr(redis.Connection, 'connect', print)",
        "getattr(connection, '_sock')",
        "setattr(connection, '_sock', None)",
        "x = next(iter([]))._private",
        "def f(connection): del connection._sock",
    ],
)
def test_an_offence_is_found(offence: str) -> None:
    assert len(offences(offence)) >= 1


@pytest.mark.parametrize(
    "source",
    [
        "from __future__ import annotations",
        "from marketflow import __version__",
        "class A:\n def f(self, other): self._a, other._a = other._a, self._a",
        "class A:\n _made = 1\n @classmethod\n def f(cls): return cls._made",
        "def f(context): context.deadline = 1",
        "import trio\ntrio.lowlevel.current_task().name",
        "type(x).__name__",
        "getattr(error, 'errno', None)",
    ],
)
def test_what_is_in_order_is_let_through(source: str) -> None:
    assert offences(source) == set()


def test_an_undocumented_module_is_found() -> None:
    source = """
from hypercorn.trio.tcp_server import TCPServer
from hypercorn.config import Config
import hypercorn.utils
from quart_trio.asgi import TrioASGIHTTPConnection
from quart_trio import QuartTrio
from quart import g
def late():
    from quart.asgi import ASGIHTTPConnection
"""
    assert undocumented(source, "marketflow.service") == {
        "hypercorn.trio.tcp_server.TCPServer",
        "hypercorn.utils",
        "quart_trio.asgi.TrioASGIHTTPConnection",
        "quart.asgi.ASGIHTTPConnection",
    }


def test_an_override_of_a_private_part_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """A method, a field, and a mere call of the library's method are found."""
    h11 = importlib.import_module("h11")

    class Method(h11.Connection):
        def _process_event(self) -> None: ...

    class Field(h11.Connection):
        def begin(self) -> None:
            self._cstate = None

    class Call(h11.Connection):
        def begin(self) -> None:
            self._process_error("server")

    class InOrder(h11.Connection):
        def next_event(self) -> None:
            self._of_our_own = super().next_event()

    planted = ModuleType(__name__)
    for each in (Method, Field, Call, InOrder):
        monkeypatch.setattr(planted, each.__name__, each, raising=False)
    assert private_overrides(planted) == {"Method._process_event", "Field._cstate", "Call._process_error"}
