"""Real servers for the tests that need them, and a time limit for every test."""

from __future__ import annotations

import faulthandler
import itertools
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import psycopg
import pytest
import redis
from builders import BOOK, MIRRORS, REDIS_ALONE
from servers import TcpPostgres, TcpRedis, chosen
from slow_machine import SlowClock, slow_clock

from marketflow.embedded.postgres import LAST_PYTHON

# tests.bench is only in the source tree. It comes last, so that the tree does not hide the installed package.
sys.path.append(str(Path(__file__).parents[1]))

TIME_LIMIT = 120
"""Seconds that one test may take, its fixtures included. Past it tracebacks are printed and the run ends."""

# The machine is shared, so the duration of an example proves nothing.
hypothesis.settings.register_profile("marketflow", deadline=None)
# With `--hypothesis-profile few`: a second run need not find the same examples again.
hypothesis.settings.register_profile("few", deadline=None, max_examples=15)
hypothesis.settings.load_profile("marketflow")

_STDERR = pytest.StashKey[int]()


def pytest_configure(config: pytest.Config) -> None:
    # During a test stderr is captured, so the reason for ending the run would be invisible.
    config.stash[_STDERR] = os.dup(2)
    # Under `nohup` SIGHUP is ignored, here and in every program that a test starts: a stop by it would never
    # come. Programs do not inherit a handler, so with one they have the default; the run itself lives on.
    if signal.getsignal(signal.SIGHUP) == signal.SIG_IGN:
        signal.signal(signal.SIGHUP, lambda *_: None)


def pytest_report_header() -> list[str]:
    return [f"{variable}: {program}" for variable, program in chosen().items()]


def pytest_unconfigure(config: pytest.Config) -> None:
    os.close(config.stash[_STDERR])


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    faulthandler.dump_traceback_later(TIME_LIMIT, exit=True, file=item.config.stash[_STDERR])
    try:
        return (yield)
    finally:
        faulthandler.cancel_dump_traceback_later()


@pytest.fixture(scope="session", params=[BOOK, REDIS_ALONE, MIRRORS])
def filling(request: pytest.FixtureRequest) -> str:
    """What fills the ports of questions and the live stream. All tests of answers run with each."""
    return request.param


@pytest.fixture
def clock() -> Iterator[SlowClock]:
    """For limits on how long something takes, which a slow machine does not exceed."""
    with slow_clock() as clock:
        yield clock


@pytest.fixture
def server_directory() -> Iterator[Path]:
    """A new directory that a server under another account can reach; pytest's own cannot be reached."""
    yield from _server_directory()


def _server_directory() -> Iterator[Path]:
    directory = Path(tempfile.mkdtemp(prefix="marketflow-"))
    directory.chmod(0o755)
    yield directory
    shutil.rmtree(directory)


@pytest.fixture(scope="session")
def redis_server() -> Iterator[TcpRedis]:
    """A Redis for all tests of this process. Do not stop it; use `redis_url` or `own_redis`."""
    for directory in _server_directory():
        with TcpRedis(directory) as server:
            yield server
            server.remove()


@pytest.fixture(scope="session")
def _embedded_postgres() -> None:
    """Skip tests that need PostgreSQL if it cannot be installed here; otherwise a missing one is an error."""
    if sys.version_info[:2] > LAST_PYTHON and not chosen():
        pytest.skip("there is no embedded PostgreSQL for this Python yet")


@pytest.fixture(scope="session")
def postgres_server(_embedded_postgres: None) -> Iterator[TcpPostgres]:
    """A PostgreSQL for all tests of this process. Do not stop it; use `postgres_dsn` or `own_postgres`."""
    for directory in _server_directory():
        with TcpPostgres(directory, durable=False) as server:
            yield server
            server.remove()


@pytest.fixture
def redis_url(redis_server: TcpRedis) -> str:
    """An empty Redis."""
    with redis.Redis.from_url(redis_server.url) as client:
        client.flushall()
    return redis_server.url


@pytest.fixture(scope="session")
def _numbers() -> Iterator[int]:
    return itertools.count(1)


@pytest.fixture
def postgres_dsn(postgres_server: TcpPostgres, _numbers: Iterator[int]) -> Iterator[str]:
    """An empty database, dropped afterwards, even with clients connected."""
    name = f"test_{next(_numbers)}"
    with psycopg.connect(postgres_server.dsn, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    yield postgres_server.dsn.removesuffix("marketflow") + name
    with psycopg.connect(postgres_server.dsn, autocommit=True) as connection:
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def own_redis(server_directory: Path) -> Iterator[TcpRedis]:
    """An empty Redis that the test may stop, kill and freeze."""
    with TcpRedis(server_directory) as server:
        yield server
        server.remove()


@pytest.fixture
def own_postgres(server_directory: Path, _embedded_postgres: None) -> Iterator[TcpPostgres]:
    """A PostgreSQL with an empty database that the test may stop, kill and freeze.

    It is durable: otherwise it loses acknowledged commits when it is killed.
    """
    with TcpPostgres(server_directory) as server:
        yield server
        server.remove()
