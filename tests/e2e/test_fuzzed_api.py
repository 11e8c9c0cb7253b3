"""Schemathesis tests on the live service that the API is as its description says."""

from __future__ import annotations

import http.client
import itertools
import json
import os
import subprocess
import sys
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio
from asking import eventually
from exchange_server import ExchangeServer
from serving import Service, running
from traffic import Sent, lines, now

from marketflow.config import Settings
from marketflow.config.settings import GeneratorSettings, HttpSettings

HERE = Path(__file__).parent
TOKEN = "s3cret"  # noqa: S105
SYMBOLS = ("BTCUSDT", "ETHUSDT")
"""Only two, since each one adds requests."""
EXAMPLES = 5
"""Random examples for each operation. To search for more faults, raise it and vary the seed."""
SEED = 1


@pytest.mark.parametrize(
    "selected",
    [
        {"--phases": "examples,coverage", "--include-tag": "prices"},
        {"--phases": "examples,coverage", "--exclude-tag": "prices"},
        {"--phases": "fuzzing,stateful"},
    ],
    ids=["boundaries of prices", "boundaries of the rest", "at random"],
)
async def test_the_api_is_as_described(
    settings: Settings,
    exchanges: dict[str, ExchangeServer],
    tmp_path: Path,
    selected: dict[str, str],
) -> None:
    """It tests the boundary values of each parameter, and random values and sequences of requests."""
    settings = attrs.evolve(
        settings,
        mode="test",
        symbols=SYMBOLS,
        exchanges=settings.exchanges[:1],
        generator=GeneratorSettings(exchanges=("test1",)),
        http=HttpSettings(port=0, token=TOKEN),
    )
    async with trio.open_nursery() as nursery:
        nursery.start_soon(send_for_ever, "exchange1", exchanges["exchange1"])
        async with running(settings) as service:
            # Wait until there are prices of every exchange, including those of the other mode.
            await eventually(lambda: told_by(service, "test1"))
            await trio.to_thread.run_sync(switch_to_live, service.client.address)
            await eventually(lambda: told_by(service, "exchange1"))
            report = await fuzzed(f"http://{service.client.address}/openapi.json", selected, tmp_path)
            await eventually(lambda: service.report().status == "ok")
        nursery.cancel_scope.cancel()
    assert report["operations"]["tested"] == report["operations"]["selected"] > 10


def told_by(service: Service, exchange: str) -> bool:
    """Whether an exchange has sent every symbol."""
    return service.report().exchanges[exchange].updates.accepted >= len(SYMBOLS)


def switch_to_live(address: str) -> None:
    connection = http.client.HTTPConnection(address, timeout=10)
    with closing(connection):
        connection.request("POST", "/mode/live", headers={"Authorization": f"Bearer {TOKEN}"})
        assert connection.getresponse().status == 200


async def send_for_ever(name: str, exchange: ExchangeServer) -> None:
    """Send updates of every symbol, as real exchanges do; a switch of the mode ends the connection."""
    while True:
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            await exchange.send(lines(Sent(name, symbol, 100.0, now()) for symbol in SYMBOLS))
        await trio.sleep(0.1)


async def fuzzed(url: str, selected: dict[str, str], directory: Path) -> Any:
    """Run Schemathesis, which fails if an answer is not as described; returns its report."""
    options = {
        "--checks": "all",
        **selected,
        "--max-examples": str(EXAMPLES),
        "--seed": str(SEED),
        "--generation-database": "none",
        "--header": f"Authorization: Bearer {TOKEN}",
        "--report": "json",
        "--report-json-path": "report.json",
    }
    program = [sys.executable, "-m", "schemathesis.cli", "--config-file", str(HERE / "schemathesis.toml")]
    hooks = {"SCHEMATHESIS_HOOKS": "schemathesis_hooks", "PYTHONPATH": os.pathsep.join(sys.path)}
    run = await trio.run_process(
        [*program, "--no-color", "run", url, *itertools.chain(*options.items())],
        cwd=directory,
        env=os.environ | hooks,
        capture_stdout=True,
        stderr=subprocess.STDOUT,
        check=False,
    )
    assert run.returncode == 0, run.stdout.decode()
    return json.loads((directory / "report.json").read_text())
