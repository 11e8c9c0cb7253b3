"""The schema's history: numbered SQL files, each applied once and in order.

A release knows the migrations up to some number, and may be started on a database that a later one has
migrated. A migration with which it can live says so in its first line, `-- compatible_from: N`: releases that
know at least number N may use the schema after it. Without that line only those that know the migration may.

Earlier releases look only at the greatest number in `marketflow_migrations`. So that table has the migrations
that need their release. The others are noted in `marketflow_settings`, which every role of ours may read.
"""

from __future__ import annotations

import re
from importlib import resources
from typing import Final

import attrs
import psycopg

from marketflow.app.ports import StoreUnfit

LOCK: Final = 0x6D666D6967726174
"""The advisory lock for migrations ("mfmigrat"): the second of two services finds the migrations applied."""

_NAME: Final = re.compile(r"([0-9]{4})_(\w+)\.sql")
_COMPATIBLE: Final = re.compile(rb"-- compatible_from: ([0-9]+)\n")
_NOTED: Final = re.compile(r"compatible migration ([0-9]+)")


class SchemaTooNew(StoreUnfit):
    """The database was migrated by a newer marketflow."""

    def __init__(self, found: int, known: int) -> None:
        super().__init__(
            f"the database's schema is number {found}, this marketflow knows none past {known}: upgrade it"
        )
        self.found = found
        self.known = known


@attrs.frozen
class Migration:
    """One step of the schema."""

    number: int
    name: str
    sql: bytes

    @property
    def compatible_from(self) -> int:
        """Releases that know this number may use the schema after it.

        Raises:
            ValueError: the first line says it in another way, or names a later migration.
        """
        match = _COMPATIBLE.match(self.sql)
        if match is None:
            if b"compatible" in self.sql.partition(b"\n")[0].lower():
                raise ValueError(f"migration {self.number}: the first line must be -- compatible_from: N")
            return self.number
        if not 0 < (known := int(match[1])) <= self.number:
            raise ValueError(f"migration {self.number} cannot be compatible from {known}")
        return known


def known_migrations() -> list[Migration]:
    """The migrations in the package, in order."""
    found = [
        Migration(int(match[1]), match[2], file.read_bytes())
        for file in resources.files(__name__).iterdir()
        if (match := _NAME.fullmatch(file.name))
    ]
    return sorted(found, key=lambda migration: migration.number)


def migrate(connection: psycopg.Connection) -> None:
    """Bring the schema up to date, in one transaction; several services may do so at once.

    An up-to-date schema is only read, so a role without the right to create tables is enough then. So is one
    that a later release has migrated, if this release can use it.

    Raises:
        SchemaTooNew: nothing was changed.
        psycopg.Error: nothing was changed.
    """
    migrations = known_migrations()
    with connection.transaction():
        connection.execute("SELECT pg_advisory_xact_lock(%s)", [LOCK])
        applied = _applied(connection)
        known, newest = migrations[-1].number, max(applied, default=0)
        if any(number > known and compatible_from > known for number, compatible_from in applied.items()):
            raise SchemaTooNew(newest, known)
        for migration in migrations:
            if migration.number > newest:
                connection.execute(migration.sql)
                _note(connection, migration)


def _applied(connection: psycopg.Connection) -> dict[int, int]:
    """By the number of each applied migration, what a release must know to use the schema after it."""
    if not _exists(connection, "marketflow_migrations"):
        connection.execute(
            "CREATE TABLE marketflow_migrations (number integer PRIMARY KEY, name text NOT NULL,"
            " applied_at timestamptz NOT NULL DEFAULT now())"
        )
    rows = connection.execute("SELECT number FROM marketflow_migrations").fetchall()
    applied = {number: number for (number,) in rows}
    if _exists(connection, "marketflow_settings"):
        for name, value in connection.execute("SELECT name, value FROM marketflow_settings").fetchall():
            if match := _NOTED.fullmatch(name):
                # A note that cannot be read allows nothing.
                applied[int(match[1])] = int(value) if value.isdecimal() else int(match[1])
    return applied


def _note(connection: psycopg.Connection, migration: Migration) -> None:
    """Note that it was applied."""
    if migration.compatible_from == migration.number:
        connection.execute(
            "INSERT INTO marketflow_migrations (number, name) VALUES (%s, %s)",
            [migration.number, migration.name],
        )
    else:
        connection.execute(
            "INSERT INTO marketflow_settings (name, value) VALUES (%s, %s)",
            [f"compatible migration {migration.number}", str(migration.compatible_from)],
        )


def _exists(connection: psycopg.Connection, table: str) -> bool:
    return connection.execute("SELECT to_regclass(%s)", [table]).fetchone() != (None,)
