"""Measures a start with an hour of bars that an earlier boot has left in Redis, of many pairs.

The rows of its whole minutes are in PostgreSQL, and the exchange sends an update of each pair a second. From
the start of the process on, questions are asked one after another until they are answered:

- /health/ready;
- the candle of the open minute, which must have all updates of the earlier boot;
- candles of seconds from the beginning of the hour, which only bars can answer: so these are known.

An answer with fewer updates than there are would be wrong, and ends the measurement.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from http import HTTPStatus
from typing import Any

import attrs

from marketflow.domain.periods import HOUR, MINUTE, SECOND, floor_to
from tests.bench.bench import Bench
from tests.bench.exchanges import Exchanges
from tests.bench.holdups import asking, longest
from tests.bench.hours import Hour
from tests.bench.memory import MB
from tests.bench.processes import exact_cpu_seconds, peak_rss
from tests.bench.rows import Row
from tests.bench.stage import BenchError, Service, symbols, wait_until
from tests.bench.trades import UPDATES
from tests.servers import free_port

PAIRS, QUICK_PAIRS = 500, 20
LENGTH, QUICK_LENGTH = HOUR, 5 * MINUTE
"""Of the history, in ms."""
FILLING, QUICK_FILLING = 20 * SECOND, 2 * SECOND
"""How long (ms) before the start the stores are filled. The bars of the time until then are made ahead."""
INTO_MINUTE = 15 * SECOND
"""When in a minute (ms) the service starts: the earlier boot has bars of it, and it does not end soon."""
OLD = 2 * MINUTE
"""How far from the beginning of the hour (ms) the old candles are: the first minutes may be forgotten."""
CANDLES = 100
"""Old candles that are asked for."""
ASKED = 20
"""Pairs that are asked for their old candles."""
EVERY = 0.005
"""Seconds between two questions."""
READING_LIMIT = 300.0
"""Seconds until a question must be answered."""
READY_GOAL, OPEN_GOAL, READING_GOAL, CPU_GOAL = 1, 2, 3, 4
"""In seconds."""
HOLD_UP_GOAL = 100
"""In ms."""
BYTES_GOAL = 150
"""For each bar, beside `BASE_GOAL`."""
BASE_GOAL = 200
"""In MB: the goal for a service without history."""


@attrs.frozen
class Start:
    """The result of one round, in seconds from the start of the process."""

    ready: float
    open: float
    """When the open minute was answered."""
    known: float
    """When the old candles were answered, of all pairs that are asked for."""
    whole: float
    """When the log said so."""
    hold_up: float
    """The longest time (ms) of an answer from /health/live between `ready` and `known`."""
    peak_rss: float
    """In MB."""
    cpu: float
    """Processor time (seconds) of the service until `known`."""

    @property
    def reading(self) -> float:
        """Seconds until the hour was known, without those that every start takes."""
        return self.known - self.ready


def history(bench: Bench) -> list[Row]:
    """The rows of a start with an hour of many pairs."""
    pairs = QUICK_PAIRS if bench.quick else PAIRS
    starts: list[Start] = []
    bars = 0
    for number in range(bench.rounds):
        start, bars = _started(bench, pairs)
        starts.append(start)
        bench.say(
            f"round {number + 1} of {bench.rounds}, {bars:,} bars: ready after {start.ready:.2f} s, open "
            f"minute {start.open:.2f}, history known {start.known:.2f}, window whole {start.whole:.2f} s, "
            f"CPU {start.cpu:.2f} s, longest hold-up {start.hold_up:.0f} ms, RSS at most "
            f"{start.peak_rss:.0f} MB"
        )
    what = f"start with {bars:,} bars of {pairs} pairs in Redis"
    most = BASE_GOAL + BYTES_GOAL * bars / MB
    values: tuple[tuple[str, str, str, float, Callable[[Start], float]], ...] = (
        ("ready", f"{what}: ready", "s", READY_GOAL, lambda start: start.ready),
        ("open", "the same: the open minute is answered", "s", OPEN_GOAL, lambda start: start.open),
        ("reading", "from ready until all bars are known", "s", READING_GOAL, lambda start: start.reading),
        ("cpu", "processor time of the service until then", "s", CPU_GOAL, lambda start: start.cpu),
        ("hold_up", "longest answer of `/health/live` meanwhile", "ms", HOLD_UP_GOAL, _hold_up),
        ("rss", "RSS of the service, at most", "MB", round(most), lambda start: start.peak_rss),
    )
    return [
        Row(
            name=f"history.{name}",
            what=text,
            goal=f"<= {goal:g} {unit}",
            unit=unit,
            rounds=[value(start) for start in starts],
            at_most=goal,
            raw={"rounds": [attrs.asdict(start) for start in starts], "bars": bars},
        )
        for name, text, unit, goal, value in values
    ]


def _hold_up(start: Start) -> float:
    return start.hold_up


def _started(bench: Bench, pairs: int) -> tuple[Start, int]:
    """One start, and the number of bars."""
    at = _moment(bench)
    hour = Hour.until(at, symbols=symbols(pairs), length=QUICK_LENGTH if bench.quick else LENGTH)

    def fill(exchanges: Exchanges) -> None:
        hour.store_bars(bench.stage.redis)
        hour.store_rows(bench.stage.dsn)
        exchanges.send(pairs)
        bench.say(f"{hour.fields:,} bars stored")
        time.sleep(max(0.0, at / SECOND - time.time()))

    settings = {"HTTP__PORT": free_port()}
    with bench.stage.launched(exchanges=1, symbols_count=pairs, settings=settings, before=fill) as service:
        service.port = settings["HTTP__PORT"]
        return _measured(service, hour), hour.fields


def _moment(bench: Bench) -> int:
    """When to start (Unix ms)."""
    now = time.time_ns() // 1_000_000
    if bench.quick:
        return now + QUICK_FILLING
    earliest = now + FILLING
    start = floor_to(earliest, MINUTE) + INTO_MINUTE
    return start if start >= earliest else start + MINUTE


def _measured(service: Service, hour: Hour) -> Start:
    def reached(condition: Callable[[], Any], what: str) -> float:
        try:
            wait_until(condition, what, seconds=READING_LIMIT, every=EVERY)
        except BenchError as error:
            raise BenchError(f"{error}; its log warns of {_warnings(service)}") from None
        return time.monotonic() - service.launched_at

    ready = reached(lambda: _answer(service, "/health/ready"), "the service is ready")
    with asking(service.port) as samples:
        opened = reached(lambda: _open_minute(service, hour), "the open minute is answered")
        for pair in hour.pairs[:: -(len(hour.pairs) // ASKED)]:
            known = reached(partial(_old_candles, service, hour, pair[1]), "old candles")
        cpu = exact_cpu_seconds(service.pid)
        whole = reached(lambda: service.logged("window whole"), "the window is whole")
    hold_up = longest(samples, service.launched_at + ready, service.launched_at + known)
    return Start(ready, opened, known, whole, hold_up, peak_rss(service.pid) / MB, cpu)


def _warnings(service: Service) -> list[str]:
    """What its log warns of: a start that cannot read all of Redis in time begins its reading again."""
    return [
        f"{each['event']}: {each.get('error')}" for each in service.events() if each["level"] == "warning"
    ]


def _answer(service: Service, path: str) -> Any:
    """The answer; None while the service does not listen or cannot answer."""
    with suppress(ConnectionError):
        status, answer = service.get(path)
        if status == HTTPStatus.OK:
            return answer
        if status != HTTPStatus.SERVICE_UNAVAILABLE:
            raise BenchError(f"{path} was answered by {status}: {answer}")
    return None


def _open_minute(service: Service, hour: Hour) -> bool:
    """Whether the candle of the open minute is answered."""
    exchange, symbol = hour.pairs[-1]
    start = floor_to(time.time_ns() // 1_000_000, MINUTE)
    answer = _answer(service, f"/candles/{exchange}/{symbol}?interval=1m&start={start}&limit=1")
    if answer is None:
        return False
    updates: int = sum(candle["updates"] for candle in answer["candles"])
    if updates < hour.updates_from(start):
        raise BenchError(f"{hour.updates_from(start)} updates of the open minute, but answered {answer}")
    return updates > 0


def _old_candles(service: Service, hour: Hour, symbol: str) -> bool:
    """Whether seconds from the beginning of the hour are answered."""
    start = hour.first + OLD
    end = start + CANDLES * SECOND
    path = f"/candles/{hour.pairs[0][0]}/{symbol}?interval=1s&start={start}&end={end}&limit={CANDLES}"
    answer = _answer(service, path)
    if answer is None:
        return False
    if [candle["updates"] for candle in answer["candles"]] != [UPDATES] * CANDLES:
        raise BenchError(
            f"there are {CANDLES} candles of {UPDATES} updates, but {path} was answered {answer}"
        )
    return True
