"""Commands in documents print what the documents show, and files that documents name exist."""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import socket
import sys
from contextlib import suppress
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import trio
import yaml
from console import alike, commands, open_shell

from marketflow.adapters.exchange.checks import Checks
from marketflow.adapters.exchange.lines import Lines
from marketflow.adapters.exchange.simulator import simulate
from marketflow.adapters.exchange.wire import Decoder
from marketflow.adapters.http.description.operations import operations
from marketflow.adapters.http.kinds import KINDS
from marketflow.cli import commands as program
from marketflow.config import ExchangeSettings, HttpSettings, PostgresSettings, RedisSettings, Settings
from marketflow.domain.periods import MINUTE
from marketflow.domain.prices import REASONS, SYMBOLS
from marketflow.service import serve

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
API = ROOT / "docs" / "api.md"
COMMANDS = ROOT / "docs" / "commands.md"
WIRE = ROOT / "docs" / "wire.md"
DOCUMENTS = (README, ROOT / "CHANGELOG.md", *(ROOT / "docs").glob("*.md"), *(ROOT / "deploy").glob("*.md"))

PORTS = range(10_000, 20_000)
"""Below the ephemeral ports and those of the embedded servers, so that no client gets one by chance."""


def free_ports(shown: list[str]) -> dict[str, str]:
    """Free ports, by the ports in the document."""
    ports: dict[str, str] = {}
    while len(ports) < len(shown):
        port = random.choice(PORTS)
        with suppress(OSError), socket.create_server(("127.0.0.1", port)):
            if str(port) not in ports.values():
                ports[shown[len(ports)]] = str(port)
    return ports


@pytest.fixture
def programs(server_directory: Path) -> dict[str, str]:
    """An environment without settings, whose `marketflow` is the one under test."""
    directory = server_directory / "bin"
    directory.mkdir()
    (directory / "marketflow").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m marketflow "$@"\n')
    (directory / "marketflow").chmod(0o755)
    clean = {name: value for name, value in os.environ.items() if not name.startswith("MARKETFLOW_")}
    return clean | {"PATH": f"{directory}:{os.environ['PATH']}"}


@pytest.mark.skipif(shutil.which("curl") is None, reason="the documents ask with curl")
async def test_quick_start_says_what_is_shown(server_directory: Path, programs: dict[str, str]) -> None:
    """The quick start and the README's first look show the real output, with one service."""
    ports = free_ports(["8080", "40101", "40102", "40103"])
    state = server_directory / "state"
    env = programs | {
        "MARKETFLOW_HTTP__PORT": ports["8080"],
        "MARKETFLOW_EXCHANGES": json.dumps(
            [
                {"name": name, "host": "127.0.0.1", "port": int(ports[port])}
                for name, port in (("exchange1", "40101"), ("exchange2", "40102"), ("exchange3", "40103"))
            ]
        ),
    }

    def fit(line: str) -> str:
        line = re.sub(r"\b(8080|4010[123])\b", lambda found: ports[found[0]], line)
        return line.replace("/tmp/marketflow", str(state))  # noqa: S108

    first_look = commands(README)
    quick_start = commands(ROOT / "docs" / "quickstart.md")
    assert all(command.asks and command.shown for command in first_look)
    started = next(place for place, command in enumerate(quick_start) if command.line == "kill $exchange1")

    async with open_shell(server_directory, env) as shell:
        for command in [*quick_start[:started], *first_look, *quick_start[started:]]:
            await shell.check(command, fit)
    assert (state / "embedded").is_dir()


@pytest.mark.skipif(shutil.which("curl") is None, reason="the documents ask with curl")
async def test_exchange_of_the_wire_page_works(server_directory: Path, programs: dict[str, str]) -> None:
    """The ten lines of Python work as an exchange, and the service reads from it."""
    ports = free_ports(["8080", "40101"])
    state = server_directory / "state"
    env = programs | {"MARKETFLOW_HTTP__PORT": ports["8080"], "MARKETFLOW_STATE_DIR": str(state)}

    def fit(text: str) -> str:
        text = text.replace("python3", sys.executable)
        return re.sub(r"\b(8080|40101)\b", lambda found: ports[found[0]], text)

    (sender,) = re.findall(r"^```python\n(.*?)^```", WIRE.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    assert len([line for line in sender.splitlines() if line]) == 10
    await trio.Path(server_directory / "sender.py").write_text(fit(sender))

    async with open_shell(server_directory, env) as shell:
        for command in commands(WIRE):
            await shell.check(command, fit)


def test_lines_of_the_wire_page_are_accepted() -> None:
    """The examples of a line are good ones, and what the page says about volumes is so."""
    text = WIRE.read_text(encoding="utf-8")
    (block,) = re.findall(r"^```json\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    plain, traded = block.encode().splitlines(keepends=True)
    checks = Checks(symbols=frozenset(SYMBOLS), interval=MINUTE, lateness=2 * MINUTE)

    def columns(line: bytes) -> tuple[object, object, int]:
        decoded = Decoder(checks)(Lines(line, 0, json.loads(line)["timestamp"], 0.0))
        assert decoded.accepted == 1
        (updates,) = decoded.updates
        return updates.columns.volumes, updates.columns.sides, decoded.ignored_volumes

    assert columns(plain) == (None, None, 0)
    assert columns(traded) == ([0.0125], ["buy"], 0)
    for ignored in (b'"0.5"', b"true", b"null", b"-1", b"1.1e18"):
        assert columns(traded.replace(b"0.0125", ignored)) == (None, None, 1)
    assert columns(traded.replace(b"100150.75", b"1e300")) == (None, None, 1)
    assert columns(traded.replace(b"0.0125", b"0")) == ([0.0], ["buy"], 0)
    assert columns(traded.replace(b'"buy"', b'"BUY"')) == ([0.0125], None, 0)
    assert columns(traded.replace(b'"volume":0.0125,', b"")) == (None, None, 0)


def test_wire_page_has_every_reason() -> None:
    """The reasons are in the order in which they are checked."""
    text = WIRE.read_text(encoding="utf-8")
    (table,) = re.findall(r"^\| reason \| the line \|\n(.*?)\n\n", text, re.MULTILINE | re.DOTALL)

    assert re.findall(r"^\| `(\w+)`", table, re.MULTILINE) == list(REASONS)


@pytest.mark.skipif(shutil.which("curl") is None, reason="the documents ask with curl")
@pytest.mark.parametrize(("document", "token"), [(API, "secret"), (COMMANDS, None)], ids=["api", "commands"])
async def test_guide_says_what_is_shown(
    document: Path,
    token: str | None,
    programs: dict[str, str],
    redis_url: str,
    postgres_dsn: str,
    tmp_path: Path,
) -> None:
    """The guides show the real output of a new service with three exchanges."""
    stopping = trio.Event()
    async with trio.open_nursery() as nursery:
        settings = Settings(
            exchanges=tuple(
                [
                    ExchangeSettings(
                        name,
                        "127.0.0.1",
                        await nursery.start(
                            partial(simulate, name=name, host="127.0.0.1", port=0, walk="fair", volumes=True)
                        ),
                    )
                    for name in ("exchange1", "exchange2", "exchange3")
                ]
            ),
            http=HttpSettings(port=0, token=token),
            redis=RedisSettings(url=redis_url),
            postgres=PostgresSettings(dsn=postgres_dsn),
            state_dir=tmp_path,
        )
        async with trio.open_nursery() as service:
            url = (await service.start(serve, settings, stopping)).url
            address = urlsplit(url).netloc
            async with open_shell(tmp_path, programs | {"MARKETFLOW_URL": url}) as shell:
                for command in commands(document):
                    await shell.check(command, lambda line: line.replace("localhost:8080", address))
            stopping.set()
        nursery.cancel_scope.cancel()


def test_api_guide_has_every_route() -> None:
    """The guide has all routes, except for files of pages and the variants with an exchange in the path."""
    text = API.read_text(encoding="utf-8")
    left_out = ("/{exchange}/{symbol}", "/{file}", "/{name}", "/{kind}")
    asked = {operation.path for operation in operations() if not operation.path.endswith(left_out)}

    assert "/prices/latest/{symbol}" in asked
    assert sorted(path for path in asked if not re.search(rf"`(GET|POST|WS) {re.escape(path)}`", text)) == []


def test_commands_are_explained() -> None:
    """The table has every command."""
    text = COMMANDS.read_text(encoding="utf-8")
    (table,) = re.findall(r"^\| command \| does \|\n(.*?)\n\n", text, re.MULTILINE | re.DOTALL)

    assert program.commands
    assert [name for name in program.commands if not re.search(rf"`(marketflow )?{name}`", table)] == []


def test_every_alert_is_explained() -> None:
    """The document has all alerts, with their severity, in the same order."""
    rules = yaml.safe_load((ROOT / "deploy" / "alerts.yml").read_text(encoding="utf-8"))
    alerts = [
        (rule["alert"], rule["labels"]["severity"]) for group in rules["groups"] for rule in group["rules"]
    ]
    text = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")

    assert alerts
    assert alerts == re.findall(r"^- \*\*`(\w+)`\*\* \((\w+)\)", text, re.MULTILINE)


def test_events_of_the_log_are_there() -> None:
    """Each explained event is logged somewhere in the code."""
    text = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
    (table,) = re.findall(r"^\| event \| meaning \|\n(.*?)\n\n", text, re.MULTILINE | re.DOTALL)
    explained = re.findall(r"`([^`]+)`", "\n".join(row.split("|")[1] for row in table.splitlines()))
    sources = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "marketflow").rglob("*.py"))

    assert explained
    assert [event for event in explained if f'"{event}"' not in sources] == []


def test_api_guide_has_every_problem() -> None:
    text = API.read_text(encoding="utf-8")
    rows = {f"| {kind.status.value} | `{kind.name}` | {kind.meaning} |" for kind in KINDS.values()}

    assert sorted(row for row in rows if row not in text) == []


@pytest.mark.parametrize(
    ("shown", "said", "expected"),
    [
        ('{"status":"ok"}', '{"status": "ok"}', True),
        ('{"status":"ok"}', '{"status":"degraded"}', False),
        ('{"status":"ok"}', '{"status":"ok","more":1}', False),
        ('{"status":"ok",…}', '{"status":"ok","more":1}', True),
        ('{…,"status":"ok",…}', '{"more":1}', False),
        ('{"a":{…,"b":{"c":"d"}},…}', '{"a":{"b":{"c":"e"}}}', False),
        ('{"price":1.5}', '{"price":2.5}', True),
        ('{"price":1.5}', '{"price":"2.5"}', False),
        ('{"price":1.5}', '{"price":null}', False),
        ('{"reconnects":1}', '{"reconnects":2}', False),
        ('{"changed":true}', '{"changed":false}', False),
        ('{"changed":true}', '{"changed":1}', False),
        ('{"exchange":"exchange1"}', '{"exchange":"exchange3"}', True),
        ('{"exchange":"exchange1"}', '{"exchange":"test1"}', False),
        ('{"exchange":null}', '{"exchange":"exchange1"}', False),
        ('{"prices":[{"a":"b"}]}', '{"prices":[]}', False),
        ('{"status":"ok"}', "", False),
        ("", "curl: option --xyz: is unknown", False),
        ("exit code 0", "exit code 1\n", False),
        ("exit code 0", "exit code 0\n", True),
        ('id: 12\ndata: {"price":1.5}', 'id: 34\ndata: {"price":2.5}\n', True),
        ('id: 12\ndata: {"price":1.5}', 'id: 34\ndata: {"prize":2.5}\n', False),
        ('id: 12\ndata: {"price":1.5}', "id: 34\n", False),
        ("id: 12", "id: ab", False),
        ('up{exchange="a"} 1.0', 'up{exchange="a"} 20.0', True),
        ('up{exchange="a"} 1.0', 'up{exchange="b"} 1.0', False),
        ("a     price  time\nx1  10.5", "a   price  time\nx3  9.25", True),
        ("a     price  time\nx1  10.5", "a   price  time\ny3  9.25", False),
        ("2026-01-01T00:00:00Z x1 1", "2027-02-02T00:00:00Z x2 3.5", True),
    ],
)
def test_what_is_shown_is_compared(shown: str, said: str, expected: bool) -> None:
    """The comparison finds differences."""
    assert alike(shown, said) is expected


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_what_documents_name_is_there(document: Path) -> None:
    """Linked files, and paths of code and tests in backticks, exist."""
    text = document.read_text(encoding="utf-8")
    links = re.findall(r"\]\((?!https?:|#)([^)#]+)", text)
    named = re.findall(r"`((?:marketflow|tests|docs|deploy)/[\w./-]+)`", text)
    gone = [name for name in links if not (document.parent / name).exists()]
    gone += [name for name in named if not (ROOT / name).exists()]
    assert gone == []
