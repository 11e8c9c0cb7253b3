"""The lease of the window in Redis: a key with an expiry, and the marker that tells whether its holder lives.

It works with every Redis from 6.2 on, and without scripts, which are often forbidden.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from marketflow.adapters.cache import members
from marketflow.adapters.cache.connections import Ask, Readers
from marketflow.adapters.cache.markers import MARKER_TTL
from marketflow.adapters.cache.resp import Command
from marketflow.app.ports import ALL, Scope, Sight

MARKER: Final = b"marketflow:marker"
"""Contains the boot and the number of the last write."""
LOCK: Final = b"marketflow:lock"
"""Contains the boot that may write. It expires, so that a killed boot does not keep it for ever."""
LOCK_TTL: Final = 5_000
"""ms after the last write."""


class Lock:
    """Looks at the lease, takes it and gives it back, for one boot."""

    def __init__(self, readers: Readers, boot: bytes, scope: Scope = ALL) -> None:
        self._redis = readers
        self.boot = boot
        self.scope = scope
        self.marker = _of_scope(MARKER, scope)
        self._lock = _of_scope(LOCK, scope)
        self._look = (("GET", self._lock), ("GET", self.marker))
        before = b"*6\r\n" + members.bulk(b"SET") + members.bulk(self.marker)
        after = members.bulk(b"EX") + members.bulk(b"%d" % MARKER_TTL) + members.bulk(b"GET")
        after += members.pack(b"GET", self._lock)
        after += members.pack(b"PEXPIRE", self._lock, b"%d" % LOCK_TTL)
        self._marking = before.replace(b"%", b"%%") + b"$%d\r\n%b\r\n" + after.replace(b"%", b"%%")

    def marking(self, marker: bytes) -> bytes:
        """The commands with which every write begins. Three replies: a marker, the holder, a number.

        They set the marker and return the one before, tell which boot has the lease, and renew it. If another
        boot has it, that gets 5 s more. It is alive then, and we end.
        """
        return self._marking % (len(marker), marker)

    async def look(self) -> Sight:
        """See the port Window."""
        return await self._redis.read(self._look, _sight)

    async def take(self, found: Sight) -> bool:
        """See the port Window."""
        if found.holder is None:
            commands = [("SET", self._lock, self.boot, "NX", "PX", LOCK_TTL), ("GET", self._lock)]
            return await self._redis.read(commands, lambda replies: replies[1] == self.boot)

        async def take_over(ask: Ask) -> bool:
            _, *seen = await ask([("WATCH", self._lock, self.marker), *self._look])
            if _sight(seen) != found:
                return await _leave(ask)
            return await _executed(ask, ("SET", self._lock, self.boot, "PX", LOCK_TTL))

        return await self._redis.converse(take_over)

    async def release(self) -> None:
        """See the port Window."""

        async def release(ask: Ask) -> bool:
            _, holder = await ask([("WATCH", self._lock), ("GET", self._lock)])
            if holder != self.boot:
                return await _leave(ask)
            # Without a marker the next boot knows that no one writes any more, and does not wait.
            return await _executed(ask, ("DEL", self._lock, self.marker))

        await self._redis.converse(release)


def _of_scope(key: bytes, scope: Scope) -> bytes:
    return b"%b:%b" % (key, scope.name.encode()) if scope.name else key


def text_of(reply: bytes | None) -> str | None:
    """A reply that is a text or nothing."""
    return None if reply is None else reply.decode(errors="replace")


def _sight(replies: Sequence[Any]) -> Sight:
    holder, marker = map(text_of, replies)
    return Sight(holder, marker)


async def _leave(ask: Ask) -> bool:
    """Stop watching the keys, and change nothing."""
    await ask([("UNWATCH",)])
    return False


async def _executed(ask: Ask, command: Command) -> bool:
    """Whether the command was executed; it is not if a watched key has changed."""
    *_, result = await ask([("MULTI",), command, ("EXEC",)])
    return result is not None
