"""Reads the console blocks of a document, runs them in a shell, and compares the output with the document."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path

import attrs
import trio

LIMIT = 60
"""Seconds until the output must match; a first start creates a database, slowly on a busy machine."""

STABLE = {"reconnects", "expired", "pending"}
"""The numbers that are the same in every run; of all others only the type is compared."""

_EVENT_ID = re.compile(r"id: [0-9]+")
_EVENT_DATA = re.compile(r"data: (\{.*\})")
_SAMPLE = re.compile(r"(\w+(?:\{.*\})?) [0-9.e+-]+")
_ROW = re.compile(r".*\S  +\S.*|[0-9]{4}-[0-9]{2}-[0-9]{2}T.*")
_NUMBER = re.compile(r"[0-9][0-9.:TZ-]*")
_QUESTION = re.compile(r"curl (?!.* -X)|marketflow (?:prices|candles|health|watch|mode$)")


@attrs.frozen
class Command:
    """A line after a `$`, and the output that the document shows for it."""

    line: str
    shown: str

    @property
    def asks(self) -> bool:
        """Whether it only queries, so that it may be repeated until the output matches."""
        return _QUESTION.match(self.line) is not None


def commands(document: Path, title: str | None = None) -> list[Command]:
    """The commands of a document's `console` blocks in order, or of the section with this title."""
    text = document.read_text(encoding="utf-8")
    if title is not None:
        pattern = rf"^## {re.escape(title)}\n(.*?)(?=^## |\Z)"
        (text,) = re.findall(pattern, text, re.MULTILINE | re.DOTALL)
    found = []
    for block in re.findall(r"^```console\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        for each in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            line, _, shown = each.partition("\n")
            found.append(Command(line, shown.strip()))
    return found


# ---- compared ----


def alike(shown: str, said: str) -> bool:
    """Whether the output matches the document: JSON and numbers by shape, any other text exactly."""
    if shown.startswith("{"):
        return _alike_json(shown, said)
    lines = shown.splitlines(), said.strip().splitlines()
    return len(lines[0]) == len(lines[1]) and all(map(_alike_line, *lines))


def _alike_json(shown: str, said: str) -> bool:
    try:
        real = json.loads(said)
    except ValueError:
        return False
    return same(json.loads(shown.replace("…", '"…":0')), real)


def _alike_line(shown: str, said: str) -> bool:
    """Whether lines of text, of an event stream, of metrics or of a table match."""
    if (one := _EVENT_DATA.fullmatch(shown)) and (other := _EVENT_DATA.fullmatch(said)):
        return _alike_json(one[1], other[1])
    if (one := _SAMPLE.fullmatch(shown)) and (other := _SAMPLE.fullmatch(said)):
        return one[1] == other[1]
    if _ROW.fullmatch(shown) and _ROW.fullmatch(said):
        return _cells(shown) == _cells(said)
    return shown == said or bool(_EVENT_ID.fullmatch(shown) and _EVENT_ID.fullmatch(said))


def _cells(row: str) -> list[str]:
    """The cells of a row, without numbers and times (and so without the number in an exchange's name)."""
    return _NUMBER.sub("0", row).split()


def same(shown: object, real: object, name: str = "") -> bool:
    """Whether keys and values are equal, except for numbers and exchanges. `…` allows further ones."""
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


def assert_adds_up(ledger: dict) -> None:
    """Check that every line is accounted for."""
    assert ledger["received"] == ledger["accepted"] + sum(ledger["rejected"].values())
    settled = ledger["cached"] + ledger["expired"] + sum(ledger["dropped"].values())
    assert ledger["accepted"] == settled + ledger["pending"]


# ---- run ----


class Shell:
    """A shell that runs one line after the other."""

    def __init__(self, process: trio.Process) -> None:
        self._process = process
        self._said = b""

    async def run(self, line: str) -> str:
        """Run a line; returns its stdout."""
        mark = b"--- done ---\n"
        await self._process.stdin.send_all(f"{line}\nprintf '\\n%s'  '{mark.decode()}'\n".encode())
        while mark not in self._said:
            more = await self._process.stdout.receive_some()
            assert more, "the shell has ended"
            self._said += more
        said, _, self._said = self._said.partition(b"\n" + mark)
        return said.decode()

    async def check(self, command: Command, fit: Callable[[str], str]) -> None:
        """Run a command and check its output; a query is repeated until it matches.

        Args:
            command: from the document.
            fit: changes the line before it is run.
        """
        line = fit(command.line)
        with trio.fail_after(LIMIT):
            said = await self.run(line)
        with trio.move_on_after(LIMIT):
            while command.asks and not alike(command.shown, said):
                await trio.sleep(0.02)
                said = await self.run(line)
        assert alike(command.shown, said), f"$ {command.line}\nshown: {command.shown}\nsaid:  {said}"
        if command.shown.startswith("{"):
            for ledger in ledgers(json.loads(said)):
                assert_adds_up(ledger)


async def end_group(group: int) -> None:
    """End a group of processes: in order if there is time, so that servers finish their work."""
    with suppress(ProcessLookupError):
        os.killpg(group, signal.SIGTERM)
        for _ in range(100):
            os.killpg(group, 0)
            await trio.sleep(0.05)
        os.killpg(group, signal.SIGKILL)


@asynccontextmanager
async def open_shell(directory: Path, env: Mapping[str, str]) -> AsyncIterator[Shell]:
    """A shell in a directory. Everything that it has started ends with it."""
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
