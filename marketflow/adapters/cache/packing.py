"""Flushes as the bytes of their commands, and the expiries that go with them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from marketflow.adapters.cache import bar_fields, members
from marketflow.adapters.cache.change_log import PackedChange, pack_change
from marketflow.adapters.cache.keys import Keys
from marketflow.app.ports import Field, Flush, Written
from marketflow.domain.prices import Pair

BARS_TTL: Final = 3_600
"""About so many seconds after the last write. Single fields are removed when they are an hour old."""
WINDOW_MARGIN: Final = 5_000
"""How long (ms) past its length the window is kept at most."""
FIELDS_PER_COMMAND: Final = 1_000


class RedisFlush(msgspec.Struct, frozen=True):
    """A flush as the bytes of its commands, and the number of their replies."""

    updates: bytes = b""
    updates_replies: int = 0
    windows: Sequence[bytes] = ()
    """The keys of its updates."""
    bars: bytes = b""
    hashes: Sequence[bytes] = ()
    """The keys of its bars; there is one command for each."""
    removals: bytes = b""
    removals_replies: int = 0
    change: PackedChange | None = None
    """Its bars once more, for the stream of changes."""

    @property
    def size(self) -> int:
        """Bytes that it holds in memory."""
        change = 0 if self.change is None else len(self.change.data)
        return len(self.updates) + len(self.bars) + len(self.removals) + change

    def without_bars(self) -> RedisFlush:
        """Its updates alone."""
        return RedisFlush(self.updates, self.updates_replies, self.windows)


class Packer:
    """Packs the flushes of one boot."""

    def __init__(self, boot: bytes, keys: Keys, *, window_length: int, changes: bool = False) -> None:
        """The window's length in ms. `changes`: whether bars are packed for the stream of changes, too."""
        self.keys: Final = keys
        self._changes = changes
        self._updates = members.UpdatesPacker(boot)
        self._window_ttl = -(-(window_length + WINDOW_MARGIN) // 1_000)
        self._expiring: dict[bytes, int] = {}
        """The expiry (seconds) of keys written since the last removal: it was set with the first write."""

    def pack(self, flush: Flush) -> RedisFlush:
        """The commands of a flush."""
        runs: dict[Pair, list[Written]] = {}
        for run in flush.updates:
            runs.setdefault((run.exchange, run.symbol), []).append(run)
        windows = [self.keys.window(pair) for pair in runs]
        updates, updates_replies = self._updates.pack(dict(zip(windows, runs.values(), strict=True)))
        items = bar_fields.pack_items(flush.bars)
        bars, hashes = bar_fields.pack_bars(items, self.keys)
        change = pack_change(items) if self._changes and items else None
        return RedisFlush(updates, updates_replies, windows, bars, hashes, change=change)

    def pack_trim(
        self, pairs: Sequence[Pair], *, older_than: int, bars: Sequence[tuple[Pair, Field]]
    ) -> RedisFlush:
        """The commands that remove old members and fields."""
        removals = members.removals(map(self.keys.window, pairs), older_than)
        fields: dict[Pair, list[bytes]] = {}
        for pair, field in bars:
            fields.setdefault(pair, []).append(bar_fields.field_name(field))
        removals += [
            members.pack(b"HDEL", self.keys.bars(pair), *names[first : first + FIELDS_PER_COMMAND])
            for pair, names in fields.items()
            for first in range(0, len(names), FIELDS_PER_COMMAND)
        ]
        return RedisFlush(removals=b"".join(removals), removals_replies=len(removals))

    def expiries(self, flush: RedisFlush) -> Sequence[bytes]:
        """The commands that set the expiry of keys that may have none.

        A key keeps its expiry until it is emptied. So it is set with the first write after a removal, and
        with the next removal: another client may have deleted the key in between.
        """
        if flush.removals:
            wanted, self._expiring = self._expiring, {}
        else:
            known = self._expiring
            wanted = {key: self._window_ttl for key in flush.windows if key not in known}
            lasting = flush.hashes if flush.change is None else (*flush.hashes, flush.change.key)
            wanted |= {key: BARS_TTL for key in lasting if key not in known}
            known |= wanted
        return [members.expiry(key, ttl) for key, ttl in wanted.items()]

    def forget_expiries(self) -> None:
        """What has an expiry is unknown: the next writes set it again."""
        self._expiring.clear()
