"""The simulated exchange's faults, each with its own exchange, all at once against the service."""

from __future__ import annotations

from pathlib import Path

import attrs
import redis
import trio
from rig import BASE, Sent, eventually, rows_are_right, service, settings_for
from trio_util import move_on_when

from marketflow.adapters.exchange.faults import Faults
from marketflow.adapters.exchange.simulator import simulate
from marketflow.config.settings import ExchangeSettings

FAULTS = {
    "none": Faults(),
    "garbage": Faults(garbage=0.3),
    "half-lines": Faults(half_lines=0.5),
    "close-every": Faults(close_every=0.4),
    "silence": Faults(silence=0.7),
    "ahead": Faults(skew=10),
    "behind": Faults(skew=-3),
    "long-gone": Faults(skew=-600),
}
RATE = 40
"""Ticks a second."""
STALE_AFTER = 300
"""In ms."""


def held(url: str, exchange: str) -> list[Sent]:
    """The updates of an exchange in the window."""
    found = []
    with redis.Redis.from_url(url) as client:
        for symbol in BASE:
            for member, score in client.zrange(f"prices:{exchange}:{symbol}", 0, -1, withscores=True):
                price, sequence, _ = member.split(b":")
                found.append(Sent(exchange, symbol, float(price), int(score), int(sequence, 36), 0))
    return found


async def test_faults_cost_what_they_must_and_no_more(
    redis_url: str, postgres_dsn: str, tmp_path: Path
) -> None:
    """Each fault shows only in its exchange's counters and state; all accepted updates are in rows."""
    stop = trio.Event()

    async def run(name: str, task_status: trio.TaskStatus[int]) -> None:
        faults = FAULTS[name]
        async with move_on_when(stop.wait):
            await simulate(
                name=name,
                host="127.0.0.1",
                port=0,
                rate=RATE,
                symbols=tuple(BASE),
                faults=faults,
                task_status=task_status,
            )

    async with trio.open_nursery() as nursery:
        listening = [ExchangeSettings(name, "127.0.0.1", await nursery.start(run, name)) for name in FAULTS]
        settings = settings_for([], redis_url, postgres_dsn, tmp_path, feeds={"stale_after": STALE_AFTER})
        settings = attrs.evolve(settings, exchanges=tuple(listening))
        async with service(settings, [], all_received=False) as it:
            seen: set[tuple[str, str]] = set()
            until, report = trio.current_time() + 3, it.running.report()
            enough = 2 * RATE * len(BASE)
            while trio.current_time() < until or report.exchanges["none"].updates.accepted <= enough:
                report = it.running.report()
                seen |= {(name, exchange.status) for name, exchange in report.exchanges.items()}
                await trio.sleep(0.02)

            reconnects = {name: report.exchanges[name].reconnects for name in FAULTS}
            stop.set()

            def ended() -> bool:
                report = it.running.report()
                gone = all(report.exchanges[name].status == "reconnecting" for name in FAULTS)
                return gone and report.updates.pending == 0

            await eventually(ended)
            exchanges = it.running.report().exchanges
            updates = {name: exchanges[name].updates for name in FAULTS}
            expected = updates["none"].accepted
            assert expected > enough
            for name in ("none", "half-lines", "silence", "behind"):
                # Cancelling them may end a write within a line.
                assert sum(updates[name].rejected.values()) <= 1
            for name in ("half-lines", "behind", "close-every"):
                assert updates[name].accepted > 0.6 * expected, name
            garbage = updates["garbage"]
            assert garbage.accepted > 0.4 * expected
            assert 0.15 < sum(garbage.rejected.values()) / garbage.received < 0.45
            assert garbage.rejected["malformed"] > 0
            # A line that is cut off is one bad line for each connection.
            assert updates["close-every"].rejected.get("malformed", 0) <= reconnects["close-every"]
            for name, reason in (("ahead", "future"), ("long-gone", "late")):
                assert updates[name].accepted == 0
                assert updates[name].rejected[reason] > 0.6 * expected
            assert {("close-every", "reconnecting"), ("silence", "connected"), ("silence", "stale")} <= seen
            assert {("ahead", "stale"), ("long-gone", "stale")} <= seen
            assert 3 <= reconnects.pop("close-every") <= 8
            assert not any(reconnects.values())

            accepted = [each for name in FAULTS for each in held(redis_url, name)]
            assert len(accepted) == it.updates.accepted
            await rows_are_right(postgres_dsn, accepted)
