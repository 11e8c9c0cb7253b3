"""The feed: keeps the source of one exchange connected, and knows how it is."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Final

import trio

from marketflow.app.ingest.intake import ChunkSender, Intake
from marketflow.app.ingest.outage_log import OutageLog
from marketflow.app.ingest.state import FeedState
from marketflow.app.ingest.waits import Waits
from marketflow.app.ports import OUTAGES, Decoded
from marketflow.domain.prices import MALFORMED
from marketflow.patience import SECOND_LOOK

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from marketflow.app.ingest.backoff import Backoff
    from marketflow.app.ports import Chunk, Source

HEALTHY_AFTER: Final = 5.0
"""Seconds after which a connection that is well was a good one: the back-off then begins again."""
STOP_PATIENCE: Final = 30.0
"""Seconds after a stop in which a source has to return. After that it is cancelled: otherwise a switch of
modes would wait for ever. (A stop of the service has a limit of its own.)"""

LOOKS: Final = 10
"""How often a source must have been found with no send under way before it is cancelled."""


class Feed:
    """Runs the source of one exchange again and again until the stop, with a pause after each failure.

    An error of a source costs its connection, and never the service; an error of its codec costs the
    payload. An error of ours (in a send to the workers, for example) ends the service as anywhere else.
    """

    def __init__(
        self,
        source: Source[Any],
        *,
        backoff: Backoff,
        idle_timeout: float,
        last_well: Callable[[], float | None],
    ) -> None:
        """Times in seconds of Trio's clock.

        Args:
            source: what is run.
            backoff: the pauses.
            idle_timeout: how long a source may receive nothing.
            last_well: tells when the exchange was last well, None if it never was. It is when an update is
                accepted. A source of a venue knows more: a quiet one is well, too.
        """
        self.exchange = source.exchange
        self.state = FeedState()
        self._source = source
        self._backoff = backoff
        self._idle_timeout = idle_timeout
        self._last_well = last_well
        self._log = OutageLog(source.exchange)

    @property
    def connected(self) -> bool:
        """Whether the exchange can be read."""
        return self.state.connected

    @property
    def next_chunk(self) -> int:
        """The number of the first chunk of the next run."""
        return self.state.next_chunk

    @property
    def running_since(self) -> float:
        """When it was last started (seconds of Trio's clock)."""
        return self.state.running_since

    @property
    def reconnects(self) -> int:
        """How many connections were made because one had ended."""
        return self.state.reconnects

    @property
    def bugs(self) -> int:
        """How many bugs of the source or its codec were noticed."""
        return self.state.bugs

    async def run(self, chunks: trio.MemorySendChannel[Chunk[Any]], stopping: trio.Event) -> None:
        """Send what the source receives as chunks, until `stopping` is set. Owns and closes `chunks`.

        The stop ends waits for the outside only (connecting, receiving, backing off), never a send. What was
        received is sent on, and so is what one more receive finds. A message that is not complete by then was
        not received.
        """
        waits = Waits(stopping)
        sender = ChunkSender(self.exchange, chunks, self.state.next_chunk)
        intake = Intake(
            waits,
            sender,
            idle_timeout=self._idle_timeout,
            on_connected=self._connected,
            on_ended=self._failed,
        )
        self.state.start(trio.current_time())
        self._end_outage()
        try:
            async with chunks, trio.open_nursery() as nursery:
                source_scope = trio.CancelScope()
                nursery.start_soon(waits.end_at_stop)
                nursery.start_soon(sender.run)
                nursery.start_soon(self._abandon_late_source, stopping, sender, source_scope)
                with source_scope:
                    while not waits.stopping:
                        await self._run_source(intake)
                        if self.state.state == "backing off":
                            await waits.outside(partial(trio.sleep, self._backoff.next()))
                            self.state.retry(trio.current_time())
                await sender.drained()
                nursery.cancel_scope.cancel()
        finally:
            self.state.next_chunk = sender.next_number
            self.state.stop(trio.current_time())

    def decode(self, payload: Any) -> Decoded:
        """What the source's codec finds in a payload; for the workers.

        A codec that raises has a bug. It costs this payload, whose messages count as malformed.
        """
        try:
            return self._source.decode(payload)
        except Exception as error:  # noqa: BLE001 - logged, and nothing is lost without being counted
            self.state.bugs += 1
            self._log.codec_failed(error, bugs=self.state.bugs)
            count = payload.messages
            return Decoded(received=count, rejected={MALFORMED: count} if count else {}, updates=())

    async def _run_source(self, intake: Intake[Any]) -> None:
        """One connection, from connecting to its end."""
        failure: Exception | None = None
        passed_on: BaseExceptionGroup | None = None
        try:
            await self._source.run(intake)
        except BaseExceptionGroup as group:
            failure, passed_on = group.split(Exception)  # a cancellation from outside, among others
        except Exception as error:  # noqa: BLE001 - logged
            failure = error
        else:
            if not intake.stopping:
                failure = ConnectionError("the source ended the connection")
        if failure is not None and any(cause is not intake.reported for cause in _causes(failure)):
            self._failed(failure)
        if passed_on is not None:
            raise passed_on

    async def _abandon_late_source(
        self, stopping: trio.Event, sender: ChunkSender[Any], scope: trio.CancelScope
    ) -> None:
        """Cancel the source if it has forgotten the stop, so that a switch of modes or a stop can go on.

        One that waits for the workers keeps the rules: between two sends it needs a moment to receive what
        is there. So it is cancelled only when several looks have found it with no send.
        """
        await stopping.wait()
        await trio.sleep(STOP_PATIENCE)
        looks = 0
        while looks < LOOKS:
            # Each look after a sleep: if it was our process that stood still, the source goes on now.
            await trio.sleep(SECOND_LOOK)
            looks += not sender.waiting
        self.state.bugs += 1
        self._log.source_abandoned(bugs=self.state.bugs)
        scope.cancel()

    # ---- what is known of the connection ----

    def _connected(self) -> None:
        if self.state.connect(trio.current_time()):
            self._log.connected(self.state.last_error)

    def _failed(self, error: Exception) -> None:
        """The connection has ended, or could not be made."""
        now, causes = trio.current_time(), list(_causes(error))
        text = str(causes[0]) or type(causes[0]).__name__
        is_outage = all(isinstance(cause, OUTAGES) for cause in causes)
        if self.state.state == "backing off" and is_outage:
            return  # The source had reported this end before it returned.
        event, facts = "cannot connect", {}
        if self.state.connected:
            event, facts = "disconnected", {"seconds": round(now - self.state.since, 3)}
            well_at = self._last_well()
            if well_at is not None and well_at - self.state.since >= HEALTHY_AFTER:
                self._end_outage()
        if is_outage:
            self.state.fail(now, text)
            self._log.failed(event, text, **facts)
        else:
            self.state.fail(now, text, bug=True)
            self._log.source_failed(error, causes[0], bugs=self.state.bugs, **facts)

    def _end_outage(self) -> None:
        self._backoff.reset()
        self._log.end_outage()


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The error, or of a group all those within; bugs come first."""
    if isinstance(error, BaseExceptionGroup):
        causes = [cause for each in error.exceptions for cause in _causes(each)]
        yield from sorted(causes, key=lambda cause: isinstance(cause, OUTAGES))
    else:
        yield error
