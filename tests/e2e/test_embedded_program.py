"""`serve --embedded` and the demo run their own servers, and leave none of them running."""

from __future__ import annotations

import os
import re
from contextlib import suppress
from pathlib import Path
from signal import SIGINT, SIGKILL
from urllib.parse import quote

import psycopg
import redis
from asking import Client, eventually, stored_rows
from exchange_server import HOST, ExchangeServer
from program import Program, program
from terminal import terminal
from traffic import SYMBOLS, Sent, lines, now, rows


def alive(pid: int) -> bool:
    """Whether the process runs; a zombie does not count."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


def family(pid: int) -> set[int]:
    """The running processes among this one, its children and their children."""
    parents: dict[int, int] = {}
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(FileNotFoundError, ProcessLookupError):
            parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
    found = {pid}
    while more := {child for child, parent in parents.items() if parent in found} - found:
        found |= more
    return {each for each in found if alive(each)}


def left_in(directory: Path) -> list[Path]:
    return [*directory.iterdir()]


def users(directory: Path, name: bytes = b"") -> set[int]:
    """The running processes (of that name) whose command line names the directory."""
    found = set()
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(FileNotFoundError, ProcessLookupError):
            command = (entry / "cmdline").read_bytes()
            if os.fsencode(directory) in command and name in command:
                found.add(int(entry.name))
    return {each for each in found if alive(each)}


async def none_is_left(processes: set[int], *, within: float = 5) -> None:
    def ended() -> bool:
        return not any(alive(pid) for pid in processes)

    await eventually(ended, within=within)


def environment(directory: Path, exchange: ExchangeServer) -> dict[str, object]:
    return {
        "EXCHANGES": [{"name": "exchange1", "host": HOST, "port": exchange.port}],
        "HTTP__PORT": 0,
        "AGGREGATION__INTERVAL": 1,
        "AGGREGATION__GRACE": 0.2,
        "STATE_DIR": str(directory),
    }


async def whole_family(run: Program) -> set[int]:
    """Wait for all its processes: both servers and PostgreSQL's children; returns them."""
    found = family(run.process.pid)
    assert len(found) > 5, found
    return found


async def test_embedded_servers_end_with_the_service(
    tmp_path: Path, server_directory: Path, exchanges: dict[str, ExchangeServer]
) -> None:
    """The servers end even if the service is killed; the next start finds the rows."""
    exchange = exchanges["exchange1"]
    started = ["serve", "--embedded", "--log-format", "json"]
    settings = environment(server_directory, exchange)
    at = now() - 5_000
    sent = [Sent("exchange1", symbol, 100.0 + i, at + 10 * i) for i in range(50) for symbol in SYMBOLS]

    async with program(tmp_path, *started, environment=settings) as run:
        client = await run.serving()
        told = [each for each in run.events if each["event"] == "starting embedded server"]
        assert [(each["server"], each["first_start"]) for each in told] == [
            ("redis", True),
            ("postgres", True),
        ]
        await exchange.send(lines(sent))

        async def written() -> bool:
            dsn, _ = where(server_directory)
            stored, wanted = stored_rows(dsn), rows(sent, 1_000)
            return {*stored} == {*wanted} and all(stored[key].equals(wanted[key]) for key in wanted)

        await eventually(written)
        processes = await whole_family(run)
        url = (await run.logged("serving"))["url"]
        assert listening(processes) == [("0100007F", int(url.rpartition(":")[2]))]
        run.signal(SIGKILL)
        assert await run.ended() == -SIGKILL
        await none_is_left(processes)

    async with program(tmp_path, *started, environment=settings) as run:
        client = await run.serving()
        status, answer = await client.get("/prices/latest/BTCUSDT")
        assert (status, answer["price"], answer["timestamp"]) == (200, 149.0, sent[-1].timestamp)
        assert await written()
        processes = await whole_family(run)
        ledger = await run.stopped(SIGINT)
        assert ledger["received"] == 0
        await none_is_left(processes, within=0.5)


def where(state: Path) -> tuple[str, str]:
    """The DSN and the URL of the servers under the directory, found by their sockets."""
    at = state / "embedded"
    return (
        f"postgresql://postgres@/marketflow?host={quote(str(at / 'postgres' / 'run'), safe='')}",
        f"unix://{at / 'redis' / 'run' / 'redis.sock'}",
    )


def listening(pids: set[int]) -> list[tuple[str, int]]:
    """Address and port of every TCP socket on which one of these processes listens."""
    held = set()
    for pid in pids:
        for entry in Path(f"/proc/{pid}/fd").iterdir():
            with suppress(FileNotFoundError):
                held.add(str(entry.readlink()))
    found = []
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            words = line.split()
            if words[3] == "0A" and f"socket:[{words[9]}]" in held:
                address, _, port = words[1].rpartition(":")
                found.append((address, int(port, 16)))
    return found


def told_in_the_demo(text: str) -> tuple[dict[str, list[int]], list[list[str]]]:
    """The content of the demo's summary: the ledger's numbers by exchange, and the rows."""
    ledger: dict[str, list[int]] = {}
    found: list[list[str]] = []
    for words in map(str.split, text.splitlines()):
        if len(words) == 8 and (words[0] == "all" or words[0].startswith("exchange")) and words[1].isdigit():
            ledger[words[0]] = [int(word) for word in words[1:]]
        elif len(words) == 6 and words[1] in SYMBOLS:
            found.append(words)
    return ledger, found


def check_ledger(ledger: dict[str, list[int]], seconds: float) -> None:
    assert [*ledger] == ["exchange1", "exchange2", "exchange3", "all"]
    for received, accepted, rejected, cached, expired, dropped, pending in ledger.values():
        assert received == accepted == cached > 0
        assert (rejected, expired, dropped, pending) == (0, 0, 0, 0)
    # Five lines each 100 ms from each of three.
    assert 150 * (seconds - 1.5) <= ledger["all"][0] <= 150 * (seconds + 1.5)


async def test_the_demo_stops_by_itself(tmp_path: Path, server_directory: Path) -> None:
    """It prints what was received and cached and the first interval's rows, and removes its data."""
    settings = {"AGGREGATION__INTERVAL": 1, "AGGREGATION__GRACE": 0.2}
    async with program(
        tmp_path,
        "demo",
        "--duration",
        "3",
        "--port",
        "0",
        environment=settings,
        temporary=server_directory,
    ) as run:
        await eventually(lambda: "Ctrl-C stops it." in run.stdout, within=30)
        processes = await whole_family(run)
        assert await run.ended(within=15) == 0
        await none_is_left(processes, within=0.5)
    assert run.stderr == ""
    ledger, found = told_in_the_demo(run.stdout)
    check_ledger(ledger, 3)
    assert "the ledger adds up" in run.stdout
    assert {(name, symbol) for name, symbol, *_ in found} == {
        (name, symbol) for name in ("exchange1", "exchange2", "exchange3") for symbol in SYMBOLS
    }
    for _, _, average, lowest, highest, updates in found:
        assert float(lowest) <= float(average) <= float(highest)
        assert 1 <= int(updates) <= 12
    for pair in SYMBOLS:
        averages = [float(average) for _, symbol, average, *_ in found if symbol == pair]
        assert max(averages) / min(averages) < 1.005, "the exchanges walk apart"
    assert left_in(server_directory) == []


async def test_on_a_terminal_the_demo_says_how_long_it_goes_on(
    tmp_path: Path, server_directory: Path
) -> None:
    """The countdown is removed at the end, before the summary."""
    arguments = ["demo", "--duration", "3", "--port", "0"]
    temporary = {"TMPDIR": str(server_directory)}
    async with terminal(tmp_path, *arguments, lines=60, columns=100, env=temporary) as shown:
        await shown.shows("By itself it stops after 3 s.", "s left, ")
        assert await shown.ended(within=30) == 0
        await shown.shows("the ledger adds up")
        assert "s left, " not in shown.text


async def test_ctrl_c_in_the_demo_is_a_clean_stop(tmp_path: Path, server_directory: Path) -> None:
    """The terminal signals the whole process group, but the servers must outlive the last flush."""
    async with program(tmp_path, "demo", "--port", "0", temporary=server_directory) as run:
        await eventually(lambda: "Ctrl-C stops it." in run.stdout, within=30)
        (url,) = re.findall(r"curl (http://[^/]+)/health", run.stdout)
        redis_url = re.findall(r"unix://\S+", run.stdout)[0]
        dsn = re.findall(r"postgresql://\S+", run.stdout)[0]
        client = Client(url)

        async def flowing() -> bool:
            updates = (await client.health())["updates"]
            return updates["cached"] > 100

        await eventually(flowing)
        with redis.Redis.from_url(redis_url) as window:
            assert window.zcard("prices:exchange1:BTCUSDT") > 0
        with psycopg.connect(dsn) as connection:
            assert connection.execute("SELECT count(*) FROM price_aggregates").fetchone() is not None
        processes = await whole_family(run)
        # Only HTTP and the three exchanges listen, on loopback. No store listens on the network.
        ports = listening(processes)
        assert len(ports) == 4
        assert {address for address, _ in ports} == {"0100007F"}
        os.killpg(run.process.pid, SIGINT)
        assert await run.ended() == 0
        await none_is_left(processes, within=0.5)
    assert run.stderr == ""
    ledger, found = told_in_the_demo(run.stdout)
    assert ledger["all"][0] == ledger["all"][3] > 100
    assert "the ledger adds up" in run.stdout
    assert found == []
    assert left_in(server_directory) == []


async def test_ctrl_c_while_the_servers_start(tmp_path: Path, server_directory: Path) -> None:
    """Even during initdb no process and no file is left behind."""
    async with program(tmp_path, "demo", "--port", "0", temporary=server_directory) as run:
        await eventually(lambda: users(server_directory, b"initdb"), within=30)
        os.killpg(run.process.pid, SIGINT)
        # The first start of PostgreSQL is completed before, which takes half a minute on a busy machine.
        assert await run.ended(within=60) == 0
        await eventually(lambda: not users(server_directory), within=0.5)
    assert run.stderr == ""
    assert left_in(server_directory) == []
