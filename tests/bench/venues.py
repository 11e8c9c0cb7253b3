"""The cost of a trade of a venue: frame, decoding, and all of the service, beside lines over TCP."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial

import attrs
import trio

from marketflow.adapters.exchange import lines
from marketflow.adapters.exchange.checks import Checks
from marketflow.adapters.exchange.fake_venues.frames import text_frame
from marketflow.adapters.exchange.fake_venues.kinds import KINDS
from marketflow.adapters.exchange.venues.registry import VENUES
from marketflow.adapters.exchange.venues.venue import Trades
from marketflow.adapters.exchange.websocket.codec import VenueDecoder
from marketflow.adapters.exchange.websocket.connection import Connection
from marketflow.adapters.exchange.websocket.frames import Frames
from marketflow.adapters.exchange.wire import Decoder
from marketflow.domain.periods import MINUTE
from marketflow.domain.prices import SYMBOLS
from tests.bench.bench import Bench
from tests.bench.decoding import cost
from tests.bench.exchanges import Sent
from tests.bench.messages import opened, trades_of
from tests.bench.players import Players, playing
from tests.bench.processes import exact_cpu_seconds
from tests.bench.rows import Row
from tests.bench.sender import Lines
from tests.bench.stage import BenchError, Service, lost_of, wait_until

RATES = (2_000.0, 20_000.0)
"""Trades a second."""
TOGETHER = 300
"""Messages that are received or decoded together: about 64 KiB."""
RECEIVES = 20
"""In one run of Trio, whose start takes as long as some of them."""
DECODING_GOAL = 1.5
"""Microseconds a trade, beyond the frame."""
LINES = "lines"
"""What is measured beside the venues."""
QUICK = ("binance", "kraken")
COMPARED = [kind for kind in KINDS if kind != "bitfinex"]
"""Bitfinex sends each trade twice, so its costs do not compare."""


def venues(bench: Bench) -> list[Row]:
    """Rows for the frames, for each venue's decoding, and for each venue and rate."""
    kinds = [kind for kind in VENUES if kind in COMPARED and (kind in QUICK or not bench.quick)]
    return [*_of_processor(bench, kinds), *_of_service(bench, kinds)]


# ---- parts, by processor time alone ----


def _of_processor(bench: Bench, kinds: Sequence[str]) -> list[Row]:
    blocks = 5 if bench.quick else 200
    decodes = {kind: _decoding(kind) for kind in kinds}
    of_line = _decoding_lines()
    of_frame = _receiving(trades_of(kinds[0], TOGETHER)[0])
    line: list[float] = []
    frame: list[float] = []
    trade: dict[str, list[float]] = {kind: [] for kind in kinds}
    for _ in range(bench.rounds):
        line.append(cost(of_line, blocks, TOGETHER))
        frame.append(cost(of_frame, blocks // 5, TOGETHER * RECEIVES))
        for kind, decode in decodes.items():
            trade[kind].append(cost(decode, blocks, TOGETHER))
    bench.say(f"us: a line {min(line):.2f}, a frame {min(frame):.2f}")
    row = partial(Row, unit="us", limit=min(line), limit_is="decode a line with volume and side, best")
    return [
        row(name="venues.frame", what="receive a message of a WebSocket: frame loop alone", rounds=frame),
        *(
            row(
                name=f"venues.{kind}.decode",
                what=f"decode a trade of {kind}, beyond the frame",
                goal=f"<= {DECODING_GOAL} us",
                at_most=DECODING_GOAL,
                rounds=rounds,
            )
            for kind, rounds in trade.items()
        ),
    ]


def _checks() -> Checks:
    return Checks(frozenset(SYMBOLS), MINUTE, 2 * MINUTE)


def _decoding_lines() -> Callable[[], object]:
    now = time.time_ns() // 1_000_000
    block, count = Lines(SYMBOLS, "always").block(0, TOGETHER, now)
    payload = lines.Lines(block, oversized=0, received_at=now, received_monotonic=0.0)
    decoder = Decoder(_checks())
    assert decoder(payload).accepted == count == TOGETHER
    return lambda: decoder(payload)


def _decoding(kind: str) -> Callable[[], object]:
    """What is done with the messages of a receive, from `read` to updates."""
    messages, names = trades_of(kind, TOGETHER)
    now = time.time_ns() // 1_000_000
    venue = VENUES[kind].for_connection()
    decoder = VenueDecoder(VENUES[kind], names, _checks())

    def bodies() -> tuple[bytes, ...]:
        if venue.only_trades(messages):
            return tuple(messages)
        meanings = [venue.read(message) for message in messages]
        return tuple([meaning.body for meaning in meanings if isinstance(meaning, Trades)])

    assert decoder(Frames(bodies(), now, now, 0.0)).accepted == TOGETHER
    return lambda: decoder(Frames(bodies(), now, now, 0.0))


class _Stream(trio.abc.Stream):
    """Always has the same bytes."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    async def receive_some(self, max_bytes: int | None = None) -> bytes:  # noqa: ARG002 - they are few
        await trio.lowlevel.checkpoint()
        return self._data

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        raise NotImplementedError

    async def wait_send_all_might_not_block(self) -> None:
        raise NotImplementedError

    async def aclose(self) -> None:
        raise NotImplementedError


def _receiving(messages: Sequence[bytes]) -> Callable[[], object]:
    """A receive of all these messages, without their decoding."""
    connection = Connection(_Stream(b"".join(map(text_frame, messages))), opened())

    async def receive() -> None:
        for _ in range(RECEIVES):
            assert len(await connection.receive()) == len(messages)

    return lambda: trio.run(receive)


# ---- the whole service ----


@attrs.frozen
class _Load:
    """Who sends, and how many updates a second."""

    sender: str
    """The kind of a venue, or `LINES`."""
    rate: float


@attrs.frozen
class _Cost:
    """What was measured of a load."""

    each: float
    """Microseconds of the service's processor time for each trade."""
    rate: float
    """Trades a second that came."""


def _of_service(bench: Bench, kinds: Sequence[str]) -> list[Row]:
    loads = [_Load(sender, rate) for rate in RATES for sender in (LINES, *kinds)]
    costs: dict[_Load, list[_Cost]] = {load: [] for load in loads}
    for number in range(bench.rounds):
        with (
            playing(kinds) as players,
            bench.stage.service(exchanges=1, telling="always", venues=players.settings) as service,
        ):
            _wait_until_live(service, kinds)
            # Asked for trades, a venue may send its last ones, and those again.
            earlier = service.ledger()
            for load in loads:
                costs[load].append(_measured(bench, service, players, load))
                bench.say(
                    f"round {number + 1} of {bench.rounds}, {load.sender}, {load.rate:,.0f}/s: "
                    f"{costs[load][-1].each:.1f} us a trade, {costs[load][-1].rate:,.0f}/s came"
                )
            made, sent = players.rest(), service.exchanges.finish()
            ledger = service.drained(Sent([*sent.lines, made, earlier["received"]], sent.seconds))
            if lost_of(ledger) != lost_of(earlier):
                raise BenchError(f"updates were lost: {ledger}")
    return [
        Row(
            name=f"venues.{load.sender}.{load.rate:.0f}",
            what=f"CPU for each trade: {load.sender}, {load.rate:,.0f} trades/s",
            unit="us",
            rounds=[cost.each for cost in costs[load]],
            limit=min(cost.each for cost in costs[_Load(LINES, load.rate)]),
            limit_is="lines with volumes, best",
            raw={"rates": [cost.rate for cost in costs[load]]},
        )
        for load in loads
        if load.sender != LINES
    ]


def _wait_until_live(service: Service, kinds: Sequence[str]) -> None:
    def all_live() -> bool:
        exchanges = service.get("/health")[1]["exchanges"]
        return all(exchanges[kind]["activity"] == "live" for kind in kinds)

    wait_until(all_live, "every venue has accepted all symbols")


def _measured(bench: Bench, service: Service, players: Players, load: _Load) -> _Cost:
    def send(rate: float) -> None:
        if load.sender == LINES:
            service.exchanges.send(rate)
        else:
            players.play(load.sender, rate)

    send(load.rate)
    bench.wait(bench.warm_up)
    before, cpu, began = service.ledger(), exact_cpu_seconds(service.pid), time.monotonic()
    bench.wait(0.5 if bench.quick else 5.0)
    used, after = exact_cpu_seconds(service.pid) - cpu, service.ledger()
    took = time.monotonic() - began
    send(0.0)
    trades: int = after["cached"] - before["cached"]
    if not trades:
        raise BenchError(f"nothing came from {load.sender}")
    return _Cost(used / trades * 1e6, trades / took)
