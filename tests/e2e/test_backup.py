"""A backup that is made and restored as docs/operations.md describes."""

from __future__ import annotations

import os
import re
from pathlib import Path

import attrs
import psycopg
import trio
from asking import eventually, stored_rows
from serving import running

from marketflow.config import PostgresSettings, Settings
from marketflow.embedded import EmbeddedPostgres

OPERATIONS = Path(__file__).parents[2] / "docs" / "operations.md"


async def run(program: str, dsn: str, directory: Path, server: EmbeddedPostgres) -> None:
    """Run the document's command line for a program, in a directory."""
    (line,) = re.findall(rf"^{program} .*$", OPERATIONS.read_text(encoding="utf-8"), re.MULTILINE)
    environment = os.environ | {"DSN": dsn, "PATH": f"{server._programs}:{os.environ['PATH']}"}
    await trio.run_process(["sh", "-c", line], cwd=directory, env=environment)


async def test_restored_backup_is_made_whole(
    settings: Settings, postgres_server: EmbeddedPostgres, postgres_dsn: str, tmp_path: Path
) -> None:
    """Rows that were written after the backup are written again from the bars in Redis."""
    settings = attrs.evolve(settings, mode="test")
    async with running(settings):
        await eventually(lambda: stored_rows(postgres_dsn))
        await run("pg_dump", postgres_dsn, tmp_path, postgres_server)
        in_the_dump = stored_rows(postgres_dsn)
        await eventually(lambda: stored_rows(postgres_dsn).keys() - in_the_dump.keys())
    rows = stored_rows(postgres_dsn)
    assert len(rows) > len(in_the_dump)

    restored = f"{postgres_dsn}_restored"
    with psycopg.connect(postgres_dsn, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {restored.rpartition('/')[2]}")
    await run("pg_restore", restored, tmp_path, postgres_server)
    assert stored_rows(restored).keys() <= in_the_dump.keys()

    async with running(attrs.evolve(settings, postgres=PostgresSettings(dsn=restored))):
        await eventually(lambda: rows.keys() <= stored_rows(restored).keys())
    found = stored_rows(restored)
    # The interval that was open at the stop has more updates now.
    last = max(end for *_, end in rows)
    assert {key: row for key, row in rows.items() if key[-1] < last} == {
        key: found[key] for key in rows if key[-1] < last
    }
