"""The limit of the data path: how much Redis takes in if only its own work limits it.

It sends flushes like those of docs/storage.md (variadic ZADDs of 1,000 members, an EXPIRE for each key of a
flush, which the service sends less often, and trimming every half second). They are encoded before the run;
then only the digits of timestamps and sequences are filled in. All members of a command have the same length,
so one digit of all of them is one assignment to a slice. The next flush is sent on one raw socket before the
last is answered, so that Redis never waits.
"""

from __future__ import annotations

import random
import re
import socket
import time
from typing import Any

import attrs
import redis

from tests.bench.processes import cpu_seconds
from tests.bench.sender import STARTS
from tests.bench.stage import BenchError, Stage, symbols
from tests.servers import TcpRedis

FLUSH = 20_000
"""Members in a flush."""
COMMAND = 1_000
"""Members in a ZADD."""
SPREAD = 20
"""The range of a flush's timestamps in ms: five flushes share the first digits of theirs."""
SLOTS = 100 // SPREAD
TIME_DIGITS = 11
"""The number of leading digits of a timestamp's 13 that are filled in."""
NUMBER_DIGITS = 6
"""The number of leading digits of a sequence's 11 that are filled in: the flush's number."""
PRICE_DIGITS = 17
MEMBER = re.compile(rb"[0-9.e+-]+:[0-9a-z]{11}:[0-9a-f]{4}")
"""The form of all members that are written."""
TRIM_SECONDS = 0.5
MARGIN_MS = 4_000
"""Updates older than the window and this are removed, as the service does."""


@attrs.frozen
class RawRedis:
    """The result of one run."""

    rate: float
    """Members a second."""
    cpu_us: float
    """User and system time of Redis for each member."""
    busy: float
    """The fraction of a core that Redis used."""
    members: int
    """The number of members at the end."""


def raw_redis(stage: Stage, *, exchanges: int, symbols_count: int, seconds: float, window: float) -> RawRedis:
    """Feed an empty Redis for so long; timestamps are the real time, so that trimming works."""
    stage.fresh()
    return feed(stage.redis, window_keys(exchanges, symbols_count), seconds=seconds, window=window)


def window_keys(exchanges: int, symbols_count: int) -> list[str]:
    """The sorted sets of these exchanges and symbols."""
    return [
        f"prices:exchange{number + 1}:{symbol}"
        for number in range(exchanges)
        for symbol in symbols(symbols_count)
    ]


def feed(server: TcpRedis, keys: list[str], *, seconds: float, window: float) -> RawRedis:
    """Feed an empty Redis."""
    flushes = [_Flush(keys, slot) for slot in range(SLOTS)]
    with socket.create_connection(("127.0.0.1", server.port)) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        reader = _Replies(connection)
        began, cpu = time.monotonic(), cpu_seconds(server.pid)
        trimmed, sent, waiting = began, 0, [0]
        while (now := time.monotonic()) - began < seconds:
            milliseconds = time.time_ns() // 1_000_000
            flush = flushes[milliseconds % 100 // SPREAD]
            connection.sendall(flush.at(milliseconds // 100, sent))
            expected = flush.replies
            if now - trimmed >= TRIM_SECONDS:
                trimmed = now
                connection.sendall(_trim(keys, milliseconds - int(window * 1_000) - MARGIN_MS))
                expected += len(keys)
            waiting.append(expected)
            sent += 1
            if len(waiting) > 2:
                reader.read(waiting.pop(0))
        for expected in waiting:
            reader.read(expected)
        took, used = time.monotonic() - began, cpu_seconds(server.pid) - cpu
    with redis.Redis.from_url(server.url) as client:
        members = sum(int(client.zcard(key)) for key in keys)
    count = sent * FLUSH
    if seconds < window and members != count:
        raise BenchError(f"Redis was sent {count} members and has {members}")
    return RawRedis(count / took, used / count * 1e6, used / took, members)


class _Flush:
    """A flush whose timestamps are in one of the five parts of a tenth of a second."""

    def __init__(self, keys: list[str], slot: int) -> None:
        self.replies = 0
        self._bytes = bytearray()
        self._places: list[tuple[int, int, int, int]] = []
        """For each command: places of the first timestamp and sequence, and members' length and number."""
        rng = random.Random(slot)
        for place, key in enumerate(keys):
            price = STARTS[place % len(STARTS)]
            numbers = range(FLUSH * place // len(keys), FLUSH * (place + 1) // len(keys))
            for first in range(0, len(numbers), COMMAND):
                pairs: list[bytes] = []
                for offset, number in enumerate(numbers[first : first + COMMAND], first):
                    price *= 1 + rng.uniform(-0.01, 0.01)
                    millisecond = slot * SPREAD + offset * SPREAD // len(numbers)
                    member = f"{price:.16f}"[:PRICE_DIGITS] + f":{number:011}:a1b2"
                    pairs.append(_words(f"{millisecond:013}".encode(), member.encode()))
                self._add(_words(b"ZADD", key.encode()), pairs)
            self._bytes += _command(b"EXPIRE", key.encode(), b"65")
            self.replies += 1

    def _add(self, head: bytes, pairs: list[bytes]) -> None:
        self._bytes += b"*%d\r\n%b" % (2 + 2 * len(pairs), head)
        timestamp = len(self._bytes) + pairs[0].index(b"\n") + 1
        sequence = len(self._bytes) + pairs[0].index(b":") + 1
        self._places.append((timestamp, sequence, len(pairs[0]), len(pairs)))
        self._bytes += b"".join(pairs)
        self.replies += 1

    def at(self, tenths: int, number: int) -> bytearray:
        """The flush with this number, at this tenth of a second (Unix)."""
        first, second = str(tenths).zfill(TIME_DIGITS).encode(), str(number).zfill(NUMBER_DIGITS).encode()
        for timestamp, sequence, length, count in self._places:
            for start, digits in ((timestamp, first), (sequence, second)):
                for place, digit in enumerate(digits, start):
                    self._bytes[place : place + length * count : length] = bytes((digit,)) * count
        return self._bytes


def _trim(keys: list[str], before: int) -> bytes:
    return b"".join(_command(b"ZREMRANGEBYSCORE", key.encode(), b"-inf", b"(%d" % before) for key in keys)


def _command(*words: bytes) -> bytes:
    return b"*%d\r\n" % len(words) + _words(*words)


def _words(*words: bytes) -> bytes:
    return b"".join(b"$%d\r\n%b\r\n" % (len(word), word) for word in words)


class _Replies:
    """Reads integer replies, of which only the number matters."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self._ahead = 0

    def read(self, count: int) -> None:
        """Wait for that many more replies."""
        while self._ahead < count:
            data = self._connection.recv(65_536)
            if not data or b"-" in data:
                raise BenchError(f"Redis said {data[:200]!r}")
            self._ahead += data.count(b"\n")
        self._ahead -= count
