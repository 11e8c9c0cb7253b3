"""The schema's history: numbered SQL files, each applied once and in order."""

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

    An up-to-date schema is only read, so a role without the right to create tables is enough then.

    Raises:
        SchemaTooNew: nothing was changed.
        psycopg.Error: nothing was changed.
    """
    migrations = known_migrations()
    with connection.transaction():
        connection.execute("SELECT pg_advisory_xact_lock(%s)", [LOCK])
        applied = _applied(connection)
        known = migrations[-1].number
        if applied > known:
            raise SchemaTooNew(applied, known)
        for migration in migrations:
            if migration.number > applied:
                connection.execute(migration.sql)
                connection.execute(
                    "INSERT INTO marketflow_migrations (number, name) VALUES (%s, %s)",
                    [migration.number, migration.name],
                )


def _applied(connection: psycopg.Connection) -> int:
    """The number of the last migration that was applied; 0 on a new database."""
    if connection.execute("SELECT to_regclass('marketflow_migrations')").fetchone() == (None,):
        connection.execute(
            "CREATE TABLE marketflow_migrations (number integer PRIMARY KEY, name text NOT NULL,"
            " applied_at timestamptz NOT NULL DEFAULT now())"
        )
    row = connection.execute("SELECT coalesce(max(number), 0) FROM marketflow_migrations").fetchone()
    return int(row[0]) if row else 0
