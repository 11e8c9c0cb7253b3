"""One connection to Redis: requests go out, their replies come in, in the same order."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from typing import Any, Final

import trio

from marketflow.adapters.cache.resp import MORE, Replies
from marketflow.patience import SECOND_LOOK

MOST_RECEIVED: Final = 65_536
"""Bytes of one receive at most."""
MOST_JOINED: Final = 65_536
"""Bytes of a request that is joined to be sent in one go. The parts of a larger one are sent one by one:
copying them would cost more than a system call for each."""


class Connection:
    """A connection is idle, or replies are awaited, or it is closed.

    It has one user at a time. The user closes it after a failure of any kind, a cancellation included: the
    rest of a reply may still come, and the next request would take that for its own reply. Nothing else has
    to be done to close it, and there is nothing to wait for.
    """

    def __init__(self, stream: trio.abc.Stream, socket: trio.socket.SocketType) -> None:
        """Owns both. The socket is the one below the stream."""
        self.received = 0
        """Bytes received up to now."""
        self._stream = stream
        self._socket = socket
        self._replies = Replies()
        self._awaited: deque[int] = deque()
        """The number of replies to each request that was sent and has none yet."""

    @property
    def awaited(self) -> int:
        """How many requests have no replies yet."""
        return len(self._awaited)

    @property
    def usable(self) -> bool:
        """Whether the next request can be sent.

        An idle connection with something to receive was closed by Redis, or Redis said something that nobody
        asked for. A new connection is not to be checked: with TLS, session tickets may have come.
        """
        return bool(self._awaited) or (self._replies.empty and not self._socket.is_readable())

    async def send(self, data: Sequence[bytes], replies: int, deadline: float) -> None:
        """Send a request of commands, which will have so many replies.

        Raises:
            trio.TooSlowError: not all of it could be sent until `deadline` (of Trio's clock).
            trio.BrokenResourceError: the connection broke.
        """
        with trio.fail_at(deadline):
            for part in _parts(data):
                await self._stream.send_all(part)
        self._awaited.append(replies)

    async def receive(self, requests: int, deadline: float) -> list[list[Any]]:
        """Receive the replies to each of so many requests, the oldest first.

        Raises:
            trio.TooSlowError: they were not complete at `deadline` (of Trio's clock).
            trio.BrokenResourceError: the connection broke.
            ConnectionError: Redis closed it.
            ProtocolError: what came is no reply.
            ErrorReply: an error that ends the connection. Others are among the replies.
        """
        return [await self._receive(self._awaited.popleft(), deadline) for _ in range(requests)]

    async def _receive(self, count: int, deadline: float) -> list[Any]:
        replies: list[Any] = []
        while len(replies) < count:
            reply = self._replies.next()
            if reply is MORE:
                data = await self._receive_some(deadline)
                if not data:
                    raise ConnectionError("Redis closed the connection")
                self.received += len(data)
                self._replies.feed(data)
            else:
                replies.append(reply)
        return replies

    async def _receive_some(self, deadline: float) -> bytes:
        if trio.current_time() < deadline:
            with trio.move_on_at(deadline):
                return bytes(await self._stream.receive_some(MOST_RECEIVED))
            # See marketflow.patience: this process may have stood still while the data came.
            with trio.move_on_after(SECOND_LOOK):
                return bytes(await self._stream.receive_some(MOST_RECEIVED))
        raise trio.TooSlowError

    def close(self) -> None:
        """Close it at once. What was not sent is not sent any more."""
        self._socket.close()


def _parts(data: Sequence[bytes]) -> Iterable[bytes]:
    if sum(map(len, data)) <= MOST_JOINED:
        return (b"".join(data),)
    return filter(None, data)
