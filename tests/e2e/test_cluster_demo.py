"""The walk of docs/cluster.md: a cluster in the demo, whose nodes are killed."""

from __future__ import annotations

import os
import re
import signal
from pathlib import Path

import trio
from asking import Client, eventually
from program import program

DOCUMENT = Path(__file__).parents[2] / "docs" / "cluster.md"
NODE = re.compile(r"^  ([\w-]+) +([0-9]+)  (http://\S+)$", re.MULTILINE)


def walk() -> tuple[list[str], list[str]]:
    """The commands of the section, and what it shows."""
    text = DOCUMENT.read_text(encoding="utf-8").partition("\n## See it\n")[2].partition("\n## ")[0]
    blocks = re.findall(r"^```(\w*)\n(.*?)\n```$", text, re.MULTILINE | re.DOTALL)
    return [block for kind, block in blocks if kind == "sh"], [block for kind, block in blocks if not kind]


def without_numbers(text: str) -> str:
    """The words of an output."""
    return re.sub(r"[0-9]+", "0", re.sub(r" +", " ", text))


def left_in(directory: Path) -> list[Path]:
    """What is in a directory."""
    return sorted(directory.iterdir())


async def test_walk_through_the_demo(tmp_path: Path, server_directory: Path) -> None:
    """An owner is killed: another node takes its exchanges. It is started again. Ctrl-C ends everything."""
    (start, ask, kill), (table, told) = walk()
    assert start == "marketflow demo --nodes 3"
    async with program(tmp_path, *start.split()[1:], "--port", "0", temporary=server_directory) as run:
        await eventually(lambda: "Ctrl-C stops it." in run.stdout, within=90)
        shown = {name: (int(pid), url) for name, pid, url in NODE.findall(run.stdout)}
        documented = NODE.findall(table)
        assert [name for name, *_ in documented] == list(shown)
        (asked,) = (name for name, _, url in documented if ask == f"curl -s {url}/health")
        (victim,) = (name for name, pid, _ in documented if kill == f"kill -9 {pid}")
        client = Client(shown[asked][1])

        async def owners() -> list[str | None]:
            exchanges = (await client.health())["cluster"]["exchanges"]
            return [exchanges[f"exchange{number}"]["owner"] for number in (1, 2, 3)]

        async def shared() -> bool:
            return set(await owners()) == {"ingest-1", "ingest-2"}

        async def taken() -> bool:
            return set(await owners()) == {"ingest-2"}

        await eventually(shared, within=60)
        await trio.run_process([*kill.split()[:2], str(shown[victim][0])])
        await eventually(taken, within=30)
        words = {without_numbers(line) for line in run.stdout.splitlines()}
        assert {without_numbers(line) for line in told.splitlines()} <= words
        await eventually(lambda: f"{victim}  serves again" in run.stdout, within=90)
        await eventually(shared, within=60)

        os.killpg(run.process.pid, signal.SIGINT)
        assert await run.ended(within=30) == 0
    for name in shown:
        assert re.search(rf"  {name} +has stopped\n", run.stdout)
    assert run.stderr == ""
    assert left_in(server_directory) == []
