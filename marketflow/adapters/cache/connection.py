"""One connection to Redis: requests go out, their replies come in, in the same order."""

from __future__ import annotations

import select
import socket
from collections import deque
from collections.abc import Iterable, Sequence
from itertools import islice
from typing import Any, Final, Protocol

import trio

from marketflow.adapters.cache.resp import ProtocolError, Replies
from marketflow.patience import SECOND_LOOK

MOST_RECEIVED: Final = 65_536
"""Bytes of one receive at most."""
MOST_REPLIED: Final = 268_435_456
"""Bytes of the replies to a request at most. No request of ours gets a tenth of that; something that is not a
Redis, or a key that is not ours, may announce or send gigabytes."""
MOST_JOINED: Final = 65_536
"""Bytes of a request that is joined to be sent in one go. The parts of a larger one are sent one by one:
copying them would cost more than a system call for each."""


class Stream(Protocol):
    """What a connection needs of a stream: `PlainStream` or, with TLS, `TlsStream`."""

    async def send_all(self, data: bytes) -> None:
        """Send all of it."""
        ...

    async def receive_some(self, max_bytes: int) -> bytes | bytearray:
        """Wait for the next bytes; empty at the end."""
        ...

    async def has_more(self) -> bool:
        """Whether it has received bytes that nobody has asked for. Does not wait; the bytes may be lost."""
        ...


class Connection:
    """A connection is idle, or awaits replies, or is closed.

    It has one user at a time. The user closes it after a failure of any kind, a cancellation included: the
    rest of a reply may still come, and the next request would take it for its own reply.
    """

    def __init__(self, stream: Stream, connected: socket.socket) -> None:
        """Owns both. The socket is the one below the stream."""
        self.received = 0
        """Bytes received up to now."""
        self._stream = stream
        self._socket = connected
        self._readable = select.poll()
        self._readable.register(connected, select.POLLIN)
        self._replies = Replies()
        self._found: list[Any] = []
        """Replies that have come, to requests whose replies are not complete."""
        self._awaited: deque[int] = deque()
        """The number of replies to each request that was sent and has none yet."""

    @property
    def awaited(self) -> int:
        """How many requests have no replies yet."""
        return len(self._awaited)

    async def usable(self) -> bool:
        """Whether the next request can be sent.

        If something can be received on an idle connection, Redis has closed it or sent a reply too many.
        Do not check a connection that was just made: with TLS, session tickets may have come.
        """
        if self._awaited:
            return True
        return self._replies.empty and not self._readable.poll(0) and not await self._stream.has_more()

    async def exchange(
        self, data: Sequence[bytes], replies: int, *, requests: int, deadline: float, shield: bool = False
    ) -> list[list[Any]]:
        """Send a request, and receive the replies to the oldest requests. Waits only for replies.

        Args:
            data: commands in parts; without any, nothing is sent.
            replies: how many there will be to these commands.
            requests: to how many requests replies are received; this one may be the last of them.
            deadline: in seconds of Trio's clock.
            shield: whether a cancellation from outside has to wait.

        Raises:
            trio.TooSlowError: the time is over.
            OSError, trio.BrokenResourceError: the connection broke, or Redis closed it.
            ProtocolError: what came is no reply, or far too long for one.
            ErrorReply: an error that ends the connection. Others are among the replies.
        """
        sent = False
        with trio.CancelScope(deadline=deadline, shield=shield):
            if data:
                for part in _parts(data):
                    await self._stream.send_all(part)
                self._awaited.append(replies)
            sent = True
            return await self._receive(requests)
        if sent:
            # See marketflow.patience: this process may have stood still while the replies came.
            with trio.CancelScope(deadline=trio.current_time() + SECOND_LOOK, shield=shield):
                return await self._receive(requests)
        raise trio.TooSlowError

    async def _receive(self, requests: int) -> list[list[Any]]:
        """May be called again after a cancellation: what has come is kept."""
        wanted, found = sum(islice(self._awaited, requests)), self._found
        self._replies.add_to(found, wanted)
        most = self.received + MOST_REPLIED
        while len(found) < wanted:
            data = await self._stream.receive_some(MOST_RECEIVED)
            if not data:
                raise ConnectionError("Redis closed the connection")
            self.received += len(data)
            if self.received > most:
                raise ProtocolError(f"more than {MOST_REPLIED:,} bytes")
            self._replies.feed(bytes(data))
            self._replies.add_to(found, wanted)
        following = iter(found)
        self._found = []
        return [list(islice(following, self._awaited.popleft())) for _ in range(requests)]

    def close(self) -> None:
        """Close it at once. What was not sent is not sent any more."""
        if self._socket.fileno() != -1:
            trio.lowlevel.notify_closing(self._socket)
            self._socket.close()


def _parts(data: Sequence[bytes]) -> Iterable[bytes]:
    if sum(map(len, data)) <= MOST_JOINED:
        return (b"".join(data),)
    return filter(None, data)
