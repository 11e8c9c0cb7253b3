"""`marketflow watch` on a running service: on a terminal, and into a pipe."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import attrs
import pytest
import trio
from asking import eventually
from exchange_server import ExchangeServer
from program import program
from serving import Service, running
from terminal import CTRL_C, CTRL_Z, terminal
from traffic import SYMBOLS, Sent, lines, now

from marketflow.config import FeedSettings, Settings
from marketflow.service import Running, serve

ALTERNATE_SCREEN, NORMAL_SCREEN = b"\x1b[?1049h", b"\x1b[?1049l"
HIDDEN_CURSOR, SHOWN_CURSOR = b"\x1b[?25l", b"\x1b[?25h"


def url(service: Service) -> str:
    return f"http://{service.client.address}"


async def send(exchange: ExchangeServer, name: str, price: float, symbol: str = "BTCUSDT") -> None:
    await exchange.send(lines([Sent(name, symbol, price, now())]))


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """Settings with which silent exchanges do not become stale."""
    return attrs.evolve(settings, feeds=FeedSettings(stale_after=100_000, idle_timeout=100_000))


# ---- the table ----


async def test_the_table_shows_what_comes(settings, exchanges, tmp_path):
    """It has a row for each symbol, a column for each exchange, the change in colour, and the spread."""
    async with running(settings) as service:
        await send(exchanges["exchange1"], "exchange1", 100_000.0)
        await service.accepted(1)
        async with terminal(tmp_path, "watch", "--url", url(service)) as shown:
            await shown.shows("100000.00", "mode live", "health ok", "exchange1", "exchange3", *SYMBOLS)

            await send(exchanges["exchange1"], "exchange1", 100_100.5)
            await send(exchanges["exchange2"], "exchange2", 100_000.5)
            await shown.shows("100100.50 ▲", "100000.50")
            await send(exchanges["exchange2"], "exchange2", 99_000.5)
            await shown.shows("100100.50 ▲", "99000.50 ▼", "1100.00  1.11%")
            assert shown.colour("100100.50") == "green"
            assert shown.colour("99000.50") == "red"

            shown.press(CTRL_C)
            assert await shown.ended() == 0
            await eventually(lambda: shown.received.endswith(b"\n"))
    assert shown.received.count(ALTERNATE_SCREEN) == shown.received.count(NORMAL_SCREEN) == 1
    assert shown.received.rindex(SHOWN_CURSOR) > shown.received.rindex(HIDDEN_CURSOR)
    # The last state stays on the normal screen.
    left = shown.received[shown.received.rindex(NORMAL_SCREEN) :].decode()
    assert "100100.50" in left
    assert "Traceback" not in left


async def test_an_exchange_that_is_gone_is_marked(settings, exchanges, tmp_path):
    async with running(settings) as service:
        for name, exchange in exchanges.items():
            await send(exchange, name, 100_000.0)
        await service.accepted(3)
        async with terminal(tmp_path, "watch", "BTCUSDT", "--url", url(service)) as shown:
            await shown.shows("100000.00", "connected")
            assert "!" not in shown.text.splitlines()[5]
            assert "ETHUSDT" not in shown.text
            exchanges["exchange2"].kill()
            await shown.shows("reconnecting", "100000.00 !", "health degraded")
            shown.press(CTRL_C)
            assert await shown.ended() == 0


async def test_a_switch_of_the_mode_changes_the_columns(settings, exchanges, tmp_path):
    async with running(settings) as service, terminal(tmp_path, "watch", "--url", url(service)) as shown:
        await shown.shows("exchange1", "mode live")
        assert await asked(tmp_path, service, "mode", "test") == (0, "switched to test\n", "")
        await shown.shows("test1", "test3", "mode test", "▲")
        assert "exchange1" not in shown.text


async def test_a_lost_connection_is_made_again(settings, exchanges, tmp_path):
    """If the service restarts, the table shows the outage and then continues by itself."""
    async with trio.open_nursery() as nursery:
        started, stop = await first_service(nursery, settings)
        await send(exchanges["exchange1"], "exchange1", 1234.0)
        async with terminal(tmp_path, "watch", "--url", started.url, columns=100) as shown:
            await shown.shows("1234.00", "health ok")
            stop()
            await shown.shows("connection lost (", "trying again", "1234.00 !")
            async with running(at_port_of(started, settings)):
                await send(exchanges["exchange1"], "exchange1", 4321.0)
                await shown.shows("4321.00", "health ok")
                assert "connection lost" not in shown.text
                shown.press(CTRL_C)
                assert await shown.ended() == 0


async def first_service(nursery: trio.Nursery, settings: Settings) -> tuple[Running, Callable[[], None]]:
    """A service, and a function that stops it."""
    stopping = trio.Event()
    return await nursery.start(serve, settings, stopping), stopping.set


def at_port_of(started: Running, settings: Settings) -> Settings:
    """The settings with the port of another service."""
    port = int(started.url.rpartition(":")[2])
    return attrs.evolve(settings, http=attrs.evolve(settings.http, port=port))


async def test_ctrl_z_gives_the_terminal_back(settings, exchanges, tmp_path):
    async with running(settings) as service, terminal(tmp_path, "watch", "--url", url(service)) as shown:
        await shown.shows("health ok")
        shown.press(CTRL_Z)
        await eventually(lambda: NORMAL_SCREEN in shown.received)
        await eventually(lambda: state(shown.process.pid) == "T")
        shown.process.send_signal(signal.SIGCONT)
        await eventually(lambda: shown.received.count(ALTERNATE_SCREEN) == 2)
        await send(exchanges["exchange1"], "exchange1", 5.0)
        await shown.shows("5.0000")
        shown.press(CTRL_C)
        assert await shown.ended() == 0


def state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


async def test_nobody_there_is_one_line_on_the_normal_screen(tmp_path):
    async with terminal(tmp_path, "watch", "--url", "http://127.0.0.1:1", columns=200) as shown:
        assert await shown.ended() == 1
        await shown.shows("marketflow: no marketflow answers at http://127.0.0.1:1 (connection refused)")
    assert ALTERNATE_SCREEN not in shown.received


# ---- lines ----


async def asked(directory: Path, service: Service, *arguments: str) -> tuple[int, str, str]:
    """Run a command of the client; returns exit code, stdout and stderr."""
    done = await trio.run_process(
        [sys.executable, "-m", "marketflow", *arguments, "--url", url(service)],
        capture_stdout=True,
        capture_stderr=True,
        check=False,
        cwd=directory,
    )
    return done.returncode, done.stdout.decode(), done.stderr.decode()


async def test_into_a_pipe_it_is_a_line_for_each_price(settings, exchanges, tmp_path):
    """Each line has time, exchange, symbol, exact price, and the volume if there is one; SIGTERM ends it."""
    async with running(settings) as service:
        sent = Sent("exchange1", "BTCUSDT", 100_508.6038528067, 1_000 * (now() // 1_000) + 7)
        await exchanges["exchange1"].send(lines([sent]))
        await service.accepted(1)
        async with program(tmp_path, "watch", environment={"URL": url(service)}) as run:
            await eventually(lambda: run.stdout.endswith("\n"), within=30)
            await send(exchanges["exchange2"], "exchange2", 0.25, "DOGEUSDT")
            await eventually(lambda: run.stdout.count("\n") == 2)
            traded = b'{"symbol":"DOGEUSDT","price":0.5,"timestamp":%d,"volume":0.125}\n' % now()
            await exchanges["exchange2"].send(traded)
            await eventually(lambda: run.stdout.count("\n") == 3)
            run.signal(signal.SIGTERM)
            assert await run.ended() == 0
    first, second, third = run.stdout.splitlines()
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.007Z exchange1 BTCUSDT 100508\.6038528067", first)
    assert second.endswith(" exchange2 DOGEUSDT 0.25")
    assert third.endswith(" exchange2 DOGEUSDT 0.5 0.125")
    assert run.stderr == ""


async def test_json_lines_are_those_of_the_stream(settings, exchanges, tmp_path):
    async with running(settings) as service:
        arguments = ["watch", "--json", "BTCUSDT", "--exchange", "exchange1", "--url", url(service)]
        async with program(tmp_path, *arguments) as run:
            await eventually(lambda: service.report().status == "ok")

            async def one_is_there() -> bool:
                for name in ("exchange1", "exchange2"):
                    await send(exchanges[name], name, 2.5)
                return "\n" in run.stdout

            await eventually(one_is_there, within=30)
            run.signal(signal.SIGINT)
            assert await run.ended() == 0
    told = [json.loads(line) for line in run.stdout.splitlines()]
    assert {(each["exchange"], each["symbol"], each["price"]) for each in told} == {
        ("exchange1", "BTCUSDT", 2.5)
    }
    assert {"timestamp", "source"} < {*told[0]}


async def test_lines_go_on_after_the_connection_was_lost(settings, exchanges, tmp_path):
    """The outage is reported once on stderr."""
    async with trio.open_nursery() as nursery:
        started, stop = await first_service(nursery, settings)
        await send(exchanges["exchange1"], "exchange1", 1.5)
        async with program(tmp_path, "watch", environment={"URL": started.url}) as run:
            await eventually(lambda: " 1.5\n" in run.stdout, within=30)
            stop()
            await eventually(lambda: "trying again\n" in run.stderr)
            async with running(at_port_of(started, settings)):
                await send(exchanges["exchange1"], "exchange1", 2.5)
                await eventually(lambda: " 2.5\n" in run.stdout)
                run.signal(signal.SIGINT)
                assert await run.ended() == 0
    lost, again = run.stderr.splitlines()
    assert lost.startswith("marketflow: connection lost (")
    assert again == "marketflow: connected again"


async def test_a_reader_that_has_seen_enough_ends_it(settings, exchanges, tmp_path):
    """`marketflow watch | head -1` ends."""
    async with running(settings) as service:
        reading, writing = os.pipe()
        process = await trio.lowlevel.open_process(
            [sys.executable, "-m", "marketflow", "watch", "--url", url(service)],
            stdout=writing,
            stderr=subprocess.PIPE,
            cwd=tmp_path,
        )
        os.close(writing)
        await send(exchanges["exchange1"], "exchange1", 1.5)
        with trio.fail_after(40):
            await trio.lowlevel.wait_readable(reading)
            assert b" 1.5\n" in os.read(reading, 1_000)
            os.close(reading)
            while process.returncode is None:
                await send(exchanges["exchange1"], "exchange1", 2.5)
                await trio.sleep(0.05)
        assert process.returncode == 0
        assert await process.stderr.receive_some() == b""


async def test_a_reader_that_does_not_read_keeps_nobody_from_ending(settings, exchanges, tmp_path):
    """Ctrl-C ends it even if the pipe is full."""
    async with running(settings) as service:
        reading, writing = os.pipe()
        process = await trio.lowlevel.open_process(
            [sys.executable, "-m", "marketflow", "watch", "--json", "--url", url(service)],
            stdout=writing,
            cwd=tmp_path,
        )
        os.set_blocking(writing, False)
        await send(exchanges["exchange1"], "exchange1", 1.5)
        with trio.fail_after(40):
            await trio.lowlevel.wait_readable(reading)  # it is connected
            fill(writing)
            os.set_blocking(writing, True)
            for _ in range(10):
                await send(exchanges["exchange1"], "exchange1", 2.5)
                await trio.sleep(0.05)
            process.send_signal(signal.SIGINT)
            assert await process.wait() == 0
        os.close(reading)
        os.close(writing)


def fill(pipe: int) -> None:
    try:
        while True:
            os.write(pipe, b"x" * 4096)
    except BlockingIOError:
        return
