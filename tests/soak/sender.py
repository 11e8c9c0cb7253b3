"""Exchanges that misbehave on command, and record what they sent: a separate process.

Commands come on stdin, and each is answered by a line of JSON. Lines are recorded by blocks: all lines of a
block have one timestamp, and their prices follow from the number of the first.
"""

from __future__ import annotations

import json
import os
import random
import socket
import struct
import sys
import time
from typing import Any

import trio

from tests.bench.sender import Lines

TICK = 0.02
"""Seconds between two blocks."""
LONGEST_TICK = 0.1
"""The most seconds of lines in a block that catches up."""
FLAP = 0.1
"""The length of a connection in seconds when it flaps."""
LEAVING = 5.0
"""Seconds that the peer may take to close."""
GARBAGE = (
    b"garbage\n",
    b"\x00\xff\xfe\n",
    b'{"symbol":"BTCUSDT","price":NaN,"timestamp":1795343351549}\n',
    b'{"symbol":"BTCUSDT","price":-1,"timestamp":1795343351549}\n',
    b'{"symbol":"BTCUSDT","price":1,"timestamp":99999999999999}\n',
    b'{"symbol":"BTCUSDT","price":1}\n',
    b'{"symbol":"A:B","price":1,"timestamp":1795343351549}\n',
    b'{"symbol":"BTCUSDT","price":1,"timestamp":1}\n',
    b"[" * 3_000 + b"\n",
    b"x" * 70_000 + b"\n",
    b"\r\n",
)


class Exchange:
    """An exchange with at most one client."""

    def __init__(self, name: str, port: int, lines: Lines, rate: float, first: int, said: Said) -> None:
        self.name, self.port, self.rate = name, port, rate
        self.behaviour = "normal"
        self._lines, self._next, self._said = lines, first, said
        self._random = random.Random(name)
        self._client: trio.SocketStream | None = None
        self._number = 0
        self._connected_at = 0.0
        self._gone = trio.Event()
        self._listening: trio.CancelScope | None = None

    async def run(self) -> None:
        """Send at the rate, and follow commands, until cancelled."""
        async with trio.open_nursery() as nursery:
            last = trio.current_time()
            while True:
                await trio.sleep(TICK)
                elapsed = min(LONGEST_TICK, trio.current_time() - last)
                last = trio.current_time()
                if self.behaviour == "down":
                    if self._listening is not None:
                        self._listening.cancel()
                        self._listening = None
                    await self._leave()
                    continue
                if self._listening is None:
                    self._listening = await nursery.start(self._listen)
                if self.behaviour == "reset":
                    self._reset()
                    self.behaviour = "normal"
                elif self.behaviour == "flap" and trio.current_time() - self._connected_at > FLAP:
                    await self._leave(rest=b'{"symbol":"BTCUS')
                elif self.behaviour != "silent":
                    await self._send(round(self.rate * elapsed))

    async def _listen(self, task_status: trio.TaskStatus[trio.CancelScope]) -> None:
        listeners = await trio.open_tcp_listeners(self.port, host="127.0.0.1")
        with trio.CancelScope() as scope:
            task_status.started(scope)
            await trio.serve_listeners(self._serve, listeners)

    async def _serve(self, client: trio.SocketStream) -> None:
        if self._client is not None:
            self._ended(self._number, exact=False)
        self._number += 1
        number, gone = self._number, trio.Event()
        self._gone = gone
        self._client, self._connected_at = client, trio.current_time()
        try:
            # The end of listening does not end the connection; `_leave` does.
            with trio.CancelScope(shield=True):
                while await client.receive_some(1024):
                    pass
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass
        finally:
            gone.set()
            if number == self._number:
                self._ended(number, exact=False)

    def _ended(self, number: int, *, exact: bool) -> None:
        if self._client is not None:
            self._client = None
            self._said.ended.append((self.name, number, now(), exact))

    async def _leave(self, rest: bytes = b"") -> None:
        """Close in such a way that all data arrives."""
        client = self._client
        if client is None:
            return
        try:
            await client.send_all(rest)
            await client.send_eof()
            self._ended(self._number, exact=True)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            self._ended(self._number, exact=False)
        with trio.move_on_after(LEAVING):
            await self._gone.wait()
        client.socket.close()

    def _reset(self) -> None:
        """Close in such a way that the peer loses unread data."""
        if self._client is not None:
            client = self._client
            self._ended(self._number, exact=False)
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            client.socket.close()

    async def _send(self, count: int) -> None:
        while count > 0 and (client := self._client) is not None:
            timestamp, first = now(), self._next
            block, sent = self._lines.block(first, count, timestamp)
            # Recorded before the send: the service may have it while the send still waits.
            self._said.blocks.append((self.name, self._number, first, sent, timestamp))
            self._next += sent
            count -= sent
            try:
                if self.behaviour == "garbage":
                    await self._send_badly(client, block)
                else:
                    await client.send_all(block)
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                return

    async def _send_badly(self, client: trio.SocketStream, block: bytes) -> None:
        """Send good lines among bad ones, cut anywhere."""
        cut = block.index(b"\n", self._random.randrange(len(block) - 1)) + 1
        data = block[:cut] + self._random.choice(GARBAGE) + block[cut:] + self._random.choice(GARBAGE)
        while data:
            size = self._random.choice((1, 7, 100, 2_000, 30_000))
            await client.send_all(data[:size])
            data = data[size:]


class Said:
    """What there is to report."""

    def __init__(self) -> None:
        self.blocks: list[tuple[str, int, int, int, int]] = []
        """Exchange, connection, number of the first line, number of lines, timestamp (ms)."""
        self.ended: list[tuple[str, int, int, bool]] = []
        """Exchange, connection, time (ms), and whether all its data has certainly arrived."""

    def told(self) -> dict[str, Any]:
        """What is new since the last report."""
        told = {"blocks": self.blocks, "ended": self.ended}
        self.blocks, self.ended = [], []
        return told


def now() -> int:
    """The current time in Unix ms."""
    return time.time_ns() // 1_000_000


async def _main(settings: dict[str, Any]) -> None:
    said = Said()
    lines = Lines(settings["symbols"], "mixed")
    made = {
        name: Exchange(name, port, lines, settings["rate"] / len(settings["ports"]), place * 5_000, said)
        for place, (name, port) in enumerate(settings["ports"].items())
    }
    rest = b""
    async with trio.open_nursery() as nursery:
        for exchange in made.values():
            nursery.start_soon(exchange.run)
        async with trio.lowlevel.FdStream(os.dup(0)) as stdin:
            async for data in stdin:
                *commands, rest = (rest + data).split(b"\n")
                for command in map(json.loads, commands):
                    for name in command.get("exchanges", ()):
                        made[name].behaviour = command["behaviour"]
                    print(json.dumps(said.told()), flush=True)
        nursery.cancel_scope.cancel()


if __name__ == "__main__":
    trio.run(_main, json.loads(sys.argv[1]))
