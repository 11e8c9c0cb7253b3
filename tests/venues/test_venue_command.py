"""The command that runs a fake venue, as users see it."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import trio
from venue_client import connected, endpoint
from venue_forms import GREETING, KINDS, is_trade, requests, trades

LIMIT = 60
"""Seconds that a program may take."""


def start(directory: Path, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "marketflow", "venue", *arguments, "--port", "0"],
        cwd=directory,
        env={name: value for name, value in os.environ.items() if not name.startswith("MARKETFLOW_")},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize("kind", KINDS)
async def test_it_prints_how_to_connect_and_serves_until_a_signal(kind: str, tmp_path: Path) -> None:
    """The five lines are what config.toml needs, and the URL in them works."""
    with start(tmp_path, kind) as process:
        try:
            lines = await trio.to_thread.run_sync(read_introduction, process)
            (exchange,) = tomllib.loads("\n".join(lines[3:-1]))["exchanges"]
            async with connected(await endpoint(exchange["url"])) as client:
                if kind in GREETING:
                    await client.text()
                symbols = list(exchange["symbols"].values())
                await client.send(*requests(kind, symbols))
                while not is_trade(kind, message := await client.text()):
                    pass
            process.send_signal(signal.SIGINT)
            out, err = await trio.to_thread.run_sync(lambda: process.communicate(timeout=LIMIT))
        finally:
            process.kill()
    assert lines[0] == f"{kind} listens at {exchange['url']}"
    assert (exchange["name"], exchange["kind"]) == (kind, kind)
    assert list(exchange["symbols"]) == ["BTCUSDT", "DOGEUSDT", "TONUSDT", "SOLUSDT", "ETHUSDT"]
    assert trades(kind, message, client.channels)[0].symbol in symbols
    assert process.returncode == 0
    assert re.fullmatch(r"\d+ trades, 1 connections, 0 violations of the rules\n", out)
    assert "Traceback" not in err


def read_introduction(process: subprocess.Popen[str]) -> list[str]:
    """The lines up to the last one."""
    assert process.stdout is not None
    lines: list[str] = []
    while not lines or not lines[-1].startswith("Ctrl-C"):
        line = process.stdout.readline()
        assert line
        lines.append(line.rstrip("\n"))
    return lines


async def test_it_has_the_faults_of_its_options_and_reports_violations(tmp_path: Path) -> None:
    arguments = [
        "gateio",
        "--symbols",
        "BTC_USDT",
        "--rate",
        "2000",
        "--duplicate",
        "1",
        "--log-level",
        "error",
    ]
    with start(tmp_path, *arguments) as process:
        try:
            lines = await trio.to_thread.run_sync(read_introduction, process)
            url = lines[0].split()[-1]
            async with connected(url) as client:
                await client.send(*requests("gateio", ["BTC_USDT"]))
                await client.text()
                ids = [trades("gateio", await client.text())[0].id for _ in range(100)]
            with pytest.raises(Exception, match="404"):
                async with connected(f"{url}wrong"):
                    pass
            process.send_signal(signal.SIGTERM)
            out, err = await trio.to_thread.run_sync(lambda: process.communicate(timeout=LIMIT))
        finally:
            process.kill()
    assert ids == [ids[0] + number // 2 for number in range(100)]
    assert out.splitlines()[1:] == ["connection to /ws/v4/wrong, which is not /ws/v4/"]
    assert (process.returncode, err) == (0, "")
