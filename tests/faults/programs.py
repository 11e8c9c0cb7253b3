"""`marketflow serve` in its own process, for tests that kill or stop it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import attrs
import trio
from rig import Exchange

INTERVAL = 2_000
"""The aggregation interval in ms."""


@attrs.frozen
class Program:
    """A process that was started by `program`."""

    process: trio.Process
    log: Path

    def said(self) -> list[dict[str, object]]:
        """Its log."""
        return [json.loads(line) for line in self.log.read_text().splitlines() if line.startswith("{")]

    def stop(self) -> None:
        """Freeze it until `go_on`."""
        self.process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        """Continue after `stop`."""
        self.process.send_signal(signal.SIGCONT)

    def url(self) -> str | None:
        """Wait for its log to name its address; returns it."""
        return next((str(line["url"]) for line in self.said() if line["event"] == "serving"), None)


@asynccontextmanager
async def program(
    players: Sequence[Exchange],
    redis_url: str,
    dsn: str,
    directory: Path,
    name: str,
    changes: Mapping[str, str] | None = None,
) -> AsyncIterator[Program]:
    """Start it; when the block ends it is killed if it still runs.

    Args:
        players: the exchanges that it reads.
        redis_url: its Redis.
        dsn: its PostgreSQL.
        directory: for its state and its log.
        name: the name of its log.
        changes: further variables, without `MARKETFLOW_`.
    """
    environment = os.environ | {
        "MARKETFLOW_SYMBOLS": '["BTCUSDT", "DOGEUSDT"]',
        "MARKETFLOW_EXCHANGES": json.dumps(
            [{"name": each.name, "host": "127.0.0.1", "port": each.port} for each in players]
        ),
        "MARKETFLOW_HTTP__PORT": "0",
        "MARKETFLOW_REDIS__URL": redis_url,
        "MARKETFLOW_POSTGRES__DSN": dsn,
        "MARKETFLOW_AGGREGATION__INTERVAL": f"{INTERVAL // 1_000}",
        "MARKETFLOW_AGGREGATION__GRACE": "200ms",
        "MARKETFLOW_FEEDS__BACKOFF_MIN": "20ms",
        "MARKETFLOW_FEEDS__BACKOFF_MAX": "50ms",
        "MARKETFLOW_STATE_DIR": str(directory / "state"),
        **{f"MARKETFLOW_{key}": value for key, value in (changes or {}).items()},
    }
    log = directory / f"{name}.log"
    command = [sys.executable, "-m", "marketflow", "serve", "--log-format", "json"]
    with log.open("wb") as stderr:
        process = await trio.lowlevel.open_process(
            command, env=environment, cwd=directory, stdin=subprocess.DEVNULL, stdout=stderr, stderr=stderr
        )
    try:
        yield Program(process, log)
    finally:
        if process.poll() is None:
            process.kill()  # SIGKILL also ends a frozen process.
        with trio.CancelScope(shield=True):
            await process.wait()
