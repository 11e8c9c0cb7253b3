"""The hold on the window in Redis: a key with an expiry, and the marker that tells whether its holder lives.

It works with every Redis from 6.2 on, and without scripts, which are often forbidden.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from marketflow.adapters.cache import members
from marketflow.adapters.cache.connections import Ask, Command, Connections
from marketflow.app.ports import Sight

MARKER: Final = b"marketflow:marker"
"""Holds the boot and number of the last write. If that is not the last that was acknowledged to us,
something may be missing: Redis was emptied, or has come back with an older state, or a write without an
answer has found it so."""
LOCK: Final = b"marketflow:lock"
"""Holds the boot that may write. It expires, so that a boot that was killed does not hold it for ever."""
LOCK_TTL: Final = 5_000
"""ms after the last write."""

_LOOK: Final = (("GET", LOCK), ("GET", MARKER))


class Lock:
    """Looks at the hold, takes it and gives it back, for one boot."""

    renewal: Final = members.pack(b"GET", LOCK) + members.pack(b"PEXPIRE", LOCK, b"%d" % LOCK_TTL)
    """Part of every write: tells who holds it, and has that go on. Two replies.

    If another boot has it, that gets 5 s more. It is alive then, and we end.
    """

    def __init__(self, connections: Connections, boot: bytes) -> None:
        self._redis = connections
        self._boot = boot

    async def look(self) -> Sight:
        """See the port Window."""
        return await self._redis.read(_LOOK, _sight)

    async def take(self, found: Sight) -> bool:
        """See the port Window."""
        if found.holder is None:
            commands = [("SET", LOCK, self._boot, "NX", "PX", LOCK_TTL), ("GET", LOCK)]
            return await self._redis.read(commands, lambda replies: replies[1] == self._boot)

        def take_over(ask: Ask) -> bool:
            if _sight(ask([("WATCH", LOCK, MARKER), *_LOOK])[1:]) != found:
                return _leave(ask)
            return _executed(ask, ("SET", LOCK, self._boot, "PX", LOCK_TTL))

        return await self._redis.converse(take_over)

    async def release(self) -> None:
        """See the port Window."""

        def release(ask: Ask) -> bool:
            if ask([("WATCH", LOCK), ("GET", LOCK)])[1] != self._boot:
                return _leave(ask)
            # Without a marker the next boot knows that nobody writes any more, and has nothing to wait for.
            return _executed(ask, ("DEL", LOCK, MARKER))

        await self._redis.converse(release)


def text_of(reply: bytes | None) -> str | None:
    """A reply that is a text or nothing."""
    return None if reply is None else reply.decode(errors="replace")


def _sight(replies: Sequence[Any]) -> Sight:
    holder, marker = map(text_of, replies)
    return Sight(holder, marker)


def _leave(ask: Ask) -> bool:
    """Change nothing of what is watched."""
    ask([("UNWATCH",)])
    return False


def _executed(ask: Ask, command: Command) -> bool:
    """Whether the command was executed, which it is unless what is watched has changed."""
    return ask([("MULTI",), command, ("EXEC",)])[2] is not None
