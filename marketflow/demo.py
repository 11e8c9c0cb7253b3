"""Three simulated exchanges and the service with its own stores, in one process tree."""

from __future__ import annotations

import shlex
import sys
import tempfile
from contextlib import ExitStack
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from urllib.parse import unquote, urlsplit

import attrs
import trio
from trio_util import move_on_when

from marketflow.adapters.exchange.simulator import simulate
from marketflow.app.interface import HealthReport
from marketflow.app.ports import Aggregate
from marketflow.config import Settings
from marketflow.config.settings import ExchangeSettings
from marketflow.domain.periods import Span
from marketflow.embedded import EmbeddedPostgres, EmbeddedRedis
from marketflow.service import Running, at_stores, running, serve, stop_on_signal
from marketflow.writing import Writer, open_writer

EXCHANGES = ("exchange1", "exchange2", "exchange3")


async def run_demo(settings: Settings, *, duration: float | None) -> None:
    """Run until SIGINT, SIGTERM or SIGHUP, or for `duration` seconds, and print a summary.

    Raises:
        As `serve`, and EmbeddedError.
    """
    stopping = trio.Event()
    out = open_writer(sys.stdout)
    out.write("marketflow demo: starting Redis, and PostgreSQL with a new database; this takes seconds ...\n")
    with (
        tempfile.TemporaryDirectory(prefix="marketflow-demo-", ignore_cleanup_errors=True) as name,
        ExitStack() as leaving,
    ):
        directory = Path(name)
        directory.chmod(0o711)  # noqa: ASYNC240 - at once; the stores run as another user when we are root
        redis, postgres = EmbeddedRedis(directory / "redis"), EmbeddedPostgres(directory / "postgres")
        for server in (redis, postgres):
            # The data is outside of this directory if TMPDIR is in root's home.
            leaving.callback(server.remove)
        async with trio.open_nursery() as nursery:
            await nursery.start(stop_on_signal, stopping)
            async with (
                running(redis),
                running(postgres),
                trio.open_nursery() as exchanges,
            ):
                settings = attrs.evolve(
                    at_stores(settings, redis.url, postgres.dsn),
                    state_dir=directory,
                    exchanges=tuple(
                        [
                            ExchangeSettings(
                                exchange,
                                "127.0.0.1",
                                await exchanges.start(
                                    partial(
                                        simulate,
                                        name=exchange,
                                        host="127.0.0.1",
                                        port=0,
                                        walk="fair",
                                        volumes=True,
                                    )
                                ),
                            )
                            for exchange in EXCHANGES
                        ]
                    ),
                )
                await _run(settings, stopping, duration, out)
                exchanges.cancel_scope.cancel()
            nursery.cancel_scope.cancel()
    out.flush()


async def _run(settings: Settings, stopping: trio.Event, duration: float | None, out: Writer) -> None:
    rows: list[Aggregate] = []
    async with trio.open_nursery() as nursery:
        service: Running = await nursery.start(partial(serve, settings, stopping, stores="demo"))
        out.write(_where_to_look(settings, service, duration) + "\n")
        if duration is not None:
            async with move_on_when(stopping.wait):
                await _pass(duration, service)
            rows = await _first_rows(settings, service)
            stopping.set()
    report = service.report()
    out.write(_what_came_of_it(report, rows if duration is not None else None) + "\n")


async def _pass(duration: float, service: Running) -> None:
    """Wait; show the progress if stderr is a terminal."""
    end = trio.current_time() + duration
    if sys.stderr is not None and sys.stderr.isatty():
        err = open_writer(sys.stderr)
        while (left := end - trio.current_time()) > 1:
            words = f"  {left:.0f} s left, {service.report().updates.received} updates so far "
            err.write(f"\r{words}")
            await trio.sleep(1)
        err.write("\r" + " " * 79 + "\r")
    await trio.sleep_until(end)


async def _first_rows(settings: Settings, running: Running) -> list[Aggregate]:
    """The rows of the first interval that has any."""
    interval = settings.aggregation.interval
    now = int(datetime.now(UTC).timestamp() * 1_000)
    pairs = [(each.name, symbol) for each in settings.exchanges for symbol in settings.symbols]
    found = await running.store.bars(pairs, Span(0, now), interval)
    starts = [start for bars in found.values() for start in bars]
    return [
        Aggregate(pair[0], pair[1], min(starts) + interval, found[pair][min(starts)])
        for pair in pairs
        if starts and min(starts) in found.get(pair, {})
    ]


def _where_to_look(settings: Settings, running: Running, duration: float | None) -> str:
    redis = unquote(urlsplit(settings.redis.effective_url).path)
    end = "" if duration is None else f" By itself it stops after {duration:g} s."
    return f"""
marketflow demo: three simulated exchanges, live.

  dashboard        {running.url}/
  in the terminal  marketflow watch --url {running.url}
  latest price     curl {running.url}/prices/latest/BTCUSDT
  highest, 5 s     curl '{running.url}/prices/highest/BTCUSDT?period=5s'
  all of a minute  curl '{running.url}/prices/aggregate/ETHUSDT?period=1m'
  health           curl {running.url}/health
  test mode        curl -X POST {running.url}/mode/test

  Redis            {settings.redis.effective_url}
  PostgreSQL       {settings.postgres.effective_dsn}
  look into them   redis-cli -s {shlex.quote(redis)}
                   psql {shlex.quote(settings.postgres.effective_dsn)}

Ctrl-C stops it.{end}
"""


def _what_came_of_it(report: HealthReport, rows: list[Aggregate] | None) -> str:
    lines = [f"marketflow demo: stopped after {report.uptime:.0f} s", ""]
    head = f"  {'exchange':<12}{'received':>10}{'accepted':>10}{'rejected':>10}{'cached':>10}"
    lines.append(f"{head}{'expired':>9}{'dropped':>9}{'pending':>9}")
    counted = {name: health.updates for name, health in report.exchanges.items()} | {"all": report.updates}
    for name, updates in counted.items():
        if updates.received:
            rejected, dropped = sum(updates.rejected.values()), sum(updates.dropped.values())
            lines.append(
                f"  {name:<12}{updates.received:>10}{updates.accepted:>10}{rejected:>10}{updates.cached:>10}"
                f"{updates.expired:>9}{dropped:>9}{updates.pending:>9}"
            )
    whole = report.updates
    gone = whole.cached + whole.expired + sum(whole.dropped.values()) + whole.pending
    adds_up = whole.received == whole.accepted + sum(whole.rejected.values()) and whole.accepted == gone
    lines += ["", f"  the ledger {'adds up' if adds_up else 'DOES NOT ADD UP'}"]
    if rows is None:
        return "\n".join(lines)
    if not rows:
        return "\n".join([*lines, "", "  no minute has closed yet: its rows are written 2 s after its end"])
    end = datetime.fromtimestamp(rows[0].end / 1_000, UTC)
    lines += ["", f"  aggregates of the minute up to {end:%Y-%m-%d %H:%M:%S} UTC, in PostgreSQL", ""]
    lines.append(f"  {'exchange':<12}{'pair':<10}{'average':>16}{'min':>16}{'max':>16}{'updates':>9}")
    for row in rows:
        bar = row.bar
        prices = f"{bar.average:>16.6f}{bar.min:>16.10g}{bar.max:>16.10g}"
        lines.append(f"  {row.exchange:<12}{row.symbol:<10}{prices}{bar.count:>9}")
    return "\n".join(lines)
