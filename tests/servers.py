"""The embedded servers for tests and benchmarks: on a TCP port, and with all commands allowed.

A port can be proxied, refused or taken by others, like that of a remote server. CONFIG and DEBUG can make a
Redis refuse commands. Variables of the environment choose the programs: see below.
"""

from __future__ import annotations

import os
import secrets
import socket
import subprocess
from pathlib import Path
from typing import Final

from marketflow.embedded import EmbeddedPostgres, EmbeddedRedis
from marketflow.embedded.server import Server

REDIS_PROGRAM: Final = "TEST_REDIS_SERVER"
"""The variable that names a program to use instead of the embedded Redis."""
POSTGRES_PROGRAMS: Final = "TEST_POSTGRES_PROGRAMS"
"""The variable that names a directory to use instead of the embedded PostgreSQL's programs."""


def chosen() -> dict[str, str]:
    """The version of each program that the environment chooses, by its variable.

    So the report of a run shows what it ran with, and a missing program ends the run.
    """
    programs = {REDIS_PROGRAM: "", POSTGRES_PROGRAMS: "postgres"}
    return {
        variable: subprocess.run(
            [Path(os.environ[variable]) / name, "--version"], check=True, capture_output=True, text=True
        ).stdout.strip()
        for variable, name in programs.items()
        if os.environ.get(variable)
    }


PORTS: Final = range(20_000, 32_768)
"""Below Linux's ephemeral ports: while a server is down no outgoing connection can take its port, and no
client that tries again and again can connect to itself."""


def is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def free_port() -> int:
    """A port of 127.0.0.1 that is free at the moment."""
    while not is_free(port := secrets.choice(PORTS)):
        pass
    return port


class _OnPort(Server):
    """Keeps its port over restarts. It changes it only if the port was taken before the first start."""

    port = 0
    has_served = False

    def _spawn(self) -> int:
        if not self.port or (not self.has_served and not is_free(self.port)):
            self.port = free_port()
        return super()._spawn()

    def start(self) -> None:
        super().start()
        self.has_served = True


class TcpRedis(_OnPort, EmbeddedRedis):
    """A Redis on 127.0.0.1 and on its Unix socket, without a password and with all commands."""

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    @property
    def unix_url(self) -> str:
        return super().url

    def _found_program(self) -> Path:
        other = os.environ.get(REDIS_PROGRAM)
        return Path(other) if other else super()._found_program()

    def _options(self) -> dict[str, list[str]]:
        options = super()._options() | {"port": [str(self.port)], "bind": ["127.0.0.1"]}
        del options["user"]
        if "shutdown-on-sigterm" in options:  # Redis 7 disables DEBUG by default.
            options["enable-debug-command"] = ["local"]
        return options


class TcpPostgres(_OnPort, EmbeddedPostgres):
    """A PostgreSQL on 127.0.0.1 that everybody can connect to, as any user."""

    def _dsn(self, database: str) -> str:
        return f"postgresql://postgres@127.0.0.1:{self.port}/{database}"

    def _found_programs(self) -> Path:
        other = os.environ.get(POSTGRES_PROGRAMS)
        return Path(other) if other else super()._found_programs()

    def _admissions(self) -> list[str]:
        return ["host all all 127.0.0.1/32 trust"]

    def _settings(self) -> dict[str, str]:
        return super()._settings() | {"listen_addresses": "127.0.0.1", "unix_socket_directories": ""}

    def _port(self) -> int:
        return self.port
