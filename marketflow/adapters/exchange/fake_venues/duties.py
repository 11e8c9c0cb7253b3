"""What a venue does on a connection by the clock: greeting, pings, heartbeats, limits of time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import trio

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from marketflow.adapters.exchange.fake_venues.connection import Connection, Pulse
    from marketflow.adapters.exchange.fake_venues.floor import Floor
    from marketflow.adapters.exchange.fake_venues.protocol import Rules

CLOSE_TIMEOUT: Final = 2.0
"""Seconds in which a client must answer a close."""
GOING_AWAY: Final = 1001
SERVICE_RESTART: Final = 1012


def duties(connection: Connection, floor: Floor) -> Iterator[Callable[[], Awaitable[None]]]:
    """The tasks of a connection. Each ends with the connection at the latest."""
    timed = Duties(connection, floor)
    rules = floor.kind.rules
    yield timed.give_up
    yield timed.leave
    if rules.greets_after:
        yield timed.greet
    if rules.subscribe_within is not None:
        yield timed.expect_subscription
    if rules.pings_every is not None:
        yield timed.ping
    if rules.heartbeat is not None:
        yield timed.beat
    if timed.lifetime is not None:
        yield timed.cut
    for name, limit, last in _limits(rules):
        yield lambda name=name, limit=limit, last=last: timed.expect(name, limit, last)  # type: ignore[misc]


def _limits(rules: Rules) -> Iterator[tuple[str, float, Callable[[Pulse], float]]]:
    """Limits of the time since something last happened: what is missing, the limit in seconds, and when."""
    if rules.pong_within is not None:
        yield "no pong", rules.pong_within, lambda pulse: pulse.ponged
    if rules.client_pings_within is not None:
        yield "no ping", rules.client_pings_within, lambda pulse: pulse.pinged
    if rules.idle is not None:
        yield "no data and no ping", rules.idle, lambda pulse: max(pulse.sent, pulse.heard)


class Duties:
    """The duties of one connection."""

    def __init__(self, connection: Connection, floor: Floor) -> None:
        self._connection = connection
        self._floor = floor
        self._rules = floor.kind.rules
        faults = floor.faults
        self.lifetime = self._rules.lifetime if faults.lifetime is None else faults.lifetime

    async def greet(self) -> None:
        """Send the greeting, some time after the connection was made."""
        await trio.sleep(self._rules.greets_after)
        self._connection.greet()

    async def give_up(self) -> None:
        """End a closing connection if the client does not answer the close."""
        await self._connection.pulse.closing.wait()
        await trio.sleep(CLOSE_TIMEOUT)
        self._connection.outbox.end()

    async def leave(self) -> None:
        """Disconnect the client some time after a maintenance was announced."""
        pulse = self._connection.pulse
        await pulse.announced.wait()
        await trio.sleep_until(pulse.cut_at)
        self._connection.close(SERVICE_RESTART, "service restart")

    async def expect_subscription(self) -> None:
        """Disconnect a client that has not subscribed in time."""
        seconds = self._rules.subscribe_within or 0.0
        await trio.sleep(seconds)
        if not self._connection.pulse.subscribed and self._floor.faults.mute != "all":
            self._connection.violate(f"no subscription within {seconds:g} s")

    async def ping(self) -> None:
        """Send pings of the WebSocket protocol."""
        while True:
            await trio.sleep(self._rules.pings_every or 0.0)
            self._connection.ping()

    async def expect(self, missing: str, limit: float, last: Callable[[Pulse], float]) -> None:
        """Disconnect a client from which nothing has come for too long."""
        begin = trio.current_time()
        while True:
            due = max(last(self._connection.pulse), begin) + limit
            if trio.current_time() < due:
                await trio.sleep_until(due)
            elif self._floor.faults.mute == "all":
                begin = trio.current_time()  # the client could not know
            else:
                self._connection.violate(f"{missing} for {limit:g} s")
                return

    async def beat(self) -> None:
        """Send heartbeats."""
        pause = self._rules.heartbeat or 0.0
        connection = self._connection
        due = trio.current_time() + pause
        while True:
            await trio.sleep_until(due)
            if self._rules.heartbeats_when_quiet and connection.pulse.sent + pause > trio.current_time():
                due = connection.pulse.sent + pause
                continue
            for message in self._floor.kind.heartbeats(connection.session, self._floor.market, self._now()):
                connection.send(message)
            due = trio.current_time() + pause

    async def cut(self) -> None:
        """Disconnect the client at the end of the connection's lifetime."""
        await trio.sleep(self.lifetime or 0.0)
        self._connection.close(GOING_AWAY, "the connection has reached its lifetime")

    def _now(self) -> int:
        return self._floor.clock.now() * 1_000_000
