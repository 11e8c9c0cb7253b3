"""Questions to a service over real HTTP, and to its stores."""

from __future__ import annotations

import http.client
import json
import math
from collections.abc import Awaitable, Callable
from inspect import isawaitable
from typing import Any, TypeVar
from urllib.parse import urlsplit

import attrs
import psycopg
import trio
from traffic import Expected

T = TypeVar("T")

LOOK = 0.01
"""Seconds between two looks of `eventually`."""


async def eventually(condition: Callable[[], T | Awaitable[T]], *, within: float = 10.0) -> T:
    """Wait until the condition is true; returns its value.

    The time is that of the looks, one every `LOOK` seconds, so a slow machine does not use it up.

    Raises:
        AssertionError: it was not true in time. The message has the last value.
    """
    last: Any = None
    for _ in range(math.ceil(within / LOOK)):
        last = condition()
        if isawaitable(last):
            last = await last
        if last:
            return last
        await trio.sleep(LOOK)
    raise AssertionError(f"not within {within} s; at last {last!r}")


class Client:
    """Sends requests, each on a new connection."""

    def __init__(self, url: str) -> None:
        self.address = urlsplit(url).netloc

    async def get(self, path: str) -> tuple[int, Any]:
        """The status and the JSON of the answer."""
        status, body = await self.read(path)
        return status, json.loads(body)

    async def read(self, path: str, method: str = "GET") -> tuple[int, bytes]:
        """The status and the body of the answer."""
        return await trio.to_thread.run_sync(self._read, path, method)

    def _read(self, path: str, method: str) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection(self.address, timeout=10)
        try:
            connection.request(method, path)
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    async def health(self) -> Any:
        _, report = await self.get("/health")
        return report


def adds_up(updates: Any) -> bool:
    """Whether a ledger's two equations hold."""
    rejected, dropped = sum(updates["rejected"].values()), sum(updates["dropped"].values())
    gone = updates["cached"] + updates["expired"] + dropped + updates["pending"]
    return updates["received"] == updates["accepted"] + rejected and updates["accepted"] == gone


@attrs.frozen
class Row:
    """A row of price_aggregates."""

    average: float
    min: float
    max: float
    open: float
    close: float
    count: int

    def equals(self, bar: Expected) -> bool:
        return (
            (self.min, self.max, self.count) == (bar.min, bar.max, bar.count)
            and self.open in bar.opens
            and self.close in bar.closes
            and abs(self.average - bar.average) <= 1e-9 * bar.average
        )


def stored_rows(dsn: str) -> dict[tuple[str, str, int], Row]:
    """All rows, by symbol, exchange and the interval's end (ms), which is the primary key."""
    with psycopg.connect(dsn) as connection:
        found = connection.execute(
            "SELECT pair_name, exchange, (extract(epoch FROM timestamp) * 1000)::bigint, average_price,"
            " min_price, max_price, open_price, close_price, update_count FROM price_aggregates"
        ).fetchall()
    return {(symbol, exchange, end): Row(*rest) for symbol, exchange, end, *rest in found}
