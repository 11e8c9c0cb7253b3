"""Which pairs have bars in Redis, configured or not: earlier runs may have had other symbols."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, Final

import structlog

from marketflow.adapters.cache import bar_fields, members
from marketflow.adapters.cache.asking import Asking
from marketflow.adapters.cache.keys import Keys
from marketflow.adapters.cache.resp import Command
from marketflow.app.ports import Scope
from marketflow.domain.prices import Pair

log = structlog.get_logger()

KEYS_PER_SCAN: Final = 1_000
"""Keys that one SCAN call looks at: less than a millisecond of Redis' time."""
MOST_SCANS: Final = 1_000
"""A Redis with a million foreign keys thus delays a start by about a second."""
MOST_FIELDS: Final = 10_000
"""A hash of more fields is not one of ours: there are 3,660 seconds, each of one or two boots."""


async def find_pairs(readers: Asking, keys: Keys, scope: Scope) -> Sequence[Pair]:
    """Pairs of these exchanges that have bars of our form.

    Raises:
        StoreAway: Redis is away, or does not allow it.
    """
    named: dict[Pair, None] = {}
    exchanges = scope.exchanges or ()
    (exchange,) = exchanges if len(exchanges) == 1 else ("*",)
    pattern, cursor = keys.bars((exchange, "*")), b"0"
    for _ in range(MOST_SCANS):
        command = ("SCAN", cursor, "MATCH", pattern, "COUNT", KEYS_PER_SCAN, "TYPE", "hash")
        cursor, pairs = await readers.read([command], partial(_page, keys))
        named.update(dict.fromkeys(pairs))
        if cursor == b"0":
            break
    else:
        log.warning("search for old symbols cut short", reason="there are too many keys in Redis")
    return await _with_bars_of_ours(readers, keys, [pair for pair in named if pair[0] in scope])


async def _with_bars_of_ours(readers: Asking, keys: Keys, pairs: Sequence[Pair]) -> Sequence[Pair]:
    """The pairs whose hash has our format, judged by one of its fields."""
    commands: list[Command] = []
    for pair in pairs:
        key = keys.bars(pair)
        commands += ("HLEN", key), ("HRANDFIELD", key, 1, "WITHVALUES")

    def read(replies: list[Any]) -> list[Pair]:
        return [
            pair
            for pair, (length, sample) in zip(pairs, members.in_twos(replies), strict=True)
            if length <= MOST_FIELDS and sample and bar_fields.is_bar(*sample)
        ]

    return await readers.read(commands, read)


def _page(keys: Keys, replies: list[Any]) -> tuple[bytes, list[Pair]]:
    """The cursor, and the pairs of the keys found. Its errors become StoreAway."""
    ((cursor, found),) = replies
    return cursor, [pair for key in found if (pair := keys.pair_of_bars(key)) is not None]
