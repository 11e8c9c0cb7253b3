"""A server as our child process. It ends even if we are killed."""

from __future__ import annotations

import abc
import contextlib
import fcntl
import importlib.util
import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, Final, Self

from marketflow.embedded import account
from marketflow.embedded.errors import EmbeddedError
from marketflow.embedded.places import Places, places_in
from marketflow.embedded.processes import child_arguments, processes, send, send_to_all, server_environment

START_LIMIT: Final = 30.0
"""Seconds that a server may take until it answers."""

_POLL: Final = 0.01


class Server(abc.ABC):
    """A server as our child process. A context manager: started on entry, stopped on exit.

    `start` must be called on the main thread: the kernel ends a child with the *thread* that made it. The
    other methods may be called on any thread, one at a time. All have time limits.
    """

    name: ClassVar[str]
    sockets: ClassVar[tuple[str, ...]]
    """The names of the files that it makes in the directory of its sockets, the longest last."""
    endings: ClassVar[tuple[tuple[signal.Signals, float], ...]]
    """How to stop it: signals, each with the seconds to wait for its effect. SIGKILL follows."""

    def __init__(self, directory: Path | str) -> None:
        self.directory = Path(directory).resolve()
        self.log = self.directory / f"{self.name}.log"
        self._account = account.server_account()
        self._credentials: dict[str, Any] = {}
        if self._account is not None:
            self._credentials = {
                "user": self._account.pw_uid,
                "group": self._account.pw_gid,
                "extra_groups": [],
            }
        self._places: Places | None = None
        self._pid_file = self.directory / f"{self.name}.pid"
        self._process: subprocess.Popen[bytes] | None = None
        self._lock: int | None = None

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

    @property
    def places(self) -> Places:
        """The directories of its data and sockets. They never change. RuntimeError before the first start."""
        if self._places is None:
            raise RuntimeError(f"{self.name} was never started")
        return self._places

    @property
    @abc.abstractmethod
    def address(self) -> str:
        """The address for its clients."""

    def start(self) -> None:
        """Start it with the same places as before, and wait until it answers. Does nothing if it runs.

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
            self.directory.mkdir(mode=0o755, parents=True, exist_ok=True)
            account.check_owner(self.directory)
            self._take_lock()
            self._places = places_in(self.directory, self.name, self.sockets[-1], self._account)
            self._prepare()
            self._end_leftover()
            self._make_way()
            self._launch()
        except (OSError, subprocess.SubprocessError) as error:
            self.stop()
            raise EmbeddedError(f"{self.name} cannot be started in {self.directory}: {error}") from error
        except BaseException:
            self.stop()
            raise

    def revive(self) -> bool:
        """Start it again if it has ended by itself, without waiting until it answers; returns whether it had.

        Must be called on the main thread, too.

        Raises:
            OSError: no process can be started at the moment.
        """
        if self._process is None or self._process.poll() is None:
            return False
        self._spawn()
        return True

    def stop(self) -> None:
        """Stop it, keep its data, and unlock the directory. Does nothing if it is stopped."""
        process, self._process = self._process, None
        if process is not None:
            self._end(process.pid, lambda: process.poll() is None)
            self._pid_file.unlink(missing_ok=True)
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None
        if self._places is not None and not self._places.sockets.is_relative_to(self._places.home):
            with contextlib.suppress(OSError):  # already removed, or used by another server by now
                self._places.sockets.rmdir()

    def remove(self) -> None:
        """Stop it, and remove its data and all other files that it made."""
        self.stop()
        if self._places is None:
            return
        for directory in (self._places.data, self._places.sockets):
            shutil.rmtree(directory, ignore_errors=True)
        if self._places.home != self.directory:
            shutil.rmtree(self._places.home, ignore_errors=True)

    def kill(self) -> None:
        """Kill it at once, like a power cut. The directory stays locked, so that `start` can follow."""
        process, self._process = self._process, None
        if process is not None:
            send_to_all(process.pid, signal.SIGKILL)
            process.wait()
            self._pid_file.unlink(missing_ok=True)

    def pause(self) -> None:
        """Freeze it: connections stay open, but it does not answer."""
        send_to_all(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on after `pause`."""
        send_to_all(self.pid, signal.SIGCONT)

    @abc.abstractmethod
    def _prepare(self) -> None:
        """Find the program and prepare the directories; called before each start."""

    @abc.abstractmethod
    def _command(self) -> list[str]:
        """The command line. Its second to fourth word must be `--option DIRECTORY --another`."""

    @abc.abstractmethod
    def _answers(self) -> bool:
        """Whether this server, and not another one, is ready."""

    def _launch(self) -> None:
        deadline = time.monotonic() + START_LIMIT
        while True:
            output = self._spawn()
            while self._process is not None and self._process.poll() is None:
                if self._answers():
                    return
                if time.monotonic() > deadline:
                    raise EmbeddedError(
                        f"{self.name} does not answer after {START_LIMIT:.0f} s: see {self.log}"
                    )
                time.sleep(_POLL)
            with self.log.open("rb") as log:
                log.seek(output)
                said = log.read().decode(errors="replace").strip()
            # Processes of a server that was just killed may still exist.
            if "in use" not in said or time.monotonic() > deadline:
                last_lines = "\n".join(said.splitlines()[-5:])
                raise EmbeddedError(f"{self.name} ended while starting (see {self.log}):\n{last_lines}")
            time.sleep(10 * _POLL)

    def _spawn(self) -> int:
        """Start the process; returns the position in the log at which its output begins."""
        with self.log.open("ab") as log:
            output = log.tell()
            self._process = subprocess.Popen(  # noqa: S603
                self._command(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                **child_arguments(self.endings[0][0]),
                env=server_environment(),
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

    def _make_way(self) -> None:
        """Make the directory of its sockets, and remove sockets that a killed server has left there."""
        account.private_directory(self.places.sockets, self._account)
        for name in self.sockets:
            (self.places.sockets / name).unlink(missing_ok=True)

    def _end_leftover(self) -> None:
        """Stop a server that outlived its parent, after checking that the pid still belongs to it."""
        try:
            pid = int(self._pid_file.read_text())
        except (FileNotFoundError, ValueError):
            return
        mark = " ".join(self._command()[1:4])
        self._end(pid, lambda: mark in dict(processes()).get(pid, (0, ""))[1])
        self._pid_file.unlink()

    def _end(self, pid: int, is_alive: Callable[[], bool]) -> None:
        if is_alive():
            send_to_all(pid, signal.SIGCONT)
        for number, seconds in (*self.endings, (signal.SIGKILL, 5.0)):
            deadline = time.monotonic() + seconds
            if is_alive():
                (send_to_all if number is signal.SIGKILL else send)(pid, number)
            while is_alive() and time.monotonic() < deadline:
                time.sleep(_POLL)


def package_directory(name: str) -> Path | None:
    """The directory of an installed package, without importing it."""
    spec = importlib.util.find_spec(name)
    locations = spec.submodule_search_locations if spec is not None else None
    return Path(locations[0]).resolve() if locations else None
