"""The bench measures what it should; the values of its numbers are not checked here."""

from __future__ import annotations

import json
import math
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.bench.bare_server import bare_server

ROOT = Path(__file__).parents[2]
MEASUREMENTS = (
    "sustained",
    "latency",
    "little",
    "latest",
    "highest",
    "closing",
    "stream",
    "growth",
    "memory",
    "start",
    "bar_size",
    "history",
    "pairs",
    "decoding",
    "sharding",
    "venues",
    "cluster",
)
TIME_LIMIT = 240
"""Seconds; it takes a few on an idle machine, and the cluster half a minute."""


def bench(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tests.bench", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=TIME_LIMIT, check=False)


def measured(directory: Path, name: str) -> tuple[list[dict[str, Any]], str]:
    """The rows of one measurement, and its printed output."""
    path = directory / f"{name}.json"
    done = bench("--quick", "--only", name, "--json", str(path))
    assert done.returncode == 0, done.stderr
    return json.loads(path.read_text())["rows"], done.stdout


def check(rows: list[dict[str, Any]], printed: str) -> None:
    assert rows
    for row in rows:
        assert row["rounds"]
        assert all(math.isfinite(number) for number in row["rounds"])
        assert row["limit"] is None or math.isfinite(row["limit"])
        assert (row["met"] is None) == (not row["goal"])
        assert f"| {row['what']} " in printed


@pytest.mark.parametrize("kind", ["asgi", "quart"])
def test_a_bare_server_answers_for_as_long_as_it_is_asked(kind: str) -> None:
    """It answers more requests on one connection than hypercorn allows by default."""
    with bare_server(kind) as port, socket.create_connection(("127.0.0.1", port)) as client:
        client.settimeout(10)
        for number in range(1_100):
            client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            answer = b""
            while not answer.endswith(b"}"):
                part = client.recv(65_536)
                assert part, f"closed after {number} answers"
                answer += part.strip()


@pytest.mark.parametrize("name", MEASUREMENTS[1:])
def test_every_row_has_a_number(tmp_path: Path, name: str) -> None:
    """The service and the stores agree on the number of updates; otherwise there would be no row."""
    check(*measured(tmp_path, name))


def test_members_in_redis_are_compared_with_what_was_sent(tmp_path: Path) -> None:
    rows, printed = measured(tmp_path, "sustained")
    check(rows, printed)
    (flood,) = rows[0]["raw"]["rounds"]
    assert flood["lost"] == 0
    assert flood["checked"] > 1_000


def test_a_measurement_that_there_is_not_is_told() -> None:
    done = bench("--only", "speed")
    assert done.returncode == 2
    assert f"speed: choose from {', '.join(MEASUREMENTS)}" in done.stderr


def test_the_documents_get_the_table(tmp_path: Path) -> None:
    """The new table replaces the old one, and everything around it stays."""
    docs = tmp_path / "performance.md"
    docs.write_text((ROOT / "docs" / "performance.md").read_text())
    rows, printed = measured(tmp_path, "decoding")
    table = printed[printed.index("| what ") :].strip()
    before, after = (
        docs.read_text().split("<!-- bench: the table")[0],
        docs.read_text().split("bench: end")[1],
    )
    for _ in range(2):
        assert bench("--write-docs", str(tmp_path / "decoding.json"), "--docs", str(docs)).returncode == 0
    text = docs.read_text()
    assert text.count(table) == text.count("| what ") == 1
    assert text.startswith(before)
    assert text.endswith(after)
    assert rows[0]["what"] in table
