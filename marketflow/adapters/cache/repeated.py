"""Commands that are sent again and again with few changes: what does not change is packed once."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

from marketflow.adapters.cache.members import KEYS_KEPT, bulk, pack, window_name
from marketflow.domain.prices import Pair


def marking(key: bytes, seconds: int) -> bytes:
    """A template of the command that sets a marker and returns the one before.

    It is filled in with the length of the marker and the marker. The key expires after so many `seconds`.
    """
    before = b"*6\r\n" + bulk(b"SET") + bulk(key)
    after = bulk(b"EX") + bulk(b"%d" % seconds) + bulk(b"GET")
    return before.replace(b"%", b"%%") + b"$%d\r\n%b\r\n" + after


@lru_cache(2 * KEYS_KEPT)
def expiry(key: bytes, seconds: int) -> bytes:
    """The command after which a key expires in so many seconds."""
    return pack(b"EXPIRE", key, b"%d" % seconds)


def removals(pairs: Sequence[Pair], older_than: int) -> list[bytes]:
    """The commands that remove the members of windows whose score is less than `older_than`."""
    span = bulk(b"-inf") + bulk(b"(%d" % older_than)
    return [_removal(window_name(pair)) + span for pair in pairs]


@lru_cache(KEYS_KEPT)
def _removal(key: bytes) -> bytes:
    """The command without the span of scores."""
    return b"*4\r\n" + bulk(b"ZREMRANGEBYSCORE") + bulk(key)
