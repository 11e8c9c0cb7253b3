"""Reads lines from a stream of bytes, and sends them on as payloads."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager, AsyncExitStack
from functools import partial

import attrs
import trio

from marketflow.adapters.exchange.lines import LineFramer, Lines
from marketflow.adapters.exchange.pacing import Connection, Pace
from marketflow.app.ports import Clock, Intake


@attrs.frozen
class LineReader:
    """Reads the connections of sources whose lines come as a stream of bytes."""

    clock: Clock
    pace: Pace = attrs.field(factory=Pace)
    """When they are read. By default there are no pauses."""

    async def connect_and_read(
        self, intake: Intake[Lines], connecting: AbstractAsyncContextManager[Connection]
    ) -> None:
        """Make a connection and read it, until it ends or the stop comes.

        Raises:
            OSError: no connection could be made, or it ended.
        """
        async with AsyncExitStack() as stack:
            # Only connecting is a wait on the outside world, so the block that follows is not part of it.
            connection = await intake.outside(partial(stack.enter_async_context, connecting))
            if connection is None or intake.stopping:
                return
            intake.connected()
            await self.read(intake, connection)

    async def read(self, intake: Intake[Lines], connection: Connection) -> None:
        """Send whole lines until the stop, or until the connection ends.

        Raises:
            OSError: the connection ended.
        """
        framer = LineFramer()
        paced = self.pace.paced(connection, lambda: intake.stopping)

        async def receive_lines() -> Lines | None:
            data = await paced.receive()
            if not data:
                raise ConnectionError("closed by the exchange")
            lines, oversized = framer.push(data)
            if lines or oversized:
                return Lines(lines, oversized, self.clock.now(), trio.current_time())
            return None

        try:
            await intake.forward(receive_lines)
        except OSError as error:
            # Everything received before the end counts, even a last line without a newline.
            lines, oversized = framer.finish()
            if lines or oversized:
                intake.ended(error)
                await intake.send(Lines(lines, oversized, self.clock.now(), trio.current_time()))
            raise
