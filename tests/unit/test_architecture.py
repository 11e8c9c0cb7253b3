"""Imports go one way, and no module has state: checked in the sources, without importing anything."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterable
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import attrs
import pytest

import marketflow

ROOT = Path(marketflow.__file__).parent

DRIVERS = (
    "redis",
    "hiredis",
    "psycopg",
    "psycopg_pool",
    "quart",
    "quart_trio",
    "hypercorn",
    "rich",
    "click",
    "msgspec",
)
TOP = ("service", "demo", "client", "commands", "cli")
"""From the task tree upwards."""
ADAPTERS = tuple(sorted(place.parent.name for place in ROOT.glob("adapters/*/__init__.py")))


@attrs.frozen
class Rule:
    """The imports that modules of one package must not have, by the beginning of the dotted name."""

    forbidden: tuple[str, ...]
    only: tuple[str, ...] | None = None
    """If given, only the standard library and these are allowed."""


def ours(*names: str) -> tuple[str, ...]:
    return tuple(f"marketflow.{name}" for name in names)


ASKING = ours("domain", "app.ports", "app.knowledge", "app.answers", "app.interface")
"""What questions and the live stream may import: the ports, and no part that implements them."""

RULES = {
    "marketflow.domain": Rule(forbidden=(), only=("attrs", "msgspec", "marketflow.domain")),
    "marketflow.app": Rule(ours("adapters", "config", "logs", "embedded", *TOP) + DRIVERS),
    # ---- the rooms of app ----
    **dict.fromkeys(
        (
            "marketflow.app.ports",
            "marketflow.app.knowledge",
            "marketflow.app.answers",
            "marketflow.app.interface",
            "marketflow.app.figures",
        ),
        Rule(
            ours(*(f"app.{room}" for room in ("ingest", "share", "questions", "stream", "watch", "cluster")))
        ),
    ),
    "marketflow.app.instruments": Rule(
        forbidden=(), only=("attrs", "trio", "structlog", *ours("domain", "app.ports", "app.instruments"))
    ),
    "marketflow.app.questions": Rule(forbidden=(), only=("attrs", "trio", *ASKING, *ours("app.questions"))),
    "marketflow.app.stream": Rule(
        forbidden=(), only=("attrs", "trio", "trio_util", *ASKING, *ours("app.stream"))
    ),
    "marketflow.app.share": Rule(
        ours("app.questions", "app.stream", "app.ingest", "app.watch", "app.cluster")
    ),
    "marketflow.app.ingest": Rule(
        ours("app.questions", "app.stream", "app.share", "app.watch", "app.cluster")
    ),
    # It runs shares, and feeds into them.
    "marketflow.app.cluster": Rule(ours("app.questions", "app.stream", "app.watch")),
    # It reads feeds, and the numbers of shares through a port. No room imports it.
    "marketflow.app.watch": Rule(ours("app.questions", "app.stream", "app.share")),
    "marketflow.config": Rule(ours("app", "adapters", "embedded", "logs", *TOP)),
    "marketflow.logs": Rule(ours("app", "adapters", "embedded", *TOP)),
    "marketflow.embedded": Rule(ours("domain", "app", "adapters", "config", "logs", *TOP)),
    "marketflow.patience": Rule(forbidden=(), only=("trio",)),
    "marketflow.loopback": Rule(forbidden=(), only=()),
    "marketflow.outside": Rule(ours("assembly", "embedded", *TOP)),
    "marketflow.sources": Rule(ours("outside", "assembly", "embedded", *TOP)),
    "marketflow.assembly": Rule(ours("embedded", *TOP)),
    "marketflow.service": Rule(ours(*TOP[1:])),
    "marketflow.demo": Rule(ours("client", "commands", "cli")),
    "marketflow.client": Rule(
        # It knows the service only by its answers, like any other client.
        ours(
            "domain",
            "app",
            "adapters",
            "config",
            "logs",
            "embedded",
            "outside",
            "sources",
            "assembly",
            *TOP[:2],
            *TOP[3:],
        )
        + tuple(name for name in DRIVERS if name not in {"msgspec", "rich"})
    ),
    "marketflow.commands": Rule(ours("cli")),
} | {
    f"marketflow.adapters.{adapter}": Rule(
        ours("config", "logs", "embedded", *TOP)
        + tuple(f"marketflow.adapters.{other}" for other in ADAPTERS if other != adapter)
    )
    for adapter in ADAPTERS
}


def within(name: str, package: str) -> bool:
    return name == package or name.startswith(f"{package}.")


def imported(source: str, module: str, *, is_package: bool) -> set[str]:
    """Dotted names that a source imports, at any depth; `from a import b` gives `a.b`."""
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            origin = node.module or ""
            if node.level:
                parents = module.split(".")[
                    : None if is_package and node.level == 1 else -(node.level - is_package)
                ]
                origin = ".".join([*parents, origin]).rstrip(".")
            names |= {f"{origin}.{alias.name}" for alias in node.names}
    return names


def import_violations(source: str, module: str, *, is_package: bool = False) -> set[str]:
    """Imports of a source that the rules of its module forbid."""
    names = imported(source, module, is_package=is_package)
    violations = set()
    for package, rule in RULES.items():
        if within(module, package):
            violations |= {name for name in names if any(within(name, other) for other in rule.forbidden)}
            if rule.only is not None:
                violations |= {
                    name
                    for name in names
                    if name.split(".")[0] not in sys.stdlib_module_names
                    and not any(within(name, allowed) for allowed in rule.only)
                }
    return violations


def room(name: str) -> str | None:
    """The room of app, or the module beside the rooms, that a dotted name is in."""
    package, _, rest = name.partition("marketflow.app.")
    return rest.split(".")[0] if rest and not package else None


def room_imports(sources: Iterable[tuple[str, str]]) -> dict[str, set[str]]:
    """For each room of app the other rooms that it imports. Takes (module, source)."""
    found: dict[str, set[str]] = {}
    for module, source in sources:
        here = room(module)
        if here is not None:
            names = imported(source, module, is_package=False)
            found.setdefault(here, set()).update({each for name in names if (each := room(name))} - {here})
    return found


def mutable_state(source: str) -> set[str]:
    """Names that a module binds to an empty container, or rebinds within a function.

    A filled container is a table of constants; an empty one is meant to be filled.
    """
    tree = ast.parse(source)
    names = {name for node in ast.walk(tree) if isinstance(node, ast.Global) for name in node.names}
    for node in tree.body:
        if isinstance(node, ast.Assign):
            targets = node.targets
        elif isinstance(node, ast.AnnAssign):
            targets = [node.target]
        else:
            continue
        if is_empty_container(node.value):
            names |= {target.id for target in targets if isinstance(target, ast.Name)}
    return names


def is_empty_container(value: ast.expr | None) -> bool:
    if isinstance(value, ast.Dict):
        return not value.keys
    if isinstance(value, ast.List):
        return not value.elts
    if isinstance(value, ast.Call) and isinstance(value.func, ast.Name):
        if value.func.id in {"deque", "defaultdict", "Counter"}:
            return True
        return value.func.id in {"dict", "list", "set"} and not value.args and not value.keywords
    return False


def modules() -> dict[str, Path]:
    """Every module of ours by its dotted name."""
    found = {}
    for path in sorted(ROOT.rglob("*.py")):
        parts = path.relative_to(ROOT.parent).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


@pytest.mark.parametrize("module", modules())
def test_imports_go_one_way(module: str) -> None:
    """They go from cli down to domain, and adapters do not import each other."""
    path = modules()[module]
    assert import_violations(path.read_text(), module, is_package=path.name == "__init__.py") == set()


@pytest.mark.parametrize("module", modules())
def test_no_module_holds_state(module: str) -> None:
    """State belongs to objects that have an owner."""
    assert mutable_state(modules()[module].read_text()) == set()


def test_rooms_do_not_import_each_other_in_a_circle() -> None:
    """There is an order in which each room imports only earlier ones."""
    found = room_imports((module, path.read_text()) for module, path in modules().items())
    order = list(TopologicalSorter(found).static_order())  # raises CycleError
    assert order.index("ports") < order.index("instruments") < order.index("share") < len(order)
    assert found["instruments"] <= {"ports"}
    assert found["watch"] >= {"figures", "ingest", "instruments"}


@pytest.mark.parametrize("planted", ["from marketflow.app.watch import health", "from ..watch import health"])
def test_a_circle_is_found(planted: str) -> None:
    """A circle may go over several rooms, and over other modules in each room."""
    sources = [
        ("marketflow.app.watch.health", "from marketflow.app.ingest.feeds import Feed"),
        ("marketflow.app.ingest.feeds", "def late():\n    from ..share import book"),
        ("marketflow.app.share.ledger", planted),
    ]
    with pytest.raises(CycleError):
        TopologicalSorter(room_imports(sources)).prepare()
    TopologicalSorter(room_imports(sources[:2])).prepare()


def test_every_package_has_a_rule() -> None:
    """A new adapter or a misspelt rule does not go unnoticed."""
    known = modules()
    packages = {name for name, path in known.items() if path.name == "__init__.py"}
    assert packages > {"marketflow", "marketflow.domain", "marketflow.app", "marketflow.adapters"}
    for package in packages - {"marketflow", "marketflow.adapters"}:
        assert any(within(package, ruled) for ruled in RULES), package
    assert set(ADAPTERS) >= {"exchange", "cache", "db", "http"}


@pytest.mark.parametrize(
    ("module", "source", "violation"),
    [
        ("marketflow.domain.bars", "import trio", "trio"),
        ("marketflow.domain.bars", "from marketflow.app.share import book", "marketflow.app.share.book"),
        ("marketflow.domain.bars", "from ..app.share.book import Book", "marketflow.app.share.book.Book"),
        ("marketflow.app.ingest.feeds", "def late():\n    import redis.client", "redis.client"),
        ("marketflow.app.ingest.feeds", "import marketflow.config as c", "marketflow.config"),
        ("marketflow.app.ingest.feeds", "from marketflow import config", "marketflow.config"),
        ("marketflow.app.ingest.feeds", "from ... import adapters", "marketflow.adapters"),
        ("marketflow.app", "from ..service import run", "marketflow.service.run"),
        (
            "marketflow.app.questions.spans",
            "from marketflow.app.share.book import Book",
            "marketflow.app.share.book.Book",
        ),
        (
            "marketflow.app.questions.edges",
            "def late():\n    from ..share import flushing",
            "marketflow.app.share.flushing",
        ),
        (
            "marketflow.app.questions.spans",
            "import marketflow.app.ingest.feeds",
            "marketflow.app.ingest.feeds",
        ),
        ("marketflow.app.questions.queries", "from marketflow.app import stream", "marketflow.app.stream"),
        (
            "marketflow.app.questions.spans",
            "from ..instruments import stores",
            "marketflow.app.instruments.stores",
        ),
        ("marketflow.app.questions.spans", "import structlog", "structlog"),
        (
            "marketflow.app.stream.newest_events",
            "from marketflow.app.share.known_bars import BookBars",
            "marketflow.app.share.known_bars.BookBars",
        ),
        (
            "marketflow.app.stream.newest_events",
            "from ..questions import spans",
            "marketflow.app.questions.spans",
        ),
        ("marketflow.app.stream.turns", "from ..ingest import modes", "marketflow.app.ingest.modes"),
        ("marketflow.app.cluster.member", "from ..watch import health", "marketflow.app.watch.health"),
        ("marketflow.app.ingest.feeds", "from ..cluster import hold", "marketflow.app.cluster.hold"),
        ("marketflow.app.share.fence", "from ..cluster import hold", "marketflow.app.cluster.hold"),
        (
            "marketflow.app.share.book",
            "from ..questions.spans import Spans",
            "marketflow.app.questions.spans.Spans",
        ),
        ("marketflow.app.share.book", "from .. import stream", "marketflow.app.stream"),
        ("marketflow.app.share.book", "from ..ingest import feeds", "marketflow.app.ingest.feeds"),
        ("marketflow.app.ingest.feeds", "from ..share.book import Book", "marketflow.app.share.book.Book"),
        (
            "marketflow.app.ingest.feeds",
            "from ..stream import newest_events",
            "marketflow.app.stream.newest_events",
        ),
        ("marketflow.app.share.book", "from ..watch import health", "marketflow.app.watch.health"),
        ("marketflow.app.ingest.feeds", "from ..watch import health", "marketflow.app.watch.health"),
        ("marketflow.app.watch.measuring", "from ..share.book import Book", "marketflow.app.share.book.Book"),
        (
            "marketflow.app.watch.health",
            "from ..stream import newest_events",
            "marketflow.app.stream.newest_events",
        ),
        (
            "marketflow.app.instruments.stores",
            "from marketflow.app.interface import StoreStatus",
            "marketflow.app.interface.StoreStatus",
        ),
        ("marketflow.app.knowledge", "from .share import book", "marketflow.app.share.book"),
        ("marketflow.app.figures", "from .share import ledger", "marketflow.app.share.ledger"),
        (
            "marketflow.app.interface",
            "from .stream import newest_events",
            "marketflow.app.stream.newest_events",
        ),
        ("marketflow.adapters.db.postgres", "from ..cache import memory", "marketflow.adapters.cache.memory"),
        ("marketflow.adapters.http.prices", "from marketflow.cli import main", "marketflow.cli.main"),
        ("marketflow.config", "from marketflow.app.ports import Window", "marketflow.app.ports.Window"),
        ("marketflow.service", "import marketflow.cli", "marketflow.cli"),
    ],
)
def test_a_forbidden_import_is_found(module: str, source: str, violation: str) -> None:
    """The check finds absolute and relative imports, at the top and within functions."""
    assert import_violations(source, module, is_package=module == "marketflow.app") == {violation}


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("marketflow.domain.bars", "import attrs, math\nfrom collections.abc import Iterable"),
        ("marketflow.domain.bars", "from marketflow.domain.periods import SECOND\nfrom . import prices"),
        (
            "marketflow.app.ingest.feeds",
            "import trio\nfrom marketflow.domain.bars import Bar\nimport redish",
        ),
        ("marketflow.adapters.db.postgres", "import psycopg\nfrom . import migrations"),
        ("marketflow.cli", "import click\nfrom marketflow.service import serve"),
        (
            "marketflow.app.questions.spans",
            "import trio\nfrom marketflow.app.knowledge import KnownBars\nfrom .edges import Edges",
        ),
        ("marketflow.app.stream.newest_events", "from ..answers import Latest\nfrom .turns import Turns"),
        ("marketflow.app.share.known_bars", "from marketflow.app.knowledge import KnownBars"),
        ("marketflow.app.watch.measuring", "from marketflow.app.figures import Figures"),
        ("marketflow.app.share.lease", "from ..instruments.stores import StoreState"),
    ],
)
def test_an_allowed_import_is_not_found(module: str, source: str) -> None:
    assert import_violations(source, module) == set()


def test_state_is_found_and_constants_are_not() -> None:
    source = """
CACHE: dict = {}
seen = set()
by_name = defaultdict(list)
TABLE = {"a": 1}
OTHER = dict(TABLE)
count = 0
def f():
    global count
    x = []
"""
    assert mutable_state(source) == {"CACHE", "seen", "by_name", "count"}
