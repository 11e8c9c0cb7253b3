"""The command line as users see it: exit codes, one clear line for each error, and no other output."""

from __future__ import annotations

import errno
import json
import logging
import os
import signal
import socket
import subprocess
import sys
import time
import types
from contextlib import closing
from pathlib import Path

import pytest
import structlog

from marketflow import __version__, cli
from marketflow.app.ports import IntervalMismatch, StoreAway, StoreTaken
from marketflow.app.share.spooling import BarsLost, SpooledBar, SpoolFailed
from marketflow.config.structuring import KEYS
from marketflow.domain.bars import Bar
from marketflow.embedded import EmbeddedError

LIMIT = 60
"""Seconds that a program may take."""


class Program:
    """Runs marketflow in its own directory and environment."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        kept = {name: value for name, value in os.environ.items() if not name.startswith("MARKETFLOW_")}
        self.env = {**kept, "HOME": str(directory), "XDG_STATE_HOME": str(directory / "state")}

    def start(self, *arguments: str, stdout=subprocess.PIPE, env=None) -> subprocess.Popen[str]:
        """Start it."""
        return subprocess.Popen(
            [sys.executable, "-m", "marketflow", *arguments],
            cwd=self.directory,
            env=self.env | (env or {}),
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *arguments: str, **options) -> tuple[int, str, str]:
        """Run it to its end; returns exit code, stdout and stderr."""
        with self.start(*arguments, **options) as process:
            try:
                out, err = process.communicate(timeout=LIMIT)
            finally:
                process.kill()
        return process.returncode, out, err

    def write(self, name: str, content: str) -> None:
        """Put a file into the directory."""
        (self.directory / name).write_text(content)


@pytest.fixture
def program(tmp_path) -> Program:
    """A Program in an empty directory."""
    return Program(tmp_path)


@pytest.fixture
def taken_port():
    """A port on which another process listens."""
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        yield listener.getsockname()[1]


# ---- help and wrong usage ----


@pytest.mark.parametrize(
    "command", [[], ["serve"], ["exchange"], ["venue"], ["demo"], ["config"], ["prices", "latest"], ["watch"]]
)
def test_help(program, command):
    """Help goes to stdout, without escape sequences, with exit code 0."""
    code, out, err = program.run(*command, "--help")

    assert (code, err) == (0, "")
    assert out.startswith(" ".join(["Usage: marketflow", *command]))


def test_help_names_all_commands_and_flags():
    """Help names all commands and flags of the documentation."""
    groups = {"": cli.commands} | {f"{name} ": cli.commands.commands[name] for name in ("prices", "cluster")}
    flags = {
        group + name: {flag for option in command.params for flag in option.opts if flag.startswith("-")}
        for group, commands in groups.items()
        for name, command in commands.commands.items()
    }
    ask, period = {"--url", "--json"}, {"--period", "--exchange"}
    log = {"--log-level", "--log-format"}

    assert flags == {
        "serve": {"--config", "--host", "--port", "--mode", "--embedded", "--role", *log},
        "exchange": {
            "--name",
            "--host",
            "--port",
            "--rate",
            "--seed",
            "--walk",
            "--close-every",
            "--garbage",
            "--silence",
            "--half-lines",
            "--volumes",
            "--skew",
            *log,
        },
        "venue": {
            "--host",
            "--port",
            "--symbols",
            "--rate",
            "--seed",
            "--silence",
            "--close-every",
            "--reset-every",
            "--maintain-every",
            "--refuse",
            "--garbage",
            "--oversize",
            "--nan",
            "--unit",
            "--late",
            "--duplicate",
            "--resend",
            "--fragments",
            "--deflate",
            *log,
        },
        "demo": {"--port", "--duration", "--nodes", *log},
        "config": {"--config"},
        "cluster": set(),
        "cluster adopt": {"--config", "--from", *log},
        "cluster leave": {"--config", "--to", *log},
        "venues": set(),
        "check-exchange": {"--config", "--seconds", *log},
        "prices": set(),
        "prices latest": {"--exchange", *ask},
        "prices highest": {*period, *ask},
        "prices lowest": {*period, *ask},
        "prices average": {*period, *ask},
        "prices aggregate": {*period, *ask},
        "candles": {"--interval", "--start", "--end", "--limit", "--exchange", *ask},
        "symbols": ask,
        "exchanges": ask,
        "mode": {"--token", *ask},
        "health": ask,
        "watch": {"--exchange", *ask},
        "completion": set(),
    }


def imported_by(program, *arguments):
    """The exit code, and the imported modules."""
    code, _, err = program.run(*arguments, env={"PYTHONPROFILEIMPORTTIME": "1"})
    return code, {line.rpartition("|")[2].strip() for line in err.splitlines()}


def test_help_imports_no_more_than_it_needs(program):
    """Help appears at once, even though other commands have slow imports."""
    code, imported = imported_by(program, "--help")
    assert code == 0
    assert "click" in imported
    assert not imported & {"trio", "rich", "h11", "msgspec", "structlog", "redis", "psycopg", "quart", "ssl"}


def test_a_start_imports_no_more_than_it_needs(program):
    """A start imports only what it needs, since imports take most of its time."""
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        code, imported = imported_by(program, "serve", "--port", str(taken.getsockname()[1]))
    assert code == 1
    assert {"structlog", "quart", "marketflow.service"} <= imported
    assert not imported & {"rich.console", "marketflow.adapters.http.description.document"}


def test_version(program):
    assert program.run("--version") == (0, f"marketflow {__version__}\n", "")


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--foo"], "no such option '--foo' (try 'marketflow serve --help')"),
        (["serve", "--foo"], "no such option '--foo' (try 'marketflow serve --help')"),
        (["serve", "now"], "got unexpected extra argument (now) (try 'marketflow serve --help')"),
        (["serve", "--port"], "option '--port' requires an argument (try 'marketflow"),
        (["foo"], "no such command 'foo' (try 'marketflow --help')"),
        (
            ["--log-level", "loud"],
            "invalid value for '--log-level': 'loud' is not one of 'debug', 'info', 'warning', 'error' (try",
        ),
        (["exchange", "--port", "x"], "invalid value for '--port': 'x' is not a valid integer range"),
        (
            ["exchange", "--port", "65536"],
            "invalid value for '--port': 65536 is not in the range 0<=x<=65535",
        ),
        (["exchange", "--rate", "nan"], "invalid value for '--rate': 'nan' is not a finite number"),
        (["exchange", "--garbage", "2"], "invalid value for '--garbage': 2.0 is not in the range 0<=x<=1"),
        (["venue"], "missing argument '{binance|coinbase|kraken|"),
        (
            ["venue", "mtgox"],
            "invalid value for '{binance|coinbase|kraken|okx|bybit|bitstamp|gateio|kucoin|bitfinex}': ",
        ),
        (["venue", "okx", "--symbols", "A,,B"], "invalid value for '--symbols': 'A,,B' is no list like"),
        (["serve", "--embedded", "--role", "api"], "--embedded starts stores for one service, and --role is"),
        (["cluster", "adopt", "--from", "http://u:hunter2@h"], "invalid value for '--from': expected "),
        (["demo", "--duration", "inf"], "invalid value for '--duration': 'inf' is not a finite number"),
    ],
)
def test_wrong_usage(capsys, arguments, line):
    """Wrong usage gives exit code 2, one line on stderr, and nothing on stdout."""
    assert cli.run(arguments) == 2

    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"marketflow: {line}")
    assert err.count("\n") == 1


def test_embedded_is_not_for_a_cluster(capsys, monkeypatch):
    monkeypatch.setenv("MARKETFLOW_CLUSTER__ENABLED", "true")

    assert cli.run(["serve", "--embedded"]) == 2

    assert "--embedded starts stores for one service, and cluster.enabled is set" in capsys.readouterr().err


def test_wrong_usage_from_outside(program):
    code, out, err = program.run("--foo")

    assert (code, out) == (2, "")
    assert err == "marketflow: no such option '--foo' (try 'marketflow serve --help')\n"


def test_nobody_to_tell(program):
    """Without stderr the exit code still shows the error."""
    closed = subprocess.run(
        ["sh", "-c", 'exec "$0" -m marketflow --foo 2>&-', sys.executable],
        cwd=program.directory,
        env=program.env,
        timeout=LIMIT,
        check=False,
    )

    assert closed.returncode == 2


# ---- wrong configuration ----

COMMANDS = pytest.mark.parametrize("command", [[], ["serve"], ["config"]])


@COMMANDS
def test_all_configuration_errors_at_once(program, command):
    """Each error has a line; the exit code is 2, and there is no stdout and no traceback."""
    program.write("config.toml", 'htp = 1\nhttp.port = "x"\nmode = "dead"')
    program.write(".env", "MARKETFLOW_REDIS__DB=x")

    code, out, err = program.run(
        *command, env={"MARKETFLOW_MOD": "1", "MARKETFLOW_REDIS__URL": "rdis://:hunter2@h"}
    )

    assert (code, out) == (2, "")
    assert err.splitlines() == [
        "marketflow: htp: unknown key; did you mean http? (config.toml)",
        "marketflow: MARKETFLOW_MOD: unknown variable; did you mean MARKETFLOW_MODE? (environment)",
        "marketflow: mode: expected live or test, got 'dead' (config.toml)",
        "marketflow: http.port: expected an integer, got 'x' (config.toml)",
        "marketflow: redis.url: expected a URL like redis://127.0.0.1:6379/0 (MARKETFLOW_REDIS__URL)",
        "marketflow: redis.db: expected an integer, got 'x' (.env)",
    ]


@COMMANDS
def test_broken_toml(program, command):
    program.write("other.toml", "[http]\nport =\n")

    assert program.run(*command, "--config", "other.toml") == (
        2,
        "",
        "marketflow: other.toml: line 2: invalid value\n",
    )


def test_working_directory_that_is_gone(program):
    """A working directory that was removed counts as one without settings."""
    gone = program.directory / "gone"
    gone.mkdir()
    code = subprocess.run(
        ["sh", "-c", 'rmdir "$PWD"; exec "$0" -m marketflow config', sys.executable],
        cwd=gone,
        env=program.env,
        stdout=subprocess.DEVNULL,
        timeout=LIMIT,
        check=False,
    ).returncode

    assert code == 0


def test_missing_configuration(program):
    assert program.run("--config", "nope.toml") == (2, "", "marketflow: nope.toml: no such file (--config)\n")


def test_wrong_flags_of_serve(program):
    """Wrong flags are reported with the other errors, under the names that were used."""
    code, out, err = program.run("--port", "99999", "--mode", "dead", "--host", "a b")

    assert (code, out) == (2, "")
    assert err.splitlines() == [
        "marketflow: mode: expected live or test, got 'dead' (--mode)",
        "marketflow: http.host: expected a host name or address, got 'a b' (--host)",
        "marketflow: http.port: expected an integer from 0 to 65535, got 99999 (--port)",
    ]


def test_wrong_port_of_the_demo(program):
    assert program.run("demo", "--port", "x") == (
        2,
        "",
        "marketflow: http.port: expected an integer, got 'x' (--port)\n",
    )


# ---- config ----


def test_config(program):
    """It prints one line for each setting, with its source; secrets are masked."""
    program.write("config.toml", "http.port = 81")
    program.write(".env", "MARKETFLOW_MODE=test")

    code, out, err = program.run("config", env={"MARKETFLOW_REDIS__URL": "redis://:hunter2@h/1"})

    lines = out.splitlines()
    assert (code, err) == (0, "")
    assert len(lines) == len(KEYS)
    assert {
        "mode = test (.env)",
        "http.port = 81 (config.toml)",
        "redis.url = redis://:***@h/1 (MARKETFLOW_REDIS__URL)",
        "aggregation.interval = 60s (default)",
        f"state_dir = {program.directory}/state/marketflow (default)",
    } <= set(lines)
    assert "hunter2" not in out


def test_reader_that_has_seen_enough_is_no_error(program):
    """`marketflow config | true` is not an error."""
    reading, writing = os.pipe()
    os.close(reading)
    try:
        code, _, err = program.run("config", stdout=writing)
    finally:
        os.close(writing)

    assert (code, err) == (0, "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_full_disk_is_an_error(program):
    with Path("/dev/full").open("w") as full:
        code, _, err = program.run("config", stdout=full)

    assert (code, err) == (1, "marketflow: no space left on device\n")


# ---- exchange ----


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_exchange_serves_until_a_signal(program, number):
    """It sends lines like the real ones, with faults if wanted, on the printed port, and stops cleanly."""
    arguments = ["--name", "e", "--port", "0", "--skew", "3600", "--log-format", "json"]
    with program.start("exchange", *arguments) as process:
        try:
            said = json.loads(process.stderr.readline())
            with socket.create_connection(("127.0.0.1", said["port"]), timeout=LIMIT) as connection:
                line = json.loads(connection.makefile().readline())
            process.send_signal(number)
            out, err = process.communicate(timeout=LIMIT)
        finally:
            process.kill()

    assert said["exchange"] == "e"
    assert set(line) == {"symbol", "price", "timestamp"}
    assert line["timestamp"] > (time.time() + 3000) * 1_000
    assert (process.returncode, out) == (0, "")
    assert "Traceback" not in err


def first_tick(program, *arguments):
    """The prices of a simulated exchange's first tick, by symbol."""
    with program.start("exchange", "--port", "0", "--log-format", "json", *arguments) as process:
        try:
            said = json.loads(process.stderr.readline())
            with socket.create_connection(("127.0.0.1", said["port"]), timeout=LIMIT) as connection:
                lines = connection.makefile()
                found = [json.loads(lines.readline()) for _ in range(5)]
            process.send_signal(signal.SIGTERM)
            process.communicate(timeout=LIMIT)
        finally:
            process.kill()
    return {line["symbol"]: line["price"] for line in found}


def test_exchanges_of_one_market_agree(program):
    """Exchanges in separate processes that share only time and seed quote the same market."""
    names = ("exchange1", "exchange2")
    for seed in ([], ["--seed", "5"]):
        one, other = (first_tick(program, "--walk", "fair", "--name", name, *seed) for name in names)
        assert one == pytest.approx(other, rel=0.01)
        assert one["BTCUSDT"] == pytest.approx(100_000, rel=0.2)


def test_exchanges_walk_by_themselves_unless_a_seed_is_given(program):
    """They start at the provided exchanges' prices and then differ; a seed gives the same walk each time."""
    one, other = first_tick(program), first_tick(program)
    assert one != other
    assert one == pytest.approx(other, rel=0.021)
    assert first_tick(program, "--seed", "5") == first_tick(program, "--seed", "5", "--walk", "free")


@pytest.mark.parametrize("command", [["exchange"], ["venue", "kraken"], ["serve"]])
def test_port_in_use(program, command, taken_port):
    """One line names the port; all other output is the log."""
    code, out, err = program.run(*command, "--port", str(taken_port), "--log-level", "error")

    assert (code, out) == (1, "")
    assert err == f"marketflow: port {taken_port} is in use on 127.0.0.1\n"


def test_debug_shows_the_traceback_too(program, taken_port):
    code, _, err = program.run("exchange", "--port", str(taken_port), "--log-level", "debug")

    assert code == 1
    assert "Traceback" in err
    assert err.splitlines()[-1] == f"marketflow: port {taken_port} is in use on 127.0.0.1"


def test_address_of_another_machine(program):
    code, out, err = program.run("exchange", "--host", "192.0.2.1", "--port", "0")

    assert (code, out) == (1, "")
    assert err == "marketflow: 192.0.2.1 is no address of this machine\n"


# ---- what commands raise ----


@pytest.fixture
def raising(monkeypatch, tmp_path):
    """Make `serve` raise an error, in this process."""
    monkeypatch.chdir(tmp_path)
    for name in os.environ:
        if name.startswith("MARKETFLOW_"):
            monkeypatch.delenv(name)
    root = logging.getLogger()
    handlers, level = root.handlers, root.level
    service = types.ModuleType("marketflow.service")
    monkeypatch.setitem(sys.modules, "marketflow.service", service)

    def set_error(error: BaseException) -> None:
        async def run_service(settings, *, embedded) -> None:
            raise error

        service.run_service = run_service

    yield set_error
    root.handlers = handlers
    root.setLevel(level)
    structlog.reset_defaults()


NOON = 1_795_348_800_000
BAR = Bar.of([NOON], [1.0])
LOST_BARS = [
    SpooledBar((exchange, "BTCUSDT"), NOON + offset, "boot", BAR, whole=False)
    for exchange, offset in (("exchange2", 61_000), ("exchange1", 0))
]
LOST = BarsLost(LOST_BARS, SpoolFailed("/state", "No space left on device"))
LOST_LINE = (
    "2 bars lost, of exchange1, exchange2 from 2026-11-22T12:00:00Z to 2026-11-22T12:01:01Z: "
    "no store would take them, and they could not be written to /state: no space left on device"
)
NOT_KEPT_LINE = (
    "2 bars not kept, of exchange1, exchange2 from 2026-11-22T12:00:00Z to 2026-11-22T12:01:01Z: "
    "no store would take them, and another marketflow was using the stores. "
    "Updates that it did not receive are lost"
)


def in_use() -> OSError:
    """The operating system's error for a port in use."""
    return OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))


@pytest.mark.parametrize(
    ("error", "code", "lines"),
    [
        (StoreTaken(), 1, ["another marketflow is running on this database"]),
        (StoreAway("PostgreSQL: no answer in time"), 1, ["PostgreSQL: no answer in time"]),
        (
            IntervalMismatch(60_000, 30_000),
            2,
            ["aggregation.interval: the database holds aggregates of 60000 ms, not of 30000 ms"],
        ),
        (EmbeddedError("no redis-server:\ninstall one"), 1, ["no redis-server: install one"]),
        (in_use(), 1, ["port 8080 is in use on 127.0.0.1"]),
        (OSError(errno.EADDRINUSE, "port 1 is in use on h"), 1, ["port 1 is in use on h"]),
        (
            PermissionError(errno.EACCES, os.strerror(errno.EACCES)),
            1,
            ["no permission to listen on port 8080 on 127.0.0.1"],
        ),
        (
            PermissionError(errno.EACCES, os.strerror(errno.EACCES), "/var/x"),
            1,
            ["permission denied: /var/x"],
        ),
        (
            socket.gaierror(socket.EAI_NONAME, "Name or service not known"),
            1,
            ["unknown host 127.0.0.1: Name or service not known"],
        ),
        (TimeoutError(), 1, ["TimeoutError"]),
        (LOST, 1, [LOST_LINE]),
        (
            ExceptionGroup("", [StoreTaken("another marketflow is here"), BarsLost(LOST_BARS, None)]),
            1,
            ["another marketflow is here", NOT_KEPT_LINE],
        ),
        (
            BaseExceptionGroup("", [TimeoutError("the stop took too long"), ExceptionGroup("", [LOST])]),
            1,
            ["the stop took too long", LOST_LINE],
        ),
        (BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE)), 1, ["broken pipe"]),
        (TypeError("a\nb"), 1, ["internal error: TypeError: a b"]),
        (ValueError("redis://:hunter2@h"), 1, ["internal error: ValueError: redis://:***@h"]),
        (KeyboardInterrupt(), 0, []),
        (
            ExceptionGroup("", [ExceptionGroup("", [in_use()]), StoreTaken(), in_use()]),
            1,
            ["port 8080 is in use on 127.0.0.1", "another marketflow is running on this database"],
        ),
        (
            BaseExceptionGroup("", [KeyboardInterrupt(), IntervalMismatch(1, 2)]),
            2,
            ["aggregation.interval: the database holds aggregates of 1 ms, not of 2 ms"],
        ),
        (
            ExceptionGroup("", [IntervalMismatch(1, 2), StoreTaken()]),
            1,
            [
                "aggregation.interval: the database holds aggregates of 1 ms, not of 2 ms",
                "another marketflow is running on this database",
            ],
        ),
        (BaseExceptionGroup("", [KeyboardInterrupt()]), 0, []),
    ],
)
def test_what_is_raised_is_put_into_words(raising, capsys, error, code, lines):
    """Each error gives a line, the exit code is the worst one, and there is no traceback."""
    raising(error)

    assert cli.run(["--log-level", "error"]) == code

    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines() == [f"marketflow: {line}" for line in lines]


def test_debug_traceback_holds_no_password(raising, capsys):
    raising(ExceptionGroup("", [ValueError("redis://:hunter2@h")]))

    assert cli.run(["--log-level", "debug"]) == 1

    _, err = capsys.readouterr()
    assert "Traceback" in err
    assert "hunter2" not in err


def test_settings_are_logged_at_the_start(raising, capsys, monkeypatch):
    """Settings are logged with secrets masked."""
    monkeypatch.setenv("MARKETFLOW_HTTP__TOKEN", "hunter2")
    raising(KeyboardInterrupt())

    cli.run(["--log-format", "json", "--port", "81"])

    first = json.loads(capsys.readouterr().err.splitlines()[0])
    assert (first["event"], first["version"]) == ("starting", __version__)
    assert (first["http.port"], first["http.token"], first["window.length"]) == ("81", "***", "60s")


@pytest.mark.parametrize("arguments", [[], ["serve"]])
def test_serve_is_the_default(raising, capsys, arguments):
    """`serve` runs if no command is given, with or without flags."""
    raising(StoreTaken())

    assert cli.run(arguments) == 1
    assert cli.run([*arguments, "--port", "81", "--embedded", "--log-level", "error"]) == 1


def test_variables_of_the_client_do_not_disturb_the_service(raising, monkeypatch):
    monkeypatch.setenv("MARKETFLOW_URL", "http://127.0.0.1:8080")
    monkeypatch.setenv("MARKETFLOW_TOKEN", "hunter2")
    raising(KeyboardInterrupt())

    assert cli.run(["serve"]) == 0


def test_serve_gets_settings_and_flags(raising, monkeypatch):
    """The service runs with the settings and flags that were given."""
    raising(KeyboardInterrupt())
    got = []

    async def run_service(settings, *, embedded) -> None:
        got.append((settings.http.host, settings.http.port, settings.mode, embedded))

    monkeypatch.setattr(sys.modules["marketflow.service"], "run_service", run_service)

    assert cli.run(["--host", "::1", "--port", "0", "--mode", "test", "--embedded"]) == 0
    assert cli.run(["serve"]) == 0
    assert got == [("::1", 0, "test", True), ("127.0.0.1", 8080, "live", False)]
