"""The connection that writes for one term, each time only if the fence is still the term's.

```
                 look, take: ours              send
 not watched ──────────────────────> watched ────────> on its way
   ^  ^                                 │ ^                 │
   │  └──────── connection lost ────────┘ └── EXEC, ours ───┤
   │                                                        │
   └────── not ours, connection lost, no answer in time ────┘
```
`WATCH` belongs to a connection, and `EXEC` ends it. So a transaction is sent only after `WATCH` and `GET`
were answered on the same connection since its last `EXEC`, and have shown our fence. If the fence has changed
since, `EXEC` does nothing. The next `WATCH` and `GET` go out right behind an `EXEC`, so they cost no round
trip:

    MULTI <commands> EXEC WATCH fence:{exchange1} GET fence:{exchange1}

A server of a cluster may send us elsewhere instead. Nothing was written then, and the same transaction is
sent to the other server, once the fence was seen there. After a failover that server may not know yet who has
sealed the fence last. So the database must also have said lately that the exchange is ours.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, Final

import attrs
import trio

from marketflow.adapters.cache.connection import Connection
from marketflow.adapters.cache.keys import changes_key, fence_key, marker_key
from marketflow.adapters.cache.members import pack
from marketflow.adapters.cache.redirects import PAUSE_SECONDS, Direction, direction_of
from marketflow.adapters.cache.resp import ErrorReply, refusals_of
from marketflow.adapters.cache.servers import Server, Servers
from marketflow.app.ports import StoreAway, StoreRefuses, Term
from marketflow.app.share.fence import fence_of

_MULTI: Final = pack(b"MULTI")
_EXEC: Final = pack(b"EXEC")
_UNWATCH: Final = pack(b"UNWATCH")
_AROUND: Final = 4
"""Replies of a transaction beside those of its commands: to `MULTI`, `EXEC`, `WATCH` and `GET`."""


@attrs.frozen
class Transaction:
    """Commands that are written together or not at all."""

    data: Sequence[bytes]
    commands: int


class FencedWriter:
    """Writes transactions of one term, one at a time. It is used by one task."""

    def __init__(self, term: Term, servers: Servers, confirmed: Callable[[], bool]) -> None:
        """`confirmed`: whether the database has said that the term is ours, and its word still holds."""
        self._confirmed = confirmed
        self._exchange = term.exchange
        self._fence = fence_of(term).encode()
        self._servers = servers
        self._link: tuple[Server, Connection] | None = None
        self.watched = False
        """Whether the fence was ours at the last look, on this connection and since its last `EXEC`."""
        self._sent: Transaction | None = None
        """The one that is on its way."""

    def refusal(self, error: ErrorReply) -> StoreRefuses:
        """What to raise for a refused command."""
        return StoreRefuses(self._servers.failures.reason(error))

    # ---- the fence ----

    async def look(self) -> tuple[bytes | None, bytes | None]:
        """Watch the fence, and read it and the marker. Nothing may be on its way."""
        fence, marker = await self._look(pack(b"GET", marker_key(self._exchange)))
        return fence, marker

    async def take(self, found: bytes | None) -> bool:
        """Make the fence ours, if it is still what was found; returns whether it is ours now.

        Without a fence, what the stream of changes has is of a time that nobody knows: it is removed.
        """
        (fence,) = await self._look()
        if fence != found:
            return False
        commands = [pack(b"SET", fence_key(self._exchange), self._fence)]
        if found is None or not found.partition(b":")[0].isdigit():
            commands.append(pack(b"UNLINK", changes_key(self._exchange)))
        await self._send(Transaction(commands, len(commands)))
        return await self._received() is not None and self.watched

    async def _look(self, more: bytes = b"") -> list[Any]:
        """Watch the fence, on the server that has the exchange; returns it, and the reply to one `more`."""
        deadline = trio.current_time() + self._servers.timeout
        while True:
            await self._connect()
            self.watched = False
            # Without `UNWATCH`, what has changed since the last look would still make `EXEC` do nothing.
            (replies,) = await self._exchange_with_server(
                [_UNWATCH + _watching(self._exchange) + more], 3 + bool(more), requests=1
            )
            refusals = refusals_of(replies)
            if not refusals:
                _, _, fence, *_ = replies
                self.watched = fence == self._fence
                return replies[2:]
            await self._follow(refusals[0], deadline)

    # ---- transactions ----

    async def send(self, transaction: Transaction) -> None:
        """Send a transaction. The one before must have been received.

        Raises:
            StoreAway: the fence has to be looked at first. Nothing was sent.
        """
        if self.watched and self._link is not None and not await self._link[1].usable():
            self.close()
        if not self.watched:
            raise StoreAway("the fence has not been looked at since the last failure")
        await self._send(transaction)

    async def _send(self, transaction: Transaction) -> None:
        self.watched, self._sent = False, transaction
        data = [_MULTI, *transaction.data, _EXEC + _watching(self._exchange)]
        await self._exchange_with_server(data, transaction.commands + _AROUND, requests=0)

    async def receive(self) -> list[Any]:
        """The replies to the commands of the transaction that is on its way, error replies among them.

        Raises:
            StoreRefuses: the server has refused a command. Nothing was written, and the fence is watched.
            StoreAway: nothing was written if the fence has changed, else that is unknown.
        """
        replies = await self._received()
        if replies is None:
            raise StoreAway("the fence has changed: nothing was written")
        return replies

    async def _received(self) -> list[Any] | None:
        """The replies; None if the fence had changed. If we are sent elsewhere, it is sent again there."""
        deadline = trio.current_time() + self._servers.timeout
        while (transaction := self._sent) is not None:
            (replies,) = await self._exchange_with_server((), 0, requests=1)
            self._sent = None
            *queued, executed, _, fence = replies
            if executed is None and not refusals_of([fence]):
                return None
            self.watched = fence == self._fence
            if type(executed) is list:
                if type(fence) is ErrorReply and direction_of(fence) is Direction.MOVED:
                    # The slot was moved behind `EXEC`. If the look fails, the next write says so.
                    with suppress(StoreAway):
                        await self._follow(fence, deadline)
                        await self._look_elsewhere()
                return executed
            # The first error tells the reason; `EXEC` repeats only that there was one. Or the fence was moved
            # to another server before all other keys, and only what asks for it shows that.
            refusals = refusals_of([*queued, executed, fence])
            if not refusals:
                self.close()
                raise StoreAway("unexpected answer to a write: is it a Redis?")
            await self._follow(refusals[0], deadline)
            await self._send_again(transaction)
        return []

    async def _send_again(self, transaction: Transaction) -> None:
        """Send a transaction that was not executed to the server that has the exchange now."""
        await self._look_elsewhere()
        if not self.watched:
            raise StoreAway("the fence is not surely ours on the server that has the exchange now")
        await self._send(transaction)

    async def _look_elsewhere(self) -> None:
        """Watch the fence on the server that has the exchange now."""
        await self._look()
        self.watched = self.watched and self._confirmed()

    async def remove(self, transaction: Transaction) -> None:
        """Carry out removals without a transaction, if the fence was ours at the last look.

        A Redis that is full may take no command in a transaction, not even one that frees memory. These
        remove only what is too old for every term, so they harm none.
        """
        if self.watched:
            await self._exchange_with_server(transaction.data, transaction.commands, requests=1)

    # ---- the connection ----

    async def _connect(self) -> None:
        if self._link is not None and not await self._link[1].usable():
            self.close()
        if self._link is None:
            server = await self._servers.of(self._exchange)
            try:
                self._link = server, await server.opener.open()
            except StoreAway:
                self._servers.doubt()
                raise

    async def _exchange_with_server(
        self, data: Sequence[bytes], replies: int, *, requests: int
    ) -> list[list[Any]]:
        """Send, unless there is nothing to be sent, and receive the replies to so many requests."""
        if self._link is None:
            raise StoreAway("the connection was lost")
        _, connection = self._link
        deadline = trio.current_time() + self._servers.timeout
        try:
            return await connection.exchange(data, replies, requests=requests, deadline=deadline, shield=True)
        except Exception as error:
            self.close()
            self._servers.doubt()
            raise self._servers.failures.away(error) from error
        except BaseException:
            self.close()
            raise

    async def _follow(self, error: ErrorReply, deadline: float) -> None:
        """Return if the exchange may be asked for again after this error, on a new connection.

        Raises:
            StoreRefuses: the error concerns the commands. The connection stays.
            StoreAway: the time is over.
        """
        reason = self._servers.failures.reason(error)
        direction = direction_of(error)
        if self._link is None or direction is None:
            raise StoreRefuses(reason)
        server, _ = self._link
        self.close()
        if trio.current_time() > deadline:
            raise StoreAway(reason)
        await self._servers.follow(server, error)
        if direction is Direction.ASK:
            # A transaction needs all keys in one place: wait until the slot has been moved as a whole.
            await trio.sleep(PAUSE_SECONDS)

    def close(self) -> None:
        """Close the connection, if there is one. The fence has to be looked at after that."""
        if self._link is not None:
            self._link[1].close()
        self._link = self._sent = None
        self.watched = False


def _watching(exchange: str) -> bytes:
    """The commands that watch and read the fence."""
    key = fence_key(exchange)
    return pack(b"WATCH", key) + pack(b"GET", key)
