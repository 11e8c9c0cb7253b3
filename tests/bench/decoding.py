"""The cost of decoding: msgspec alone, and all the work of a worker for a chunk."""

from __future__ import annotations

import time
from collections.abc import Callable

import msgspec

from marketflow.adapters.exchange import lines
from marketflow.adapters.exchange.checks import Checks
from marketflow.adapters.exchange.wire import Decoder
from marketflow.domain.periods import MINUTE
from marketflow.domain.prices import SYMBOLS
from tests.bench.bench import Bench
from tests.bench.rows import Row
from tests.bench.sender import BLOCK, Lines, Telling


class _Line(msgspec.Struct, gc=False):
    symbol: str
    price: float
    timestamp: int


class _TellingLine(_Line, gc=False):
    volume: float
    side: str


def decoding(bench: Bench) -> list[Row]:
    """The rows for decoding: processor time on one core."""
    return [
        _row(bench, "decoding", "decode, check, group and summarise a line", "nothing", _Line),
        _row(
            bench, "decoding with volumes", "the same for a line with volume and side", "always", _TellingLine
        ),
    ]


def _row(bench: Bench, name: str, what: str, telling: Telling, kind: type[_Line]) -> Row:
    now = time.time_ns() // 1_000_000
    block, count = Lines(SYMBOLS, telling).block(0, BLOCK, now)
    payload = lines.Lines(block, oversized=0, received_at=now, received_monotonic=0.0)
    decoder = Decoder(Checks(frozenset(SYMBOLS), MINUTE, 2 * MINUTE))
    bare = msgspec.json.Decoder(kind)
    assert decoder(payload).accepted == len(bare.decode_lines(block)) == count
    blocks = 50 if bench.quick else 1_000
    limits: list[float] = []
    ours: list[float] = []
    for _ in range(bench.rounds):
        limits.append(cost(lambda: bare.decode_lines(block), blocks, count))
        ours.append(cost(lambda: decoder(payload), blocks, count))
    bench.say(f"us a line ({name}): msgspec {min(limits):.2f}, a worker {min(ours):.2f}")
    return Row(
        name=name,
        what=what,
        unit="us",
        rounds=ours,
        limit=min(limits),
        limit_is="msgspec alone, best",
        raw={"msgspec": limits},
    )


def cost(decode: Callable[[], object], blocks: int, lines: int) -> float:
    """Microseconds of processor time for each line of some blocks that have so many."""
    began = time.process_time()
    for _ in range(blocks):
        decode()
    return (time.process_time() - began) / blocks / lines * 1e6
