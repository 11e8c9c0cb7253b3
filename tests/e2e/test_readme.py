"""The README's commands are run, and it shows what they really say. Links in the documents lead somewhere."""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path

import attrs
import pytest
import trio

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
DOCUMENTS = (README, ROOT / "CHANGELOG.md", *(ROOT / "docs").glob("*.md"), *(ROOT / "deploy").glob("*.md"))

LIMIT = 30
"""Seconds until an answer must be the one shown: a first start makes a database."""

PORTS = range(20_000, 32_768)
"""Below the ephemeral ports: nobody gets one of these while an exchange is down."""

STABLE = {"reconnects", "expired", "pending"}
"""Numbers that are the same from run to run; of others only the type is compared."""


@attrs.frozen
class Command:
    """A line after a `$`, and what is shown to come of it."""

    line: str
    shown: str

    @property
    def asks(self) -> bool:
        """Whether it only asks: it may be repeated until things have come so far."""
        return self.line.startswith("curl ") and "-X" not in self.line


def commands(title: str) -> list[Command]:
    """Those of a section's `console` blocks, in order."""
    text = README.read_text(encoding="utf-8")
    (section,) = re.findall(rf"^## {re.escape(title)}\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
    found = []
    for block in re.findall(r"^```console\n(.*?)^```", section, re.MULTILINE | re.DOTALL):
        for each in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            line, _, shown = each.partition("\n")
            found.append(Command(line, shown.strip()))
    return found


def alike(shown: str, said: str) -> bool:
    """Whether a command said what is shown: JSON in shape, any other text to the letter."""
    if not shown.startswith("{"):
        return shown == said.strip()
    try:
        real = json.loads(said)
    except ValueError:
        return False
    return same(json.loads(shown.replace("…", '"…":0')), real)


def same(shown: object, real: object, name: str = "") -> bool:
    """Keys and values are equal, but for numbers and for which exchange of a mode it was. `…`: and others."""
    match shown, real:
        case dict(), dict():
            wanted = {key: value for key, value in shown.items() if key != "…"}
            return (wanted.keys() <= real.keys() if "…" in shown else wanted.keys() == real.keys()) and all(
                same(value, real[key], key) for key, value in wanted.items()
            )
        case list(), list():
            return len(shown) == len(real) and all(map(same, shown, real))
        case str(), str() if name == "exchange":
            return shown.rstrip("123") == real.rstrip("123")
        case (bool(), _) | (_, bool()):
            return shown is real
        case (int(), int()) | (float(), float()):
            return name not in STABLE or shown == real
    return shown == real


def ledgers(said: object) -> Iterator[dict]:
    """The counters of updates within an answer."""
    if isinstance(said, dict):
        if "received" in said:
            yield said
        for value in said.values():
            yield from ledgers(value)


class Shell:
    """A shell that is given one line after another."""

    def __init__(self, process: trio.Process) -> None:
        self._process = process
        self._said = b""

    async def run(self, line: str) -> str:
        """What the line writes to stdout."""
        mark = b"--- done ---\n"
        await self._process.stdin.send_all(f"{line}\nprintf '\\n%s'  '{mark.decode()}'\n".encode())
        while mark not in self._said:
            more = await self._process.stdout.receive_some()
            assert more, "the shell has ended"
            self._said += more
        said, _, self._said = self._said.partition(b"\n" + mark)
        return said.decode()


async def end_group(group: int) -> None:
    """End a group of processes: in good order if there is time, so that servers leave no work half done."""
    with suppress(ProcessLookupError):
        os.killpg(group, signal.SIGTERM)
        for _ in range(100):
            os.killpg(group, 0)
            await trio.sleep(0.05)
        os.killpg(group, signal.SIGKILL)


@asynccontextmanager
async def open_shell(directory: Path, env: dict[str, str]) -> AsyncIterator[Shell]:
    """A shell in a directory; whatever it has started ends with it."""
    async with trio.open_nursery() as nursery:
        process = await nursery.start(
            partial(
                trio.run_process,
                ["sh"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                cwd=directory,
                env=env,
                check=False,
                start_new_session=True,
            )
        )
        try:
            yield Shell(process)
        finally:
            with trio.CancelScope(shield=True):
                await end_group(process.pid)


async def answer(shell: Shell, command: Command, line: str) -> str:
    """What comes of a command; what only asks is asked until it is what is shown, within the limit."""
    with trio.fail_after(LIMIT):
        said = await shell.run(line)
    with trio.move_on_after(LIMIT):
        while command.asks and not alike(command.shown, said):
            await trio.sleep(0.02)
            said = await shell.run(line)
    return said


def free_ports(shown: list[str]) -> dict[str, str]:
    """Free ports in place of those shown."""
    ports: dict[str, str] = {}
    while len(ports) < len(shown):
        port = random.choice(PORTS)
        with suppress(OSError), socket.create_server(("127.0.0.1", port)):
            if str(port) not in ports.values():
                ports[shown[len(ports)]] = str(port)
    return ports


@pytest.mark.skipif(shutil.which("curl") is None, reason="the README asks with curl")
async def test_commands_say_what_is_shown(server_directory: Path) -> None:
    """Those of the first look too, asked of the service that the section on failover starts."""
    ports = free_ports(["8080", "40101", "40102", "40103"])
    state = server_directory / "state"
    # `marketflow` is the one under test, wherever it is installed.
    programs = server_directory / "bin"
    programs.mkdir()
    (programs / "marketflow").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m marketflow "$@"\n')
    (programs / "marketflow").chmod(0o755)
    env = {name: value for name, value in os.environ.items() if not name.startswith("MARKETFLOW_")} | {
        "PATH": f"{programs}:{os.environ['PATH']}",
        "MARKETFLOW_HTTP__PORT": ports["8080"],
        "MARKETFLOW_EXCHANGES": json.dumps(
            [
                {"name": name, "host": "127.0.0.1", "port": int(ports[port])}
                for name, port in (("exchange1", "40101"), ("exchange2", "40102"), ("exchange3", "40103"))
            ]
        ),
    }
    first_look = commands("A first look")
    failover = commands("Failover and modes, shown")
    assert all(command.asks and command.shown for command in first_look)
    started = next(place for place, command in enumerate(failover) if command.line == "kill $exchange1")

    async with open_shell(server_directory, env) as shell:
        for command in [*failover[:started], *first_look, *failover[started:]]:
            line = re.sub(r"\b(8080|4010[123])\b", lambda found: ports[found[0]], command.line)
            line = line.replace("/tmp/marketflow", str(state))  # noqa: S108
            said = await answer(shell, command, line)
            assert alike(command.shown, said), f"$ {command.line}\nshown: {command.shown}\nsaid:  {said}"
            if command.shown.startswith("{"):
                for ledger in ledgers(json.loads(said)):
                    assert_adds_up(ledger)
    assert (state / "embedded").is_dir()


def assert_adds_up(ledger: dict) -> None:
    """Every line is accounted for."""
    assert ledger["received"] == ledger["accepted"] + sum(ledger["rejected"].values())
    settled = ledger["cached"] + ledger["expired"] + sum(ledger["dropped"].values())
    assert ledger["accepted"] == settled + ledger["pending"]


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
    ],
)
def test_what_is_shown_is_compared(shown: str, said: str, expected: bool) -> None:
    """The comparison itself."""
    assert alike(shown, said) is expected


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_what_documents_name_is_there(document: Path) -> None:
    """Links to files, and paths of code and tests in backticks."""
    text = document.read_text(encoding="utf-8")
    links = re.findall(r"\]\((?!https?:|#)([^)#]+)", text)
    named = re.findall(r"`((?:marketflow|tests|docs|deploy)/[\w./-]+)`", text)
    gone = [name for name in links if not (document.parent / name).exists()]
    gone += [name for name in named if not (ROOT / name).exists()]
    assert gone == []
