"""Makes sense of Redis' replies. An error of these functions becomes StoreAway for the caller."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, Final

from marketflow.adapters.cache import bar_fields, edges, members
from marketflow.adapters.cache.field_order import FieldOrder
from marketflow.adapters.cache.foreign import Ignored
from marketflow.app.ports import Edge, StoreAway, StoredBars, StoreRefuses
from marketflow.domain.bars import BAR_WIDTH
from marketflow.domain.periods import Span, floor_to
from marketflow.domain.prices import Pair, PriceUpdate

_TEXTS: Final = frozenset({bytes, type(None)})
_NUMBERS: Final = frozenset({int})


def policy_of(replies: Sequence[Any]) -> str:
    """The eviction policy; `noeviction` if the reply does not have it."""
    (reply,) = replies
    return reply[1].decode(errors="replace") if reply else "noeviction"


def check_write(replies: Sequence[Any], place: int, count: int = 2) -> None:
    """Check that these are replies to a write: numbers, and at `place` so many texts.

    Raises:
        StoreAway: something else answers there.
    """
    texts, numbers = replies[place : place + count], [*replies[:place], *replies[place + count :]]
    if not (_TEXTS.issuperset(map(type, texts)) and _NUMBERS.issuperset(map(type, numbers))):
        raise StoreAway("unexpected answer to a write: is it a Redis?")


def edge_of(pair: Pair, seconds: Sequence[int], replies: Iterator[Any], ignored: Ignored) -> Edge:
    """The bar of the span's members, and the counts of the seconds that it touches."""
    bar, others = edges.read_edge(pair, next(replies), ignored)
    counts = dict(zip(seconds, numbers_of(list(islice(replies, len(seconds)))), strict=True))
    for timestamp in others:  # A foreign member must not hide a missing one of ours.
        counts[floor_to(timestamp, BAR_WIDTH)] -= 1
    return Edge(bar, counts)


def numbers_of(replies: Sequence[Any]) -> list[int]:
    """Raises StoreAway: they are no numbers."""
    if any(type(reply) is not int for reply in replies):
        raise StoreAway("unexpected answer to a count: is it a Redis?")
    return list(replies)


def prices_of(pairs: Sequence[Pair], replies: list[Any], ignored: Ignored) -> Sequence[Sequence[float]]:
    """The prices of members, one reply for each pair."""
    return [edges.read_prices(pair, reply, ignored) for pair, reply in zip(pairs, replies, strict=True)]


def updates_of(
    pairs: Sequence[Pair], replies: list[Any], ignored: Ignored
) -> Sequence[Sequence[PriceUpdate]]:
    """The updates in members with their scores, one reply for each pair."""
    return [edges.read_updates(pair, reply, ignored) for pair, reply in zip(pairs, replies, strict=True)]


def ids_of(pairs: Sequence[Pair], replies: Sequence[Any]) -> Mapping[Pair, Sequence[str]]:
    """The ids in members, one reply for each pair."""
    return {
        pair: [number for member in reply if (number := members.read_id(member)) is not None]
        for pair, reply in zip(pairs, replies, strict=True)
    }


class Hashes:
    """Reads hashes of bars, one for each pair. Each is put in the order of those before."""

    def __init__(self) -> None:
        self._order = FieldOrder()
        self.found: dict[Pair, StoredBars] = {}

    def read(self, pairs: Sequence[Pair], replies: list[Any], ignored: Ignored) -> None:
        """Read the hashes of these pairs."""
        for pair, reply in zip(pairs, replies, strict=True):
            values = dict(zip(reply[0::2], reply[1::2], strict=True))
            self.found[pair] = bar_fields.read_minutes(pair, values, self._order, ignored)

    def scanned(self, pairs: Sequence[Pair], replies: list[Any], span: Span, ignored: Ignored) -> None:
        """Read what scans have found in the hashes of these pairs; keep the minutes that start in the span.

        There are equally many replies for each pair.

        Raises:
            StoreRefuses: one has not scanned the whole hash.
        """
        each = len(replies) // len(pairs)
        for place, pair in enumerate(pairs):
            values: dict[bytes, bytes] = {}
            for cursor, reply in replies[place * each : (place + 1) * each]:
                if int(cursor):
                    raise StoreRefuses("it does not scan a whole hash at once")
                values.update(zip(reply[0::2], reply[1::2], strict=True))
            found = bar_fields.read_minutes(pair, values, self._order, ignored)
            self.found[pair] = {start: minute for start, minute in found.items() if start in span}
