"""The demo of a cluster: its stores and exchanges in this process, and each node in a process of its own."""

from __future__ import annotations

import json
import math
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import ExitStack, asynccontextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Final

import trio
from trio_util import move_on_when

from marketflow.adapters.exchange.simulator import simulate
from marketflow.config import Settings
from marketflow.embedded import EmbeddedPostgres, EmbeddedRedis
from marketflow.node_process import NodeProcess
from marketflow.service import running, stop_on_signal
from marketflow.writing import Writer, open_writer

EXCHANGES: Final = ("exchange1", "exchange2", "exchange3")
ASKED: Final = "api"
"""The name of the node that has no exchange."""
RESTART_SECONDS: Final = 10.0
"""A node that has ended is started again so many seconds later, so that a takeover can be watched before."""
CALM: Final = "5s"
"""Exchanges are shared evenly again so soon."""
STOP_GRACE: Final = 3.0
"""Seconds beyond `shutdown_timeout` after which a node that does not stop is killed."""

_WORDS: Final[Mapping[str, str]] = {
    "exchange taken": "takes {exchange} (epoch {epoch})",
    "exchange given back": "gives {exchange} back",
    "exchange to be moved": "is to give {exchange} to another node",
    "connected": "is connected to {exchange}",
    "fenced": "was fenced: another node has {exchange}",
}
"""What is shown of the log, beside errors."""


class _Screen:
    """What happens, a line for each."""

    def __init__(self, out: Writer) -> None:
        self._out = out

    def tell(self, node: str, words: str) -> None:
        """Something happens at a node."""
        self._out.write(f"  {datetime.now(UTC).astimezone():%H:%M:%S}  {node:<10}{words}\n")

    def show(self, node: str, event: Mapping[str, Any]) -> None:
        """An event of a node's log, if it is worth it."""
        words = _WORDS.get(event["event"])
        if words is not None and "exchange" in event:
            self.tell(node, words.format_map({"epoch": "?", **event}))
        elif event.get("level") in {"error", "critical"}:
            self.tell(node, f"{event['event']} {event.get('error', '')}".rstrip())


class _Node:
    """A node, started again whenever it has ended by itself."""

    def __init__(self, name: str, port: int, settings: Mapping[str, str], screen: _Screen) -> None:
        self.name = name
        self._port = port
        self._settings = settings
        self._screen = screen

    async def run(
        self, stopping: trio.Event, *, within: float, task_status: trio.TaskStatus[tuple[int, str] | None]
    ) -> None:
        """Run until `stopping` is set and it has ended in order, or was killed after `within` seconds.

        Reports its first process and its address, once it serves; None if the stop comes before.

        Raises:
            OSError: it has ended before it served for the first time.
        """
        serves = False
        while not stopping.is_set():
            role = "api" if self.name == ASKED else "ingest"
            process = NodeProcess(self.name, role, self._port, self._settings)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_stop, process, stopping, within)
                async for event in process.events():
                    self._screen.show(self.name, event)
                    if event["event"] == "serving" and not serves:
                        serves = True
                        task_status.started((process.pid, event["url"]))
                    elif event["event"] == "serving":
                        self._screen.tell(self.name, f"serves again, process {process.pid}")
                code = await process.ended()
                nursery.cancel_scope.cancel()
            if stopping.is_set():
                self._screen.tell(self.name, "has stopped" if code == 0 else _end_of(code))
                break
            if not serves:
                raise OSError(f"{self.name} {_end_of(code)} before it served")
            self._screen.tell(self.name, f"{_end_of(code)}; it is started again in {RESTART_SECONDS:g} s")
            async with move_on_when(stopping.wait):
                await trio.sleep(RESTART_SECONDS)
        if not serves:
            task_status.started(None)


async def _stop(process: NodeProcess, stopping: trio.Event, within: float) -> None:
    try:
        await stopping.wait()
        process.stop()
        await trio.sleep(within)
    finally:
        process.kill()  # no-op in order


def _end_of(code: int) -> str:
    return f"has ended by {signal.Signals(-code).name}" if code < 0 else f"has ended with exit code {code}"


async def run_cluster_demo(settings: Settings, count: int, *, duration: float | None) -> None:
    """Run `count` nodes until SIGINT, SIGTERM or SIGHUP, or for `duration` seconds.

    Raises:
        EmbeddedError, OSError: a store or an exchange could not be started.
    """
    stopping = trio.Event()
    out = open_writer(sys.stdout)
    out.write("marketflow demo: starting Redis, and PostgreSQL with a new database; this takes seconds ...\n")
    async with trio.open_nursery() as nursery:
        await nursery.start(stop_on_signal, stopping)
        async with _surroundings() as (directory, given):
            within = settings.shutdown_timeout / 1_000 + STOP_GRACE
            names = [*(f"ingest-{number}" for number in range(1, count)), ASKED]
            ports = [settings.http.port and settings.http.port + number for number in (*range(1, count), 0)]
            async with trio.open_nursery() as nodes:
                screen = _Screen(out)
                made = [
                    _Node(name, port, {**given, "STATE_DIR": str(directory / name)}, screen)
                    for name, port in zip(names, ports, strict=True)
                ]
                started: dict[str, tuple[int, str]] = {}
                async with trio.open_nursery() as starting:
                    for node in made:
                        starting.start_soon(_start, nodes, node, stopping, within, started)
                if len(started) == len(names):
                    out.write(_where_to_look(names, started, duration) + "\n")
                async with move_on_when(stopping.wait):
                    await trio.sleep(math.inf if duration is None else duration)
                stopping.set()
        nursery.cancel_scope.cancel()
    out.write("marketflow demo: stopped\n")
    out.flush()


async def _start(
    nodes: trio.Nursery,
    node: _Node,
    stopping: trio.Event,
    within: float,
    started: dict[str, tuple[int, str]],
) -> None:
    """Start a node, and note its process and its address, unless the stop comes before."""
    found = await nodes.start(partial(node.run, stopping, within=within))
    if found is not None:
        started[node.name] = found


@asynccontextmanager
async def _surroundings() -> AsyncIterator[tuple[Path, dict[str, str]]]:
    """Stores and exchanges: a directory, and the settings of all nodes as variables."""
    with (
        tempfile.TemporaryDirectory(prefix="marketflow-demo-", ignore_cleanup_errors=True) as name,
        ExitStack() as leaving,
    ):
        directory = Path(name)
        directory.chmod(0o711)  # noqa: ASYNC240 - at once; the stores run as another user when we are root
        redis, postgres = EmbeddedRedis(directory / "redis"), EmbeddedPostgres(directory / "postgres")
        for server in (redis, postgres):
            leaving.callback(server.remove)
        async with running(redis), running(postgres), trio.open_nursery() as exchanges:
            addresses = []
            for exchange in EXCHANGES:
                market = partial(simulate, name=exchange, host="127.0.0.1", port=0, walk="fair", volumes=True)
                port = await exchanges.start(market)
                addresses.append({"name": exchange, "host": "127.0.0.1", "port": port, "shared": True})
            yield (
                directory,
                {
                    "REDIS__URL": redis.url,
                    "REDIS__NODES": "[]",
                    "POSTGRES__DSN": postgres.dsn,
                    "EXCHANGES": json.dumps(addresses),
                    "MODE": "live",
                    "CLUSTER__SETTLE": CALM,
                },
            )
            exchanges.cancel_scope.cancel()


def _where_to_look(
    names: Sequence[str], started: Mapping[str, tuple[int, str]], duration: float | None
) -> str:
    rows = [(name, *started[name]) for name in names]
    table = "\n".join(f"  {name:<10}{pid:>9}  {url}" for name, pid, url in rows)
    (first, _), (_, url) = started[names[0]], started[ASKED]
    end = "" if duration is None else f" By itself it stops after {duration:g} s."
    return f"""
marketflow demo: {len(EXCHANGES)} simulated exchanges, shared by {len(names) - 1} nodes.

  {"node":<10}{"process":>9}  address
{table}

  dashboard       {url}/
  in the terminal marketflow watch --url {url}
  who has what    curl {url}/health
  kill a node     kill -9 {first}      (it is started again after {RESTART_SECONDS:g} s)

Ctrl-C stops it.{end} What happens, as it happens:
"""
