"""The limit of the data path: what Redis takes in when nothing but its own work is in the way.

Flushes as docs/storage.md has them (variadic ZADDs of 1,000 members, an EXPIRE for each key, trimming each
half second), rendered beforehand; each time only timestamps and sequences are put in, by replacement.
One raw socket, the next flush sent before the last is answered, so that Redis never waits.
"""

from __future__ import annotations

import random
import socket
import time
from typing import Any

import attrs

from tests.bench.processes import cpu_seconds
from tests.bench.sender import STARTS
from tests.bench.stage import BenchError, Stage, symbols

FLUSH = 20_000
"""Members in a flush."""
COMMAND = 1_000
"""Members in a ZADD."""
SPREAD = 20
"""Milliseconds that the timestamps of a flush lie apart: five flushes share the first digits of theirs."""
SLOTS = 100 // SPREAD
TIME_PLACE = b"@" * 11
"""Where the first digits of a timestamp go."""
NUMBER_PLACE = b"#" * 11
"""Where the first digits of a sequence go."""
TRIM_SECONDS = 0.5
MARGIN_MS = 4_000
"""As the service: what is older than the window and that is removed."""


@attrs.frozen
class RawRedis:
    """One run."""

    rate: float
    """Members a second."""
    cpu_us: float
    """Of Redis, user and system, for each member."""
    busy: float
    """Part of a core that Redis used."""
    members: int
    """Left at the end."""


def raw_redis(stage: Stage, *, exchanges: int, symbols_count: int, seconds: float, window: float) -> RawRedis:
    """Feed an empty Redis for so long; timestamps are of real time, as the trimming."""
    stage.fresh()
    keys = [
        f"prices:exchange{number + 1}:{symbol}"
        for number in range(exchanges)
        for symbol in symbols(symbols_count)
    ]
    flushes = [_rendered(keys, slot) for slot in range(SLOTS)]
    replies = _replies(len(keys))
    with socket.create_connection(("127.0.0.1", stage.redis.port)) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        reader = _Replies(connection)
        began, cpu = time.monotonic(), cpu_seconds(stage.redis.pid)
        trimmed, sent, waiting = began, 0, [0]
        while (now := time.monotonic()) - began < seconds:
            milliseconds = time.time_ns() // 1_000_000
            flush = flushes[milliseconds % 100 // SPREAD]
            flush = flush.replace(TIME_PLACE, b"%011d" % (milliseconds // 100))
            flush = flush.replace(NUMBER_PLACE, b"%011d" % sent)
            expected = replies
            if now - trimmed >= TRIM_SECONDS:
                trimmed = now
                flush += _trim(keys, milliseconds - int(window * 1_000) - MARGIN_MS)
                expected += len(keys)
            waiting.append(expected)
            connection.sendall(flush)
            sent += 1
            if len(waiting) > 2:
                reader.read(waiting.pop(0))
        for expected in waiting:
            reader.read(expected)
        took, used = time.monotonic() - began, cpu_seconds(stage.redis.pid) - cpu
    with stage.client() as client:
        members = sum(int(client.zcard(key)) for key in keys)
    count = sent * FLUSH
    if seconds < window and members != count:
        raise BenchError(f"Redis was sent {count} members and has {members}")
    return RawRedis(count / took, used / count * 1e6, used / took, members)


def _rendered(keys: list[str], slot: int) -> bytes:
    """A flush whose timestamps lie in one of the five parts of a tenth of a second."""
    rng = random.Random(slot)
    commands: list[bytes] = []
    for place, key in enumerate(keys):
        price = STARTS[place % len(STARTS)]
        numbers = range(FLUSH * place // len(keys), FLUSH * (place + 1) // len(keys))
        for first in range(0, len(numbers), COMMAND):
            part = numbers[first : first + COMMAND]
            words: list[bytes] = [b"ZADD", key.encode()]
            for offset, number in enumerate(part):
                price *= 1 + rng.uniform(-0.01, 0.01)
                millisecond = slot * SPREAD + (first + offset) * SPREAD // len(numbers)
                words += [
                    TIME_PLACE + b"%02d" % millisecond,
                    b"%b:%b%05d:a1b2c3d4" % (repr(price).encode(), NUMBER_PLACE, number),
                ]
            commands.append(_pack(words))
        commands.append(_pack([b"EXPIRE", key.encode(), b"65"]))
    return b"".join(commands)


def _replies(keys: int) -> int:
    sizes = [FLUSH * (place + 1) // keys - FLUSH * place // keys for place in range(keys)]
    return sum(-(-size // COMMAND) + 1 for size in sizes)


def _trim(keys: list[str], before: int) -> bytes:
    return b"".join(_pack([b"ZREMRANGEBYSCORE", key.encode(), b"-inf", b"(%d" % before]) for key in keys)


def _pack(words: list[bytes]) -> bytes:
    packed = b"".join(b"$%d\r\n%b\r\n" % (len(word), word) for word in words)
    return b"*%d\r\n" % len(words) + packed


class _Replies:
    """Integer replies, of which only the number matters."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self._ahead = 0

    def read(self, count: int) -> None:
        """Wait until so many more have come."""
        while self._ahead < count:
            data = self._connection.recv(65_536)
            if not data or b"-" in data:
                raise BenchError(f"Redis said {data[:200]!r}")
            self._ahead += data.count(b"\n")
        self._ahead -= count
