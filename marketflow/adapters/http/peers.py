"""Clients' connections as Hypercorn serves them, with some things put right that it has no settings for."""

from __future__ import annotations

import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any, Final, cast

import trio
from hypercorn.config import Config
from hypercorn.events import Closed, Event, RawData, Updated
from hypercorn.trio.tcp_server import MAX_RECV, TCPServer
from hypercorn.typing import ConnectionState, WWWScope

from marketflow.adapters.http.connection_errors import ConnectionErrors, split
from marketflow.adapters.http.ending import Ending
from marketflow.adapters.http.idle import IdleTimer

UNREAD_TIMEOUT_MS: Final = 2_000
"""How long a client may leave what was sent to it unread before its connection is dropped."""
STREAM_UNREAD_TIMEOUT_MS: Final = 60_000
"""The same for a client of a stream: out of reach for a while, it is to go on with the newest after that."""
REFUSAL: Final = (
    b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/problem+json\r\nConnection: close\r\n"
    b"Retry-After: 1\r\nContent-Length: %d\r\n\r\n%b"
)
TOO_MANY: Final = (
    b'{"type":"about:blank","title":"Service Unavailable","status":503,'
    b'"detail":"the service has as many connections as http.max_connections, try again later"}'
)
"""What one connection too many is told, whatever it wants."""
REFUSAL_SECONDS: Final = 0.5
"""How long it has to read that."""
MOST_REFUSED: Final = 256
"""How many are told so at a time; more are closed without a word."""

GONE: Final = (trio.BrokenResourceError, trio.ClosedResourceError)
"""What is raised when the client has ended the connection, or we have."""

_PEER: Final = "marketflow.peer"


class Peers:
    """The connections there are."""

    def __init__(self, most: int, errors: ConnectionErrors) -> None:
        """`most`: how many there may be at a time. Those that fail are told to `errors`."""
        self.errors = errors
        self.refusing = 0
        """How many are being told that they are too many."""
        self._most = most
        self._peers: set[Peer] = set()

    @property
    def full(self) -> bool:
        """Whether one more would be too many."""
        return len(self._peers) >= self._most

    def add(self, peer: Peer) -> None:
        """One has begun."""
        self._peers.add(peer)

    def discard(self, peer: Peer) -> None:
        """One has ended."""
        self._peers.discard(peer)

    def cut_off(self) -> None:
        """Close all of them, now, whatever they do."""
        for peer in self._peers:
            peer.cut_off()


class PeersConfig(Config):
    """Hypercorn's settings, and the connections that are served by them."""

    def __init__(self, peers: Peers) -> None:
        super().__init__()
        self.peers = peers


class Peer(TCPServer):
    """One connection, from its beginning to its end."""

    config: PeersConfig
    idle_task: IdleTimer  # type: ignore[assignment]

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._held: list[bytes] | None = None
        """What is to be sent in one go with what follows."""
        self.ending = Ending()
        self._answering = trio.CancelScope()
        self._left = False
        self._failed = False

    async def run(self) -> None:
        """Serve it, or refuse it if there are too many."""
        if self.config.peers.full:
            await self._refuse()
            return
        # What is here Hypercorn copies into the scope of each request.
        self.state = cast("ConnectionState", {**self.state, _PEER: self})
        self.config.peers.add(self)
        self.idle_task = IdleTimer(
            patience=self.config.keep_alive_timeout,
            terminated=self.context.terminated,
            close=self._initiate_server_close,
        )
        try:
            # Not the nursery's own scope: Hypercorn's TaskGroup lets the cancellation out of it, and loose in
            # the nursery of all connections it would end the server.
            with self.ending.scope:
                await super().run()
        finally:
            self.config.peers.discard(self)

    def failed(self, error: BaseException, *, logged: bool = False) -> None:
        """End it for an error. Several errors of one connection count once: the first is the cause."""
        self.ending.soon()
        if not self._failed:
            self._failed = True
            self.config.peers.errors.add(error, logged=logged)

    def _report(self, error: BaseException) -> None:
        """Report it where it is raised: on its way out of Hypercorn another may take its place."""
        _, own = split(error)
        if own is not None:
            self.failed(own)

    async def protocol_send(self, event: Event) -> None:
        """Send; one that fails is the end of the connection.

        Hypercorn would go on waiting for the end of an answer, to read what the client has asked after it.
        """
        if self._held is not None:
            if isinstance(event, RawData):
                self._held.append(event.data)
                return
            await self.release()
        if isinstance(event, RawData):
            await self._write(event.data)
            return
        if isinstance(event, Closed):
            self.ending.soon()
        # A client that has left is not idle: a timer begun now would keep its place for nobody.
        if not (isinstance(event, Updated) and self._left):
            await super().protocol_send(event)

    def hold(self) -> None:
        """Keep what is to be sent until `release`, to send it in one go: a send is a tenth of an answer."""
        self._held = []

    async def release(self) -> None:
        """Send what was kept."""
        held, self._held = self._held, None
        await self._write(b"".join(held or ()))

    async def _write(self, data: bytes) -> None:
        if not data:  # the end of an answer that has told its length
            return
        async with self.send_lock:
            try:
                # Shielded, as in Hypercorn: half of a frame or of an answer is of no use to anybody.
                with self.ending.shielded() as sending:
                    await self.stream.send_all(data)
            except GONE:
                await self.protocol.handle(Closed())
                self.leave()
            except BaseException as error:
                self._report(error)
                # Nobody knows how much of it was sent, so nothing may follow it.
                self.ending.scope.cancel()
                raise
            if sending.cancelled_caught:
                self.leave()

    async def _close(self) -> None:
        """Close it, when what is being sent was sent: Hypercorn's two tasks do not wait for each other."""
        async with self.send_lock:
            await super()._close()

    async def _read_data(self) -> None:
        """Read until the client leaves. Hypercorn would then wait for the idle timer to run out."""
        try:
            while data := await self.stream.receive_some(MAX_RECV):
                await self.protocol.handle(RawData(bytes(data)))
        except GONE:
            pass
        except BaseException as error:
            self._report(error)
            raise
        finally:
            # Without a reader nothing else would notice that it should end.
            self.ending.soon()
        await self.protocol.handle(RawData(b""))
        await self.protocol.handle(Closed())
        self._left = True
        self.idle_task.end()
        self._answering.cancel()

    @contextmanager
    def answering(self) -> Iterator[None]:
        """Lasts as long as an answer is made: it ends when the client leaves."""
        with trio.CancelScope() as self._answering:
            yield

    async def _refuse(self) -> None:
        peers = self.config.peers
        if peers.refusing >= MOST_REFUSED:
            await trio.aclose_forcefully(self.stream)
            return
        peers.refusing += 1
        try:
            await self._tell_too_many()
        finally:
            peers.refusing -= 1

    async def _tell_too_many(self) -> None:
        with (
            trio.move_on_after(REFUSAL_SECONDS),
            suppress(*GONE),
        ):
            await self.stream.send_all(REFUSAL % (len(TOO_MANY), TOO_MANY))
            await self.stream.send_eof()
            # Closed with something unread, the kernel would reset it, and what it was told be lost.
            while await self.stream.receive_some():
                pass
        await trio.aclose_forcefully(self.stream)

    def cut_off(self) -> None:
        """Close it now, whatever is being sent."""
        self.stream.socket.close()
        self.ending.soon(0.0)

    def leave(self) -> None:
        """End it, once what is being sent is on its way."""
        self.ending.soon()
        self.ending.scope.cancel()

    def become_stream(self) -> None:
        """Be patient with a client that does not read. It holds little: what gets old is not kept for it.

        Trio lets the kernel take no more than 16 KiB ahead of what the client's window has room for.
        """
        if hasattr(socket, "TCP_USER_TIMEOUT"):
            with suppress(OSError):  # It may be closed already.
                self.stream.socket.setsockopt(
                    socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, STREAM_UNREAD_TIMEOUT_MS
                )


def become_stream(scope: WWWScope) -> None:
    """The answer to this request is a stream: it goes on for as long as the client stays."""
    peer = peer_of(scope)
    if peer is not None:  # there is none in a test without a server
        peer.become_stream()


def peer_of(scope: WWWScope) -> Peer | None:
    """The connection that a request came by; None in a test without a server."""
    return peer_in(cast("dict[str, Any]", scope.get("state", {})))


def peer_in(state: Mapping[str, Any]) -> Peer | None:
    """The same, from the state that Hypercorn copies from the connection to each request."""
    return cast("Peer | None", state.get(_PEER))
