"""The real program between simulated exchanges and real stores, and requests that need no browser."""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from market import Market

START_LIMIT = 60.0
"""Seconds until it must serve."""


class Desk:
    """A service that can be killed and started again, at the same address."""

    def __init__(self, directory: Path, market: Market, settings: dict[str, str]) -> None:
        self.market = market
        self._directory = directory
        self._log = directory / "log.jsonl"
        self._settings = settings
        self._process: subprocess.Popen[bytes] | None = None
        self.url = ""

    def start(self) -> None:
        """Start it, and wait until it serves."""
        port = urlsplit(self.url).port or 0
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("MARKETFLOW_")}
        settings = {f"MARKETFLOW_{name}": value for name, value in self._settings.items()}
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "marketflow", "serve", "--port", str(port), "--log-format", "json"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self._directory,
                env=inherited | settings,
            )
        self.url = self._serving(self._process)

    def _serving(self, process: subprocess.Popen[bytes]) -> str:
        limit = time.monotonic() + START_LIMIT
        while process.poll() is None and time.monotonic() < limit:
            for line in self._log.read_text().splitlines():
                if '"event": "serving"' in line or '"event":"serving"' in line:
                    url: str = json.loads(line)["url"]
                    return url
            time.sleep(0.02)
        raise AssertionError(f"it does not serve:\n{self._log.read_text()}")

    def kill(self) -> None:
        """Kill it with SIGKILL."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """Stop it in order."""
        self._end(signal.SIGTERM)

    def _end(self, number: signal.Signals) -> None:
        if self._process is not None:
            self._process.send_signal(number)
            try:
                self._process.wait(15)
            finally:
                self._process.kill()
                self._process = None

    def tell_history(self, seconds: int) -> None:
        """Have the exchanges send late lines for so many past seconds. Returns once they are in answers."""
        self.market.tell_history(seconds)
        until = time.monotonic() + 20
        while len(self.get("/candles/ETHUSDT?interval=5s")["candles"]) < seconds // 5:
            assert time.monotonic() < until
            time.sleep(0.02)

    def get(self, path: str) -> Any:
        """The JSON of an answer."""
        connection = http.client.HTTPConnection(urlsplit(self.url).netloc, timeout=10)
        try:
            connection.request("GET", path)
            return json.loads(connection.getresponse().read())
        finally:
            connection.close()


@contextmanager
def open_desk(directory: Path, market: Market, redis_url: str, dsn: str, **more: str) -> Iterator[Desk]:
    """A service that runs until the end of the block. `more` are `MARKETFLOW_` variables."""
    exchanges = [{"name": name, "host": "127.0.0.1", "port": port} for name, port in market.ports.items()]
    settings = {
        "EXCHANGES": json.dumps(exchanges),
        "REDIS__URL": redis_url,
        "POSTGRES__DSN": dsn,
        "STATE_DIR": str(directory),
    }
    desk = Desk(directory, market, settings | more)
    try:
        desk.start()
        yield desk
    finally:
        desk.stop()
