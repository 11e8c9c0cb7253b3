"""With its output blocked and its terminal closed, the service still answers, and stops cleanly."""

from __future__ import annotations

import fcntl
import os
import pty
import signal
import socket
import subprocess
import sys
import termios
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import ExitStack, asynccontextmanager, closing, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio
from asking import Client, eventually
from program import program

LIMIT = 30.0
NOWHERE = "127.0.0.1:9"
"""Only root could listen there."""
FULL = Path("/dev/full")


def free_port() -> int:
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        port: int = listener.getsockname()[1]
        return port


@asynccontextmanager
async def serving(
    directory: Path,
    *arguments: str,
    through: Sequence[str] = (),
    prepared: Callable[[], object] | None = None,
    **options: Any,
) -> AsyncIterator[tuple[trio.Process, Client]]:
    """Run `marketflow serve` without stores, until it answers.

    Args:
        directory: its working directory.
        arguments: further arguments.
        through: a command that runs it.
        prepared: called in the new process.
        options: further options of the process, such as its stdout and stderr.
    """
    port = free_port()
    clean = {name: value for name, value in os.environ.items() if not name.startswith("MARKETFLOW_")}
    process = await trio.lowlevel.open_process(
        [*through, sys.executable, "-m", "marketflow", "serve", "--port", str(port), *arguments],
        stdin=subprocess.DEVNULL,
        cwd=directory,
        env=clean
        | {
            "MARKETFLOW_EXCHANGES": '[{"name":"e","host":"127.0.0.1","port":9}]',
            "MARKETFLOW_REDIS__URL": f"redis://{NOWHERE}/0",
            "MARKETFLOW_POSTGRES__DSN": f"postgresql://u@{NOWHERE}/d",
            "MARKETFLOW_STATE_DIR": str(directory),
        },
        preexec_fn=prepared,
        **options,
    )
    client = Client(f"http://127.0.0.1:{port}")

    async def answers() -> bool:
        assert process.returncode is None
        with suppress(OSError):
            return (await client.get("/health/ready"))[0] == 200
        return False

    try:
        await eventually(answers, within=LIMIT)
        yield process, client
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        with trio.CancelScope(shield=True):
            await process.wait()


async def ended(process: trio.Process, within: float = 10.0) -> int:
    with trio.fail_after(within):
        return await process.wait()


@contextmanager
def output(kind: str) -> Iterator[int]:
    """A descriptor to which nothing can be written."""
    with ExitStack() as stack:
        if kind == "full":
            if not FULL.exists():
                pytest.skip("needs /dev/full")
            yield stack.enter_context(FULL.open("wb", 0)).fileno()
            return
        reading, writing = os.pipe()
        stack.callback(os.close, writing)
        if kind == "broken":
            os.close(reading)
        else:
            stack.callback(os.close, reading)
            os.set_blocking(writing, False)
            with suppress(BlockingIOError):
                while True:
                    os.write(writing, b"x" * 65_536)
            with suppress(BlockingIOError):
                while True:
                    os.write(writing, b"x")
            os.set_blocking(writing, True)
        yield writing


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("kind", ["full", "broken", "blocked"])
async def test_output_that_nobody_takes(tmp_path: Path, kind: str, number: signal.Signals) -> None:
    """It still serves with the most verbose log, and stops in time with exit code 0."""
    with output(kind) as descriptor:
        async with serving(tmp_path, "--log-level", "debug", stdout=descriptor, stderr=descriptor) as (
            process,
            client,
        ):
            for _ in range(20):
                assert (await client.get("/health/live"))[0] == 200
            process.send_signal(number)
            assert await ended(process) == 0


async def test_output_that_is_closed(tmp_path: Path) -> None:
    """With stderr closed, no file or socket that it opens gets log lines."""
    async with serving(tmp_path, through=("sh", "-c", 'exec "$@" >&- 2>&-', "sh")) as (process, client):
        standard = [os.readlink(f"/proc/{process.pid}/fd/{number}") for number in (1, 2)]  # noqa: PTH115
        assert standard == [os.devnull, os.devnull]
        assert (await client.get("/health/live"))[0] == 200
        process.send_signal(signal.SIGTERM)
        assert await ended(process) == 0


async def test_an_error_that_nobody_reads(tmp_path: Path) -> None:
    """If stderr is blocked, the exit code still comes in time."""
    with closing(socket.create_server(("127.0.0.1", 0))) as taken, output("blocked") as descriptor:
        process = await trio.lowlevel.open_process(
            [sys.executable, "-m", "marketflow", "exchange", "--port", str(taken.getsockname()[1])],
            stdout=descriptor,
            stderr=descriptor,
            cwd=tmp_path,
        )
        assert await ended(process, LIMIT) == 1


async def test_a_terminal_that_is_closed(tmp_path: Path) -> None:
    """The kernel sends SIGHUP, and writes to stderr fail from then on; the stop is clean."""
    controlling, terminal = pty.openpty()
    async with serving(
        tmp_path, stdout=terminal, stderr=terminal, start_new_session=True, prepared=attach_terminal
    ) as (process, _):
        os.close(terminal)
        os.close(controlling)
        assert await ended(process) == 0


def attach_terminal() -> None:
    """Make stderr the controlling terminal of this process, which leads a new session."""
    fcntl.ioctl(2, termios.TIOCSCTTY, 0)


async def test_under_nohup_it_outlives_its_terminal(tmp_path: Path) -> None:
    """SIGHUP was ignored when it started, so it goes on."""
    ignore = partial(signal.signal, signal.SIGHUP, signal.SIG_IGN)
    async with serving(tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, prepared=ignore) as (
        process,
        client,
    ):
        process.send_signal(signal.SIGHUP)
        await trio.sleep(0.5)  # time for an unwanted stop to happen
        assert (await client.get("/health/live"))[0] == 200
        process.send_signal(signal.SIGTERM)
        assert await ended(process) == 0


async def test_a_simulated_exchange_ends_with_its_terminal(tmp_path: Path) -> None:
    async with program(tmp_path, "exchange", "--port", "0", "--log-format", "json") as run:
        await eventually(lambda: run.events)
        run.signal(signal.SIGHUP)
        assert await run.ended() == 0


async def test_the_demo_ends_with_its_terminal(tmp_path: Path) -> None:
    """Its servers end too, and it still writes its summary."""
    async with program(tmp_path, "demo", "--port", "0", temporary=tmp_path) as run:
        await eventually(lambda: "Ctrl-C stops it" in run.stdout, within=60)
        run.signal(signal.SIGHUP)
        assert await run.ended(within=30) == 0
        assert "the ledger adds up" in run.stdout


async def test_the_demo_on_a_full_disk(tmp_path: Path) -> None:
    """Only its output is lost."""
    with output("full") as full:
        process = await trio.lowlevel.open_process(
            [sys.executable, "-m", "marketflow", "demo", "--port", "0", "--duration", "1"],
            stdout=full,
            stderr=full,
            cwd=tmp_path,
        )
        assert await ended(process, 60) == 0
