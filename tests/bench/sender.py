"""Exchanges that send as fast as they are read, or at a rate: one separate process for all of them.

`exchanges.py` starts it and sends commands to its stdin; it answers each by a line of JSON. It must cost very
little, since it shares the cores with what is measured: lines are rendered once, up to the timestamp, which
is then put into a whole block of them at once (about 20 ns a line).
"""

from __future__ import annotations

import json
import os
import random
import select
import socket
import sys
import time
from collections import Counter, deque
from collections.abc import Sequence
from typing import Any, Literal, cast

LINES = 20_000
"""The number of rendered lines, which are sent in turn."""
BLOCK = 900
"""Lines that are sent together: about 64 KiB."""
TICK = 0.01
"""Seconds between two blocks at a given rate."""
PACE_TICKS = 10
"""Ticks between two blocks of a provided exchange, which sends a line of each symbol every 100 ms."""
PROBE = "PROBE"
"""The symbol of lines whose price is their number. Their arrival in Redis shows how long they took."""
SEND_BUFFER = 256 * 1024
"""The kernel's buffer; a larger one would only make timestamps older."""
STARTS = (100_000.0, 0.3, 3.9, 200.0, 3050.0)
LISTENING = "listening"


Telling = Literal["nothing", "always", "mixed"]
"""Whether lines tell volumes and sides: none does; each does; or some do, some tell what does not count."""
Trade = tuple[float | None, str | None]
"""What a line tells, as far as it counts: volume and side."""
IGNORED = ("null", '"1.5"', "-1", "1e19")
"""Volumes that do not count."""


class Lines:
    """Rendered lines of all symbols in turn, each a random walk. Prices do not depend on the rest."""

    def __init__(self, symbols: Sequence[str], telling: Telling = "nothing") -> None:
        rng, of_trades = random.Random(1), random.Random(2)
        prices = [STARTS[place % len(STARTS)] for place in range(len(symbols))]
        self._heads: list[bytes] = []
        """Lines up to their timestamp."""
        self.prices: list[float] = []
        """The price of each line."""
        self.trades: list[Trade] = []
        """What each line tells besides."""
        for number in range(LINES):
            place = number % len(symbols)
            prices[place] *= 1 + rng.uniform(-0.01, 0.01)
            self.prices.append(prices[place])
            told, trade = _trade(telling, of_trades)
            self.trades.append(trade)
            self._heads.append(_head(symbols[place], prices[place], told))

    def block(self, first: int, count: int, timestamp: int) -> tuple[bytes, int]:
        """At most `count` lines from `first` on, and their number."""
        first %= LINES
        heads = self._heads[first : first + count]
        end = b"%d}\n" % timestamp
        return end.join(heads) + end, len(heads)


def _head(symbol: str, price: float, told: str = "") -> bytes:
    return f'{{"symbol":"{symbol}","price":{price!r},{told}"timestamp":'.encode()


def _trade(telling: Telling, rng: random.Random) -> tuple[str, Trade]:
    """The part of a line before its timestamp, and what of that counts."""
    if telling == "nothing":
        return "", (None, None)
    volume, side = round(rng.lognormvariate(0.0, 1.0), 4), rng.choice(("buy", "sell"))
    if telling == "mixed":
        kind = rng.random()
        if kind < 0.1:
            return "", (None, None)
        if kind < 0.2:
            return f'"volume":{rng.choice(IGNORED)},"side":"{side}",', (None, None)
        if kind < 0.4:
            return f'"volume":{volume!r},', (volume, None)
    return f'"volume":{volume!r},"side":"{side}",', (volume, side)


class Exchange:
    """An exchange that listens, has at most one client, and counts complete lines."""

    def __init__(self, lines: Lines) -> None:
        self._lines = lines
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.listener.settimeout(0.0)
        self.client: socket.socket | None = None
        self._next = 0
        self._rest: memoryview = memoryview(b"")
        self._after: deque[tuple[bytes, int, int]] = deque()
        self._in_hand = [0, 0]
        """The number of lines being sent, and their timestamp (ms)."""
        self.sent = 0
        self.seconds: Counter[int] = Counter()
        """Lines by the second (Unix) of their timestamp."""

    def accept(self) -> None:
        self.client, _ = self.listener.accept()
        self.client.settimeout(0.0)
        self.client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.client.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)

    @property
    def idle(self) -> bool:
        """Whether everything that was begun has been sent."""
        return not self._rest and not self._after

    def offer(self, count: int) -> int:
        """Begin to send lines; returns their number."""
        timestamp = time.time_ns() // 1_000_000
        block, number = self._lines.block(self._next, count, timestamp)
        self._next += number
        self._begin(block, number, timestamp)
        return number

    def offer_each(self, symbols: int, timestamp: int) -> None:
        """Begin to send a line of each symbol with this timestamp."""
        block, number = self._lines.block(0, symbols, timestamp)
        self._begin(block, number, timestamp)

    def offer_probe(self, number: int) -> None:
        timestamp = time.time_ns() // 1_000_000
        self._begin(_head(PROBE, number) + b"%d}\n" % timestamp, 1, timestamp)

    def _begin(self, data: bytes, number: int, timestamp: int) -> None:
        if self.client is not None:
            self._after.append((data, number, timestamp))
            self.push()

    def push(self) -> bool:
        """Continue to send; returns whether everything that was begun has been sent."""
        while self.client is not None and not self.idle:
            if not self._rest:
                data, *self._in_hand = self._after.popleft()
                self._rest = memoryview(data)
            try:
                self._rest = self._rest[self.client.send(self._rest) :]
            except BlockingIOError:
                return False
            except OSError:
                self._lose_client()
                return False
            if not self._rest:
                number, timestamp = self._in_hand
                self.sent += number
                self.seconds[timestamp // 1_000] += number
        return True

    def _lose_client(self) -> None:
        """Count lines that were sent partly, or that waited, as not sent."""
        if self.client is not None:
            self.client.close()
        self.client = None
        self._rest = memoryview(b"")
        self._after.clear()


class Sender:
    """All exchanges, in one loop."""

    def __init__(self, exchanges: int, symbols: Sequence[str], telling: Telling = "nothing") -> None:
        lines = Lines(symbols, telling)
        self._symbols = len(symbols)
        self.exchanges = [Exchange(lines) for _ in range(exchanges)]
        self.rate: float | None = 0.0
        """Lines a second of all exchanges together; None: the flooding ones send as many as are read."""
        self.flooding = self.exchanges
        self.pacing = False
        """Whether they send as the provided exchanges do, each at times of its own."""
        self.probing = False
        self._ticks = 0
        self._probes: list[int] = []
        """The times of sending (ns, monotonic)."""
        self._since = 0.0
        self._due = 0.0
        self._stdin = b""

    def run(self) -> None:
        """Run until stdin ends."""
        ports = [each.listener.getsockname()[1] for each in self.exchanges]
        print(json.dumps({LISTENING: ports}), flush=True)
        poll = select.epoll()
        poll.register(0, select.EPOLLIN)
        listening = {each.listener.fileno(): each for each in self.exchanges}
        writing: dict[int, Exchange] = {}
        for number in listening:
            poll.register(number, select.EPOLLIN)
        next_tick = time.monotonic()
        while True:
            for number, events in poll.poll(self._patience(next_tick)):
                if number == 0:
                    if not self._told():
                        return
                elif number in listening:
                    exchange = listening[number]
                    exchange.accept()
                    client = exchange.client.fileno() if exchange.client else -1
                    writing[client] = exchange
                    # Edge-triggered: reported once when there is room again.
                    poll.register(client, select.EPOLLOUT | select.EPOLLET)
                elif events & select.EPOLLOUT:
                    writing[number].push()
            if self.rate is None:
                self._flood()
            now = time.monotonic()
            if now >= next_tick:
                next_tick = max(next_tick + TICK, now)
                self._tick(now)

    def _patience(self, next_tick: float) -> float:
        """Seconds until something is due."""
        if self.rate is None and any(each.idle and each.client is not None for each in self.flooding):
            return 0.0
        return max(0.0, next_tick - time.monotonic()) if self.rate or self.pacing or self.probing else 0.5

    def _flood(self) -> None:
        for exchange in self.flooding:
            # At most two in a row, so that commands and probes are not delayed.
            for _ in range(2):
                if not exchange.idle or exchange.client is None:
                    break
                exchange.offer(BLOCK)

    def _tick(self, now: float) -> None:
        self._ticks += 1
        if self.pacing:
            for place, exchange in enumerate(self.exchanges):
                # Of three exchanges, the second is 30 ms behind the first, and the third 60 ms.
                if (self._ticks - place * PACE_TICKS // len(self.exchanges)) % PACE_TICKS == 0:
                    exchange.offer(self._symbols)
        if self.rate:
            due = self.rate * (now - self._since)
            share = (due - self._due) / len(self.exchanges)
            count = int(share)
            self._due += count * len(self.exchanges)
            for exchange in self.exchanges:
                left = count
                while left > 0 and exchange.client is not None:
                    left -= exchange.offer(min(left, BLOCK))
        if self.probing:
            self._probes.append(time.monotonic_ns())
            self.exchanges[0].offer_probe(len(self._probes))

    def _told(self) -> bool:
        """Carry out the commands that arrived; returns False at the end of stdin."""
        self._stdin += (data := os.read(0, 65_536))
        *commands, self._stdin = self._stdin.split(b"\n")
        for command in commands:
            print(json.dumps(self._obey(json.loads(command))), flush=True)
        return bool(data)

    def _obey(self, command: dict[str, Any]) -> dict[str, Any]:
        if "flooding" in command:
            self.flooding = [self.exchanges[place] for place in command["flooding"]]
        if "rate" in command:
            self.rate, self._since, self._due = command["rate"], time.monotonic(), 0.0
        self.pacing = command.get("pacing", self.pacing)
        self.probing = command.get("probing", self.probing)
        for timestamp in command.get("each_at", ()):
            for exchange in self.exchanges:
                exchange.offer_each(self._symbols, timestamp)
        if command.get("finish"):
            for exchange in self.exchanges:
                while exchange.client is not None and not exchange.push():
                    select.select([], [exchange.client], [], 1.0)
        answer: dict[str, Any] = {
            "sent": [each.sent for each in self.exchanges],
            "connected": [each.client is not None for each in self.exchanges],
        }
        if command.get("finish"):
            answer["seconds"] = [each.seconds for each in self.exchanges]
        if command.get("told_probes"):
            answer["probes"] = self._probes
        return answer


if __name__ == "__main__":
    Sender(int(sys.argv[1]), sys.argv[2].split(","), cast("Telling", sys.argv[3])).run()
