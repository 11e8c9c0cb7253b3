"""The commands that query a running service: their output, and their errors.

Most run in this process, in a thread beside the service: it is the same code and starts faster.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import attrs
import pytest
import trio
from asking import eventually
from raw_server import json_answer, raw_server, silent, with_bytes
from serving import Service, running
from structlog.testing import capture_logs
from traffic import Sent, lines, now

from marketflow import cli
from marketflow.config import FeedSettings

PROBLEM = "application/problem+json"


class Shell:
    """Runs commands in its own environment and directory."""

    def __init__(
        self, directory: Path, environment: pytest.MonkeyPatch, output: pytest.CaptureFixture
    ) -> None:
        self.directory = directory
        self._environment = environment
        self._output = output
        environment.chdir(directory)
        for name in os.environ:
            if name.startswith("MARKETFLOW_"):
                environment.delenv(name)

    def at(self, url: object) -> Self:
        """Use the service at this address from now on."""
        self._environment.setenv("MARKETFLOW_URL", str(url))
        return self

    async def run(self, *arguments: str) -> tuple[int, str, str]:
        """Run a command to its end; returns exit code, stdout and stderr."""
        self._output.readouterr()
        with trio.fail_after(30):
            code = await trio.to_thread.run_sync(cli.run, arguments)
        return code, *self._output.readouterr()

    async def printed(self, *arguments: str) -> list[list[str]]:
        """The words of each line that a successful run prints."""
        code, out, err = await self.run(*arguments)
        assert (code, err) == (0, "")
        return [line.split() for line in out.splitlines()]


@pytest.fixture
def shell(tmp_path, monkeypatch, capsys) -> Iterator[Shell]:
    """A Shell in an empty directory. The service's log goes elsewhere."""
    with capture_logs():
        yield Shell(tmp_path, monkeypatch, capsys)


async def test_every_question(settings, exchanges, shell):
    """The answers contain what was sent: as text, and with --json exactly as the service answers."""
    calm = attrs.evolve(settings, feeds=FeedSettings(stale_after=100_000, idle_timeout=100_000))
    async with running(calm) as service:
        at = now() - 3_000  # old enough for answers in whole seconds
        for price in (100.5, 103.25, 99.25):
            await exchanges["exchange1"].send(lines([Sent("exchange1", "BTCUSDT", price, at)]))
        await exchanges["exchange2"].send(lines([Sent("exchange2", "BTCUSDT", 1.5, at - 1)]))
        await service.accepted(4)
        await eventually(lambda: service.report().updates.cached == 4)
        shell.at(f"http://{service.client.address}")

        head, *rows = await shell.printed("prices", "latest", "BTCUSDT")
        assert head == ["exchange", "symbol", "price", "time", "source"]
        assert [row[:3] for row in rows] == [["exchange1", "BTCUSDT", "99.25"]]
        _, *rows = await shell.printed("prices", "latest")
        assert {(row[0], row[2]) for row in rows} == {("exchange1", "99.25"), ("exchange2", "1.5")}
        _, row = await shell.printed("prices", "latest", "exchange2", "BTCUSDT")
        assert row[:3] == ["exchange2", "BTCUSDT", "1.5"]
        _, row = await shell.printed("prices", "highest", "BTCUSDT", "--period", "5m")
        assert row[:4] == ["exchange1", "BTCUSDT", "103.25", "4"]
        _, row = await shell.printed("prices", "lowest", "--exchange", "exchange1", "--period", "5m")
        assert row[:4] == ["exchange1", "BTCUSDT", "99.25", "3"]
        _, row = await shell.printed("prices", "average", "exchange1", "BTCUSDT", "--period", "5m")
        assert (row[0], float(row[2]), row[3]) == ("exchange1", pytest.approx(101.0), "3")
        summary = dict(await shell.printed("prices", "aggregate", "BTCUSDT", "--period", "5m"))
        assert (summary["exchange"], summary["max"], summary["updates"]) == ("all", "103.25", "4")
        head, *rows = await shell.printed(
            "candles", "exchange1", "BTCUSDT", "--interval", "1d", "--limit", "1"
        )
        candle = dict(zip(head, rows[0], strict=True))
        assert (candle["high"], candle["low"], candle["updates"], candle["closed"]) == (
            *("103.25", "99.25"),
            *("3", "no"),
        )
        assert await shell.printed("symbols") == [[symbol] for symbol in settings.symbols]
        _, *rows = await shell.printed("exchanges")
        assert ["exchange1", "live", "connected"] in rows
        assert ["test1", "test", "off"] in rows
        report = await shell.printed("health")
        assert ["status", "ok"] in report
        assert ["all", "4", "4", "0", "4", "0", "0", "0"] in report
        await same_as_over_http(shell, service)


async def test_volumes(settings, exchanges, shell):
    """They are shown where an exchange sends them, as exactly as the service has them."""
    calm = attrs.evolve(settings, feeds=FeedSettings(stale_after=100_000, idle_timeout=100_000))
    async with running(calm) as service:
        at = now() - 3_000
        lines_of = (
            b'{"symbol":"BTCUSDT","price":2.0,"timestamp":%d,"volume":0.5,"side":"buy"}\n' % (at - 1)
            + b'{"symbol":"BTCUSDT","price":4.0,"timestamp":%d,"volume":0.000125,"side":"sell"}\n' % at
            + b'{"symbol":"ETHUSDT","price":4.0,"timestamp":%d}\n' % at
        )
        await exchanges["exchange1"].send(lines_of)
        await service.accepted(3)
        await eventually(lambda: service.report().updates.cached == 3)
        shell.at(f"http://{service.client.address}")

        head, *rows = await shell.printed("prices", "latest")
        assert head == ["exchange", "symbol", "price", "volume", "time", "source"]
        assert [row[1:4] for row in rows] == [["BTCUSDT", "4.0", "0.000125"], ["ETHUSDT", "4.0", "-"]]
        head, _ = await shell.printed("prices", "latest", "ETHUSDT")
        assert "volume" not in head
        _, answer = await service.client.get("/prices/aggregate/BTCUSDT?period=5m")
        shown = dict(await shell.printed("prices", "aggregate", "BTCUSDT", "--period", "5m"))
        fields = ("volume", "quote_volume", "buy_volume", "sell_volume", "volume_updates", "vwap")
        assert {name: shown[name] for name in fields} == {name: str(answer[name]) for name in fields}
        assert (shown["volume"], shown["buy_volume"], shown["volume_updates"]) == ("0.500125", "0.5", "2")
        shown = dict(await shell.printed("prices", "aggregate", "ETHUSDT", "--period", "5m"))
        assert not {*fields} & {*shown}
        head, row = await shell.printed("candles", "BTCUSDT", "--interval", "1d", "--limit", "1")
        candle = dict(zip(head, row, strict=True))
        assert (candle["volume"], candle["vwap"]) == ("0.500125", str(answer["vwap"]))
        head, _ = await shell.printed("candles", "ETHUSDT", "--interval", "1d", "--limit", "1")
        assert "volume" not in head
        code, out, _ = await shell.run("prices", "latest", "ETHUSDT", "--json")
        assert (code, json.loads(out)["volume"]) == (0, None)


async def same_as_over_http(shell: Shell, service: Service) -> None:
    """Check that --json prints exactly the service's answer."""
    questions = {
        "/prices/latest?exchange=exchange1": ["prices", "latest", "--exchange", "exchange1"],
        "/candles/BTCUSDT?interval=5m&start=5&limit=3": [
            *["candles", "BTCUSDT", "--interval", "5m"],
            *["--start", "1970-01-01T00:00:00.005Z", "--limit", "3"],
        ],
        "/mode": ["mode"],
        "/symbols": ["symbols"],
        "/exchanges": ["exchanges"],
    }
    for path, command in questions.items():
        _, answer = await service.client.get(path)
        code, out, err = await shell.run(*command, "--json")
        assert (code, json.loads(out), err) == (0, answer, "")


async def test_a_switch_of_the_mode(settings, exchanges, shell):
    """The token is an option, a variable, or in `.env`; without one the error says what is missing."""
    guarded = attrs.evolve(settings, http=attrs.evolve(settings.http, token="hunter2"))  # noqa: S106
    async with running(guarded) as service:
        shell.at(f"http://{service.client.address}")
        assert await shell.run("mode") == (0, "live\n", "")
        code, out, err = await shell.run("mode", "test")
        assert (code, out) == (1, "")
        assert err.endswith("; give the token with --token or MARKETFLOW_TOKEN\n")
        assert err.count("\n") == 1
        assert (await shell.run("mode", "test", "--token", "wrong"))[0] == 1

        assert await shell.run("mode", "test", "--token", "hunter2") == (0, "switched to test\n", "")
        with pytest.MonkeyPatch.context() as environment:
            environment.setenv("MARKETFLOW_TOKEN", "hunter2")
            assert await shell.run("mode", "test") == (0, "it was test already\n", "")
        (shell.directory / ".env").write_text(
            "not a line\nMARKETFLOW_TOKEN=hunter2\nMARKETFLOW_URL=http://127.0.0.1:1\n"
        )
        assert await shell.run("mode", "live") == (0, "switched to live\n", "")
        assert await shell.run("mode", "--json") == (0, '{"mode":"live","changed":false}\n', "")


# ---- errors ----


async def test_errors_are_one_line(settings, exchanges, shell):
    """The line has the allowed values; with --json the problem is printed for programs."""
    async with running(settings) as service:
        shell.at(f"http://{service.client.address}")
        unknown = "marketflow: unknown symbol 'XYZ'; allowed: BTCUSDT, DOGEUSDT, TONUSDT, SOLUSDT, ETHUSDT\n"
        assert await shell.run("prices", "latest", "XYZ") == (1, "", unknown)
        code, out, err = await shell.run("prices", "latest", "XYZ", "--json")
        assert (code, json.loads(out)["type"], err) == (1, "/problems/unknown-symbol", unknown)
        code, out, err = await shell.run("prices", "highest", "BTCUSDT", "--period", "x")
        assert (code, out) == (1, "")
        assert err.startswith("marketflow: 'x' is not a period")
        code, out, err = await shell.run("prices", "highest", "BTCUSDT")
        assert (code, out) == (1, "")
        assert err.startswith("marketflow: no updates of BTCUSDT")


async def test_nobody_there(shell):
    shell.at("http://127.0.0.1:1")

    expected = (
        "marketflow: no marketflow answers at http://127.0.0.1:1 (connection refused): "
        "start one with 'marketflow serve', or say where it is with --url\n"
    )
    assert await shell.run("health") == (1, "", expected)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (json_answer("{}"), "is not marketflow, or another version of it (symbols: Object missing"),
        (json_answer("<p>", kind="text/html"), "is not marketflow, or another version of it"),
        (json_answer("", status="404 Not Found"), "answered 404 Not Found"),
        (
            json_answer('{"detail":"a\\u001b[2J\\nb"}', status="404 No", kind=PROBLEM),
            "marketflow: a\N{REPLACEMENT CHARACTER}[2J",
        ),
    ],
)
async def test_another_service(shell, answer, words):
    """An answer of a foreign server gives one line without control characters."""
    async with raw_server(with_bytes(answer)) as address:
        code, out, err = await shell.at(address).run("symbols")

    assert (code, out) == (1, "")
    assert words in err
    assert err.count("\n") == 1


async def test_an_unavailable_service_has_a_report_and_fails(shell):
    updates: dict[str, Any] = dict.fromkeys(("received", "accepted", "cached", "expired", "pending"), 0)
    updates |= {"rejected": {}, "dropped": {}}
    store = {"status": "away", "since": 0, "error": "gone"}
    report = {"status": "unavailable", "mode": "live", "version": "1", "uptime": 1, "exchanges": {}}
    body = json.dumps(report | {"redis": store, "postgres": store, "updates": updates})
    async with raw_server(with_bytes(json_answer(body, status="503 Service Unavailable"))) as address:
        shell.at(address)
        code, out, err = await shell.run("health")
        assert (code, err.count("\n")) == (1, 1)
        assert "unavailable" in out
        assert "the service is unavailable" in err
        code, out, err = await shell.run("health", "--json")
        assert (code, json.loads(out)) == (1, json.loads(body))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["prices"], "missing command (try 'marketflow prices --help')"),
        (["prices", "aggregate"], "missing argument '[EXCHANGE] SYMBOL'"),
        (["prices", "latest", "a", "b", "c"], "only an exchange and a symbol can be named"),
        (["candles", "X", "--interval", "2m"], "invalid value for '--interval'"),
        (["candles", "X", "--start", "soon"], "'soon' is neither Unix ms nor a time like"),
        (["candles", "X", "--limit", "0"], "invalid value for '--limit'"),
        (["mode", "dead"], "'dead' is not one of 'live', 'test'"),
        (["watch", "--url", "ftp://x"], "'ftp://x' is no URL like http://127.0.0.1:8080"),
        (["completion", "csh"], "'csh' is not one of"),
    ],
)
def test_wrong_usage(capsys, arguments, words):
    """Wrong usage is reported before a request is sent."""
    assert cli.run(arguments) == 2

    out, err = capsys.readouterr()
    assert out == ""
    assert words in err
    assert err.count("\n") == 1


async def test_a_question_that_is_interrupted_is_no_success(tmp_path):
    """An interrupted request must not look like an empty answer to a script."""
    asked = trio.Event()

    async def answer(head: bytes, stream: trio.abc.Stream) -> None:
        asked.set()
        await silent(head, stream)

    async with raw_server(answer) as address:
        process = await trio.lowlevel.open_process(
            [sys.executable, "-m", "marketflow", "symbols", "--url", str(address)],
            stdout=subprocess.DEVNULL,
            cwd=tmp_path,
        )
        with trio.fail_after(30):
            await asked.wait()
            process.send_signal(signal.SIGINT)
            assert await process.wait() == -signal.SIGINT
