"""Clients during a run: one that checks every answer, clients of the stream, and abusive ones."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from typing import Any

import h11
import trio

PATHS = (
    "/health/live",
    "/prices/latest",
    "/prices/latest/BTCUSDT",
    "/prices/highest/ETHUSDT?period=10s",
    "/prices/lowest?period=30s",
    "/prices/average/TONUSDT?period=3s",
    "/prices/aggregate/BTCUSDT?period=2m",
    "/candles/SOLUSDT?interval=5s&limit=50",
    "/candles/SOLUSDT?interval=1d",
    "/exchanges",
    "/metrics",
    "/mode",
)
ABUSES = (
    b"GET /prices/latest HTTP/1.1\r\nHost: x\r\nX-Slow: ",
    b"GET /" + b"x" * 1_000_000 + b" HTTP/1.1\r\n\r\n",
    b"BREW /mode HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nhalf",
    b"POST /mode/test HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\nhalf",
    b"GET /../../etc/passwd%00 HTTP/1.1\r\nHost: x\r\n\r\n",
    b"\x16\x03\x01\x00\xff\xff\x00",
    b"GET /stream HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET /candles/BTCUSDT?interval=1s&limit=1000 HTTP/1.1\r\nHost: x\r\n\r\n" * 20,
)
ABUSERS = 60
PATIENCE = 15.0
"""The time limit in seconds of an answer: both stores' time limits, and a busy machine."""


class Refused(Exception):
    """There was no answer."""


async def ask(port: int, path: str, method: str = "GET") -> tuple[int, dict[str, str], bytes]:
    """Send one request; returns status, headers and body."""
    connection = h11.Connection(h11.CLIENT)
    headers = [("Host", "localhost"), ("Connection", "close"), ("Content-Length", "0")]
    try:
        with trio.fail_after(PATIENCE):
            async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
                request = connection.send(h11.Request(method=method, target=path, headers=headers))
                await stream.send_all((request or b"") + (connection.send(h11.EndOfMessage()) or b""))
                status, told, body = 0, {}, b""
                while True:
                    match connection.next_event():
                        case h11.NEED_DATA:
                            connection.receive_data(await stream.receive_some(65_536))
                        case h11.Response() as response:
                            status = response.status_code
                            told = {name.decode(): value.decode() for name, value in response.headers}
                        case h11.Data() as data:
                            body += data.data
                        case _:
                            return status, told, body
    except (OSError, trio.BrokenResourceError, h11.RemoteProtocolError) as error:
        raise Refused(f"{type(error).__name__}: {error}") from error
    except trio.TooSlowError:
        raise Refused(f"no answer within {PATIENCE:g} s") from None


def ledger_problem(updates: dict[str, Any]) -> str:
    """The equation that does not hold, if any."""
    gone = updates["cached"] + updates["expired"] + sum(updates["dropped"].values()) + updates["pending"]
    right = updates["received"] == updates["accepted"] + sum(updates["rejected"].values())
    return "" if right and updates["accepted"] == gone else f"the ledger does not add up: {updates}"


def answer_problem(path: str, status: int, headers: dict[str, str]) -> str:
    """What is wrong with an answer; a 503 is allowed if it says when to try again."""
    if status < 500 or (status == 503 and "retry-after" in headers):
        return ""
    return f"{path} was answered {status}"


async def asking(
    port: int, *, wanted: Callable[[], int], wrong: Callable[[str], None], rng: random.Random
) -> None:
    """Send requests and check the answers, until cancelled.

    `wanted`: the run of the service that must answer, 0 if none. A problem counts only if it is the same
    afterwards.
    """
    while True:
        run = wanted()
        problems: list[str] = []
        if run:
            try:
                status, headers, body = await ask(port, "/health")
                if status not in {200, 503}:
                    problems.append(f"/health was answered {status}")
                else:
                    health = json.loads(body)
                    ledgers = [each["updates"] for each in health["exchanges"].values()]
                    problems += map(ledger_problem, [health["updates"], *ledgers])
                path = rng.choice(PATHS)
                status, headers, _ = await ask(port, path)
                problems.append(answer_problem(path, status, headers))
            except Refused as refused:
                problems.append(f"no answer: {refused}")
            if wanted() == run:
                for problem in filter(None, problems):
                    wrong(problem)
        await trio.sleep(0.2)


async def listening(port: int, rng: random.Random) -> None:
    """A client of the stream that connects, reads or does not read, and leaves, until cancelled."""
    while True:
        with trio.move_on_after(rng.uniform(0.5, 8)):
            try:
                async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
                    await stream.send_all(b"GET /stream HTTP/1.1\r\nHost: x\r\n\r\n")
                    if rng.random() < 0.3:
                        await trio.sleep_forever()
                    while await stream.receive_some(65_536):
                        pass
            except (OSError, trio.BrokenResourceError):
                pass
        await trio.sleep(rng.uniform(0, 1))


async def abusing(port: int, rng: random.Random, seconds: float) -> None:
    """Many connections at once that send nonsense or incomplete requests, and stay open."""

    async def abuse(what: bytes) -> None:
        try:
            async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
                await stream.send_all(what)
                await trio.sleep_forever()
        except (OSError, trio.BrokenResourceError):
            pass

    with trio.move_on_after(seconds):
        async with trio.open_nursery() as nursery:
            for _ in range(ABUSERS):
                nursery.start_soon(abuse, rng.choice(ABUSES))
                await trio.sleep(0.01)
