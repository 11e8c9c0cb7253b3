"""Measures the memory of the service at a high rate, and the time of a start."""

from __future__ import annotations

import contextlib
import json
import socket
import time
import urllib.error
import urllib.request

from tests.bench.bench import Bench
from tests.bench.processes import peak_rss, rss
from tests.bench.rows import Row
from tests.bench.stage import BenchError, lost_of, wait_until

MB = 1_000_000
RATE = 100_000.0
"""Updates a second."""
START_RATE = 1_000.0


def memory(bench: Bench) -> list[Row]:
    """The row for memory, after the time of a sustained measurement."""
    ours: list[float] = []
    peaks: list[float] = []
    for number in range(bench.rounds):
        bench.say(f"round {number + 1} of {bench.rounds}, {bench.duration:g} s at {RATE:,.0f}/s")
        with bench.stage.service() as service:
            service.exchanges.send(RATE)
            bench.wait(bench.duration)
            ours.append(rss(service.pid) / MB)
            peaks.append(peak_rss(service.pid) / MB)
            ledger = service.drained(service.exchanges.finish())
            if lost_of(ledger):
                raise BenchError(f"updates were lost: {ledger}")
        bench.say(f"RSS {ours[-1]:.0f} MB, at most {peaks[-1]:.0f}")
    return [
        Row(
            name="memory",
            what=f"RSS after {bench.duration:g} s at {RATE:,.0f} updates/s",
            goal="<= 200 MB",
            unit="MB",
            rounds=ours,
            at_most=200,
            raw={"peak_rss": peaks},
        )
    ]


def start(bench: Bench) -> list[Row]:
    """The row for the start: from starting the process to the first price in an answer."""
    ours: list[float] = []
    for number in range(bench.rounds):
        ours.append(_started(bench))
        bench.say(f"round {number + 1} of {bench.rounds}: {ours[-1]:.2f} s")
    return [
        Row(
            name="start",
            what="start to first update served, exchanges and stores running",
            goal="<= 1 s",
            unit="s",
            rounds=ours,
            at_most=1,
        )
    ]


def _started(bench: Bench) -> float:
    port = _free_port()
    with bench.stage.launched(
        settings={"HTTP__PORT": port}, before=lambda exchanges: exchanges.send(START_RATE)
    ) as service:
        wait_until(lambda: _price(port), "a price is answered", every=0.005)
        return time.monotonic() - service.launched_at


def _price(port: int) -> float | None:
    """The price in its answer, if there is one."""
    with contextlib.suppress(OSError, urllib.error.HTTPError):
        url = f"http://127.0.0.1:{port}/prices/latest/BTCUSDT"
        with urllib.request.urlopen(url, timeout=5) as answer:
            return float(json.load(answer)["price"])
    return None


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
