"""The environment of all measurements: embedded stores, the real program, and the exchanges that feed it."""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from http import HTTPStatus
from pathlib import Path
from typing import Any

import attrs
import psycopg
import redis

from marketflow.domain.prices import SYMBOLS
from tests.bench import versions
from tests.bench.children import ROOT, child
from tests.bench.exchanges import Exchanges, Sent, sending
from tests.bench.histograms import UPDATE_LATENCY, Buckets, read_buckets
from tests.bench.processes import busy_seconds, cpu_seconds, cpu_seconds_of_all
from tests.bench.sender import PROBE, Telling
from tests.servers import TcpPostgres, TcpRedis

LIMIT = 60.0
"""The time limit in seconds of any wait."""
DRAIN_LIMIT = 300.0
"""Seconds that the last updates may take: if Redis was slower, minutes of them may wait."""
STOP_LIMIT = 15.0


class BenchError(Exception):
    """A measurement that cannot be trusted. The message says why."""


def symbols(count: int) -> list[str]:
    """That many symbols; the first ones are the real ones."""
    return [*SYMBOLS, *(f"S{number:03}USDT" for number in range(len(SYMBOLS), count))][:count]


def wait_until(
    condition: Callable[[], Any], what: str, *, seconds: float = LIMIT, every: float = 0.02
) -> Any:
    """Poll until the condition is met; returns its value."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        if time.monotonic() > deadline:
            raise BenchError(f"{what}: not within {seconds:g} s")
        time.sleep(every)
    return found


@attrs.frozen
class Cpu:
    """Seconds of processor time, by process."""

    service: float
    redis: float
    postgres: float
    sender: float
    machine: float
    """All processes of this machine."""
    bench: float
    """The bench itself."""
    at: float
    """Seconds, monotonic."""

    @property
    def others(self) -> float:
        """Programs that are not part of the measurement."""
        return self.machine - self.service - self.redis - self.postgres - self.sender - self.bench

    def __sub__(self, other: Cpu) -> Cpu:
        return Cpu(
            *(mine - theirs for mine, theirs in zip(attrs.astuple(self), attrs.astuple(other), strict=True))
        )


def lost_of(ledger: Mapping[str, Any]) -> int:
    """Updates that are not in Redis and never will be."""
    lost: int = sum(ledger["dropped"].values()) + sum(ledger["rejected"].values()) + ledger["expired"]
    return lost


class Service:
    """The program, as users run it."""

    def __init__(
        self,
        stage: Stage,
        process: subprocess.Popen[bytes],
        log: Path,
        exchanges: Exchanges,
        names: Sequence[str],
        dsn: str,
        launched_at: float,
        environment: Mapping[str, object],
    ) -> None:
        self.stage = stage
        self.exchanges = exchanges
        self.names = names
        self.dsn = dsn
        self.launched_at = launched_at
        """Seconds, monotonic."""
        self.environment = environment
        """Its `MARKETFLOW_` variables, without that prefix."""
        self.pid = process.pid
        self._process = process
        self._log = log
        self.port = 0

    def events(self) -> list[dict[str, Any]]:
        """Its log."""
        whole, _, _ = self._log.read_text().rpartition("\n")
        return [json.loads(line) for line in whole.splitlines() if line.startswith("{")]

    def logged(self, event: str) -> dict[str, Any] | None:
        """Wait for the first such event."""
        if self._process.poll() is not None:
            raise BenchError(f"the service has ended:\n{self._log.read_text()[-2000:]}")
        return next((each for each in self.events() if each["event"] == event), None)

    def get(self, path: str) -> tuple[int, Any]:
        """Send a request; returns the status and the decoded body."""
        status, body = self._get(path)
        return status, json.loads(body)

    def latency_buckets(self) -> Buckets:
        """The service's own figures of the time from receipt to Redis."""
        return read_buckets(self._get("/metrics")[1].decode(), UPDATE_LATENCY)

    def _get(self, path: str) -> tuple[int, bytes]:
        # A new connection each time, since the service closes idle ones.
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=LIMIT)
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()

    def ledger(self) -> dict[str, Any]:
        """The sum of all exchanges' counters, which must add up."""
        updates: dict[str, Any] = self.get("/health")[1]["updates"]
        received, rejected = updates["received"], sum(updates["rejected"].values())
        dropped = sum(updates["dropped"].values())
        placed = updates["cached"] + updates["expired"] + dropped + updates["pending"]
        if received != updates["accepted"] + rejected or updates["accepted"] != placed:
            raise BenchError(f"the ledger does not add up: {updates}")
        return updates

    def cpu(self) -> Cpu:
        """Processor time used so far."""
        return Cpu(
            cpu_seconds(self.pid),
            cpu_seconds(self.stage.redis.pid),
            cpu_seconds_of_all(self.stage.postgres.pid),
            cpu_seconds(self.exchanges.pid),
            busy_seconds(),
            time.process_time(),
            time.monotonic(),
        )

    def drained(self, sent: Sent) -> dict[str, Any]:
        """Wait until no sent update is pending; returns the ledger.

        Raises:
            BenchError: the service has not received all sent updates, or the ledger does not add up.
        """
        wait_until(
            lambda: (found := self.ledger())["received"] >= sent.total and not found["pending"],
            f"none of {sent.total} updates pending",
            seconds=DRAIN_LIMIT,
            every=0.05,
        )
        ledger = self.ledger()
        if ledger["received"] != sent.total:
            raise BenchError(f"{sent.total} lines were sent, but received: {ledger}")
        return ledger


class Stage:
    """The stores. `fresh` before each measurement: an empty Redis, an empty database."""

    def __init__(self, directory: Path, redis_server: TcpRedis, postgres: TcpPostgres) -> None:
        self.directory = directory
        self.redis = redis_server
        self.postgres = postgres
        self.versions: str | None = None
        """The versions of Redis or Valkey and of PostgreSQL; None before they are started."""
        self.dsn = ""
        """That of the newest database."""
        self._number = 0

    def client(self) -> redis.Redis:
        """A connection to Redis."""
        return redis.Redis.from_url(self.redis.url)

    def fresh(self) -> str:
        """Make a new, empty Redis and an empty database; returns its DSN."""
        # Faster than FLUSHALL of millions, and leaves no memory of freed keys.
        self.redis.kill()
        self.redis.start()
        self.postgres.start()
        self._number += 1
        name = f"bench_{self._number}"
        with psycopg.connect(self.postgres.dsn, autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}")
            server = connection.info.parameter_status("server_version")
        with self.client() as client:
            self.versions = f"{versions.store(client.info('server'))}, PostgreSQL {server}"
        self.dsn = self.postgres.dsn.removesuffix("marketflow") + name
        return self.dsn

    @contextmanager
    def launched(
        self,
        *,
        exchanges: int = 3,
        symbols_count: int = 5,
        telling: Telling = "nothing",
        venues: Sequence[Mapping[str, object]] = (),
        settings: Mapping[str, object] | None = None,
        before: Callable[[Exchanges], None] = lambda _: None,
    ) -> Iterator[Service]:
        """The program on fresh stores, just started; stopped at the end of the block.

        Args:
            exchanges: their number.
            symbols_count: their number; PROBE is one more.
            telling: which lines of these exchanges have volumes and sides.
            venues: further exchanges, as the configuration has them.
            settings: further `MARKETFLOW_` variables, without that prefix.
            before: called before the program starts.
        """
        dsn = self.fresh()
        names = [f"exchange{number + 1}" for number in range(exchanges)]
        wanted = symbols(symbols_count)
        with sending(exchanges, wanted, telling) as sender:
            before(sender)
            environment = {
                "SYMBOLS": [*wanted, PROBE],
                "EXCHANGES": [
                    {"name": name, "host": "127.0.0.1", "port": port}
                    for name, port in zip(names, sender.ports, strict=True)
                ]
                + list(venues),
                "REDIS__URL": self.redis.url,
                "POSTGRES__DSN": dsn,
                "STATE_DIR": str(self.directory / "state"),
                "HTTP__PORT": 0,
                **(settings or {}),
            }
            log = self.directory / f"service-{self._number}.log"
            launched_at = time.monotonic()
            with _program(self.directory, log, environment) as process:
                yield Service(self, process, log, sender, names, dsn, launched_at, environment)

    @contextmanager
    def beside(self, service: Service, **settings: object) -> Iterator[Service]:
        """Another node of the service's cluster, on the same stores, which serves."""
        environment = {
            **service.environment,
            "STATE_DIR": str(self.directory / "state-of-another"),
            **settings,
        }
        log = self.directory / f"another-{self._number}.log"
        launched_at = time.monotonic()
        with _program(self.directory, log, environment) as process:
            another = Service(
                self,
                process,
                log,
                service.exchanges,
                service.names,
                service.dsn,
                launched_at,
                environment,
            )
            event = wait_until(lambda: another.logged("serving"), "the other node serves")
            another.port = int(event["url"].rpartition(":")[2])
            yield another

    @contextmanager
    def service(self, **wanted: Any) -> Iterator[Service]:
        """As `launched`, but serving, and connected to exchanges that send nothing yet."""
        with self.launched(**wanted) as service:
            event = wait_until(lambda: service.logged("serving"), "the service serves")
            service.port = int(event["url"].rpartition(":")[2])
            wait_until(service.exchanges.connected, "every exchange has its client")
            # It first reads what Redis has, which takes a while with many symbols.
            wait_until(lambda: service.logged("window whole"), "the service knows what Redis holds")
            # Until rows have shown that Redis lost nothing, a request for an unseen price gets a 503.
            wait_until(lambda: service.get("/prices/latest")[0] == HTTPStatus.OK, "questions are answered")
            yield service


@contextmanager
def _program(
    directory: Path, log: Path, environment: Mapping[str, object]
) -> Iterator[subprocess.Popen[bytes]]:
    values = {
        f"MARKETFLOW_{name}": value if isinstance(value, str) else json.dumps(value)
        for name, value in environment.items()
    }
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("MARKETFLOW_")}
    path = os.pathsep.join(filter(None, [str(ROOT), inherited.get("PYTHONPATH", "")]))
    with log.open("wb") as stderr:
        pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": stderr}
        environment = inherited | values | {"PYTHONPATH": path}
        with child(
            "marketflow", "serve", "--log-format", "json", cwd=directory, env=environment, **pipes
        ) as process:
            try:
                yield process
            finally:
                process.send_signal(signal.SIGTERM)
                with suppress(subprocess.TimeoutExpired):
                    process.wait(STOP_LIMIT)


@contextmanager
def staged() -> Iterator[Stage]:
    """Stores in a directory of their own, removed afterwards. They start when they are needed."""
    with ExitStack() as stack:
        directory = Path(
            stack.enter_context(
                tempfile.TemporaryDirectory(prefix="marketflow-bench-", ignore_cleanup_errors=True)
            )
        )
        directory.chmod(0o711)  # if we are root, PostgreSQL runs as another user
        redis_server = TcpRedis(directory / "redis")
        stack.callback(redis_server.stop)
        stack.callback(redis_server.kill)  # Kill it first: a stop would save gigabytes.
        postgres = TcpPostgres(directory / "postgres", durable=False)
        stack.callback(postgres.remove)
        stack.callback(postgres.stop)
        yield Stage(directory, redis_server, postgres)
