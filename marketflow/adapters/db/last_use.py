"""Notes whether a single service or nodes of a cluster use the database, and warns when that changes.

They have different keys in Redis. If one starts after the other, and nothing was moved (`marketflow.moving`),
its answers lack the last hour, and its rows a part of the open minute.
"""

from __future__ import annotations

from typing import Final, Literal

import psycopg
import structlog

from marketflow.adapters.db import statements

log = structlog.get_logger()

Use = Literal["a single service", "nodes of a cluster"]

_COMMANDS: Final = {
    "a single service": "marketflow cluster leave",
    "nodes of a cluster": "marketflow cluster adopt",
}
"""What moves the last hour to them."""


def note_use(connection: psycopg.Connection, use: Use) -> None:
    """They use the database from now on, and may lack what the other kind has in Redis."""
    row = connection.execute(statements.NOTE_USE, [use]).fetchone()
    if row is not None and row[0] is not None:
        log.warning("last hour not moved", before=row[0], now=use, run=_COMMANDS[use])


def note_move(connection: psycopg.Connection, use: Use) -> None:
    """What the other kind had in Redis was moved to them."""
    connection.execute(statements.NOTE_USE, [use])
