"""Nodes of a cluster as processes, each with ways of its own to both stores."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import trio

from tests.cluster.market import Market
from tests.cluster.stores import Redis, Way, way_to_postgres
from tests.faults.rig import BASE, Answer, eventually, http
from tests.servers import free_port

START = 60.0
"""Seconds in which a node must serve."""
INTERVAL = 2_000
"""The aggregation interval in ms."""
ROOT = Path(__file__).parents[2]


class Node:
    """A node. It keeps its name, its port and its ways to the stores over restarts."""

    def __init__(self, name: str, role: str | None, *, redis: Way, postgres: Way, directory: Path) -> None:
        """`role`: None for a single service, which is no node of a cluster."""
        self.name = name
        self.role = role
        self.ways = {"redis": redis, "postgres": postgres}
        self.port = free_port()
        self.log = directory / f"{name}.log"
        self.served_at = -math.inf
        """Since when it serves (monotonic seconds)."""
        self._state = directory / name
        self._process: trio.Process | None = None

    @property
    def url(self) -> str:
        """Where it answers."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def runs(self) -> bool:
        """Whether its process lives, frozen or not."""
        return self._process is not None and self._process.poll() is None

    def check(self) -> None:
        """Its process lives."""
        assert self.runs, f"{self.name} has ended: {self.log.read_text()[-2_000:]}"

    async def start(self, markets: Collection[Market], changes: Mapping[str, str]) -> None:
        """Start its process. It need not serve yet."""
        role = [] if self.role is None else ["--role", self.role]
        with self.log.open("ab") as log:
            self._process = await trio.lowlevel.open_process(
                [sys.executable, "-m", "marketflow", "serve", *role, "--log-format", "json"],
                env=self.environment(markets, changes),
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def environment(self, markets: Collection[Market], changes: Mapping[str, str]) -> dict[str, str]:
        """That of its process."""
        # Exchanges move by faults alone, unless a test wants something else.
        of_node = {"CLUSTER__NODE": self.name, "CLUSTER__SETTLE": "1h"}
        settings = {
            "SYMBOLS": json.dumps(list(BASE)),
            "EXCHANGES": json.dumps(
                [
                    # They send the same to all.
                    {"name": each.name, "host": "127.0.0.1", "port": each.port, "shared": True}
                    for each in markets
                ]
            ),
            "HTTP__PORT": str(self.port),
            **self.ways["redis"].settings,
            **self.ways["postgres"].settings,
            "AGGREGATION__INTERVAL": f"{INTERVAL // 1_000}",
            "AGGREGATION__GRACE": "200ms",
            "FEEDS__BACKOFF_MIN": "20ms",
            "FEEDS__BACKOFF_MAX": "50ms",
            "STATE_DIR": str(self._state),
            **({} if self.role is None else of_node),
            **changes,
        }
        clean = {name: value for name, value in os.environ.items() if not name.startswith("MARKETFLOW_")}
        return clean | {f"MARKETFLOW_{name}": value for name, value in settings.items()}

    async def serves(self) -> None:
        """Wait until it answers."""

        async def ready() -> bool:
            self.check()
            try:
                return (await http(self.url, "GET", "/health/ready")).status == 200
            except OSError:
                return False

        await eventually(ready, within=START, every=0.1, what=f"{self.name} serves")
        self.served_at = time.monotonic()

    def send(self, number: signal.Signals) -> None:
        """Send a signal: SIGSTOP freezes it until SIGCONT."""
        assert self._process is not None
        self._process.send_signal(number)

    async def end(self, number: signal.Signals = signal.SIGKILL) -> int:
        """Send a signal that ends it, and wait for that; returns the exit code."""
        assert self._process is not None
        if self._process.poll() is None:
            self._process.send_signal(number)
        return await self._process.wait()

    async def get(self, path: str) -> Any:
        """The body of an answer, which must be 200."""
        answer = await self.ask(path)
        assert answer.status == 200, (self.name, path, answer)
        return answer.body

    async def ask(self, path: str) -> Answer:
        """Any answer to a GET."""
        self.check()
        return await http(self.url, "GET", path)

    async def post(self, path: str) -> Answer:
        """Any answer to a POST. A switch of the mode may take a minute."""
        self.check()
        return await http(self.url, "POST", path, within=90.0)

    @property
    def events(self) -> list[dict[str, Any]]:
        """Its log, of all its starts."""
        return [json.loads(line) for line in self.log.read_text().splitlines() if line.startswith("{")]


@asynccontextmanager
async def nodes(
    roles: Mapping[str, str | None], *, redis: Redis, dsn: str, directory: Path
) -> AsyncIterator[dict[str, Node]]:
    """Nodes by name, with these roles, none of them started. At the end of the block all are killed."""
    async with AsyncExitStack() as ways:
        made: dict[str, Node] = {}
        for number, (name, role) in enumerate(roles.items()):
            to_redis = await ways.enter_async_context(redis.way(number))
            to_postgres = await ways.enter_async_context(way_to_postgres(dsn))
            made[name] = Node(name, role, redis=to_redis, postgres=to_postgres, directory=directory)
        try:
            yield made
        finally:
            with trio.CancelScope(shield=True):
                for each in made.values():
                    if each.runs:
                        await each.end()
