"""A class has few fields and methods, and a module imports few others. Checked in the sources.

A class with more than seven fields, or two reasons to change, should be two classes. Lines are not counted:
such a limit would only make words shorter.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator

import attrs
import pytest
from test_architecture import imported, modules, within

FIELDS = 7
METHODS = 10
"""Public methods, properties included."""
IMPORTS = 8
"""Modules of ours that a module imports."""


@attrs.frozen
class Known:
    """A known excess over a limit: the exact number, and why. If it shrinks, the number must be lowered."""

    count: int
    why: str


PORT = "it fills a port, which is to be split first"

FIELDS_KNOWN = {
    "app.share.book.Book": Known(12, "it puts seven parts together, and takes batches in"),
    "domain.bars.Bar": Known(12, "a record: count, sum, and the ends with their times and orders"),
    "app.share.ledger.Ledger": Known(8, "it has a count for each thing that can happen to an update"),
    "adapters.cache.memory.MemoryWindow": Known(11, PORT),
    "app.share.standing.ShareStanding": Known(8, "it asks what knows of Redis, and what of earlier boots"),
    "app.ingest.state.FeedState": Known(8, "what health tells of a feed, and what its next run needs"),
    "app.watch.health.Health": Known(11, "it reports on all parts"),
    "app.watch.node_health.NodeHealth": Known(12, "the same, and on the other nodes"),
    "app.questions.queries.Queries": Known(8, "it gives each question to the part that answers it"),
    "app.cluster.mirror.Mirror": Known(8, "what it knows, whether that stands, and how it reads"),
    "app.cluster.hold.Hold": Known(9, "what the member, the tenure and the database say of an exchange"),
    "app.cluster.holdings.Holdings": Known(8, "it takes exchanges, has them, and gives them back"),
    "app.cluster.member.Member": Known(9, "it asks who is admitted, what to take, and whether it may"),
    "app.cluster.tenancy.Tenancy": Known(9, "it joins a share, its feed and what reports on them"),
    "adapters.cache.packing.RedisFlush": Known(8, "a record: the parts of a flush, and how many replies"),
    "exchange_check.Seen": Known(8, "all that is seen of an exchange, and what has been said of it"),
    "adapters.exchange.fake_venues.trades.Market": Known(8, "pairs, their trades, and what they are made of"),
    "adapters.exchange.websocket.session.Session": Known(8, "it puts the parts of a connection together"),
    "app.share.share.Share": Known(8, "it begins and ends its parts together"),
    "embedded.server.Server": Known(8, "a process, its files and its lock"),
    "client.sse.EventParser": Known(8, "the state of a parser, field by field as the standard names it"),
}
METHODS_KNOWN = {
    "app.share.rows.Rows": Known(
        11, "which rows are due, what they are made of, and what a stop saves of it"
    ),
    "app.share.pair_bars.PairBars": Known(16, "what is read of bars, and how they come, are packed and go"),
    "app.share.second_bars.SecondBars": Known(12, "how bars come, are written and go"),
    "app.share.link.Link": Known(13, "the events of a state machine, and what is derived from its state"),
    "app.share.history.History": Known(14, "the same"),
    "adapters.cache.memory.MemoryWindow": Known(21, PORT),
}
IMPORTS_KNOWN = {
    "adapters.cache.cluster_side": Known(12, "it joins what writes, what reads and what finds the servers"),
    "adapters.cache.copying": Known(9, "it reads and writes every kind of key"),
    "adapters.cache.plain_side": Known(11, "it joins the lease and the connections of a single service"),
    "moving": Known(14, "a composition root: it opens both places"),
    "assembly": Known(18, "the composition root knows every part"),
    "cluster_assembly": Known(34, "the same, of a node"),
    "cluster_outside": Known(12, "it opens everything that a node uses"),
    "commands.running": Known(10, "it has three commands, and each starts other parts"),
    "app.cluster.tenancy": Known(11, "it puts a share and its feed together"),
    "adapters.http.app": Known(20, "it puts all routes together"),
    "app.questions.queries": Known(10, "it gives each question to the part that answers it"),
    "service": Known(11, "the task tree starts every part"),
    "adapters.db.postgres": Known(9, "it fills a port with statements over the parts of a database"),
    "adapters.db.database": Known(11, "it puts the connections to a database together"),
    "adapters.db.rows": Known(9, "it reads all kinds of rows"),
    "adapters.cache.redis": Known(10, PORT),
    "adapters.cache.reading": Known(13, PORT),
    "adapters.cache.term_window": Known(14, PORT),
    "app.share.comparing": Known(9, "it compares what the book, the history and the store know"),
    "app.share.trimming": Known(9, "it knows what is too old in the book and in the window"),
    "adapters.cache.bar_fields": Known(11, "it reads all forms of bars, one by one and by the minute"),
    "app.share.second_bars": Known(10, "it keeps its outbox, rows and caches up to date with each change"),
    "app.share.due_rows": Known(9, "a row is due by what the book, the history and Redis know"),
    "app.share.book": Known(10, "it puts its parts together"),
    "app.share.share": Known(11, "it begins and ends the parts of a share together"),
    "app.share.making": Known(32, "it puts the parts of a share together"),
    "adapters.exchange.websocket.sources": Known(9, "it puts the parts of a source together"),
    "adapters.exchange.websocket.making": Known(13, "it puts the parts of a session together"),
    "adapters.cache.replies": Known(9, "it makes sense of the replies to all questions"),
    "cli": Known(13, "it has all commands, and words the errors of all parts"),
    "demo": Known(9, "it starts exchanges, stores and service"),
    "client.watch": Known(9, "it puts the live table together"),
    "adapters.http.description.values": Known(9, "it describes the values of all questions"),
    "adapters.exchange.venues.registry": Known(10, "it names all venues"),
    "adapters.exchange.fake_venues.kinds": Known(9, "it names all fake venues"),
    "outside": Known(13, "it makes everything that is outside, as the settings say"),
    "sources": Known(10, "it makes the sources of all kinds, as the settings say"),
}


def classes(source: str) -> Iterator[ast.ClassDef]:
    """Classes with methods. One without is a record of its fields; a protocol has no fields."""
    for each in ast.walk(ast.parse(source)):
        if isinstance(each, ast.ClassDef) and methods(each):
            yield each


def methods(node: ast.ClassDef) -> list[ast.FunctionDef | ast.AsyncFunctionDef]:
    if any("Protocol" in ast.unparse(base) for base in node.bases):
        return []
    return [each for each in node.body if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef)]


def fields(node: ast.ClassDef) -> set[str]:
    """Names declared in the class (attrs, msgspec), and those that methods set on `self`."""
    declares = any("attrs." in ast.unparse(each) for each in node.decorator_list) or any(
        "Struct" in ast.unparse(base) for base in node.bases
    )
    found = {
        each.target.id
        for each in node.body
        if declares and isinstance(each, ast.AnnAssign) and isinstance(each.target, ast.Name)
        if "ClassVar" not in ast.unparse(each.annotation)
    }
    for method in methods(node):
        first = method.args.args[0].arg if method.args.args else ""
        found |= {
            each.attr
            for each in ast.walk(method)
            if isinstance(each, ast.Attribute)
            and isinstance(each.ctx, ast.Store)
            and isinstance(each.value, ast.Name)
            and each.value.id == first == "self"
        }
    return found


def public(node: ast.ClassDef) -> set[str]:
    return {each.name for each in methods(node) if not each.name.startswith("_")}


def imported_modules(source: str, module: str, known: set[str], *, is_package: bool = False) -> set[str]:
    """Modules of ours that it imports, each once, independent of the number of names."""
    names = imported(source, module, is_package=is_package)
    owners = {max((each for each in known if within(name, each)), key=len, default="") for name in names}
    return owners - {"", "marketflow", module}


def counts() -> dict[str, dict[str, int]]:
    """All counts, by what is counted and the name without `marketflow.`."""
    found: dict[str, dict[str, int]] = {"fields": {}, "methods": {}, "imports": {}}
    known = modules()
    for module, path in known.items():
        source, name = path.read_text(), module.removeprefix("marketflow.")
        is_package = path.name == "__init__.py"
        found["imports"][name] = len(imported_modules(source, module, set(known), is_package=is_package))
        for each in classes(source):
            found["fields"][f"{name}.{each.name}"] = len(fields(each))
            found["methods"][f"{name}.{each.name}"] = len(public(each))
    return found


@pytest.mark.parametrize(
    ("what", "limit", "known"),
    [
        ("fields", FIELDS, FIELDS_KNOWN),
        ("methods", METHODS, METHODS_KNOWN),
        ("imports", IMPORTS, IMPORTS_KNOWN),
    ],
)
def test_nothing_does_too_much(what: str, limit: int, known: dict[str, Known]) -> None:
    """Only known excesses are over the limits. If one has shrunk, write its new number above."""
    over = {name: count for name, count in counts()[what].items() if count > limit}
    assert over == {name: each.count for name, each in known.items()}
    assert all(each.why for each in known.values())


PLANTED = """
class Set:
    def __init__(self):
        self.a, (self.b, self._c) = 1, (2, 3)
        self.d: int = 4
        for self.e in range(3): pass
        with open("x") as self.f: pass
        self.a = self.a + other.z

    def later(self):
        if (something := self.b):
            self.g += 1
            self.h[0] = 1
        self.i.j = 1

    @property
    def value(self): ...
    async def _hidden(self): ...

@attrs.frozen
class Declared:
    a: int
    _b: str = ""
    NAMES: ClassVar[int] = 1

    def f(self): ...

class Row(msgspec.Struct):
    a: int
    def f(self): ...

@attrs.frozen
class Record:
    a: int
    b: int

class Port(Protocol):
    a: int
    def f(self): ...
"""


def test_fields_and_methods_are_counted_however_they_are_written() -> None:
    """The check counts only attributes that are set on the object itself as its fields."""
    found = {each.name: each for each in classes(PLANTED)}
    assert {name: fields(each) for name, each in found.items()} == {
        "Set": {"a", "b", "_c", "d", "e", "f", "g"},
        "Declared": {"a", "_b"},
        "Row": {"a"},
    }
    assert {name: public(each) for name, each in found.items()} == {
        "Set": {"later", "value"},
        "Declared": {"f"},
        "Row": {"f"},
    }


def test_imported_modules_are_counted_however_they_are_written() -> None:
    """It counts neither names nor libraries."""
    known = {"marketflow", "marketflow.app", "marketflow.app.book", "marketflow.app.feeds", "marketflow.cli"}
    source = """
import trio, marketflow.cli
from marketflow.app.book import Book, LIMIT
from marketflow.app import feeds
from . import book
if TYPE_CHECKING:
    from .feeds import Feed
def late():
    from marketflow.app import something
"""
    assert imported_modules(source, "marketflow.app.spans", known) == {
        "marketflow.cli",
        "marketflow.app.book",
        "marketflow.app.feeds",
        "marketflow.app",
    }
