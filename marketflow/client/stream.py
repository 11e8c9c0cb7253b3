"""Reads the live stream until cancelled, and connects again after a lost connection."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from http import HTTPStatus
from typing import Final, NoReturn, Protocol

import attrs
import trio

from marketflow.client.address import Address
from marketflow.client.answers import Price, Symbols, read
from marketflow.client.errors import NotUnderstood, Refused, Unreachable
from marketflow.client.questions import ask, body_of
from marketflow.client.requests import SYMBOLS, Request
from marketflow.client.sse import EventParser, EventTooLarge
from marketflow.client.transport import Incoming, answering
from marketflow.patience import within

CONTENT_TYPE: Final = "text/event-stream"

SILENCE_LIMIT: Final = 45.0
"""Seconds without a byte after which a connection counts as lost: three heartbeats."""

RETRY_SECONDS: Final = 1.0
"""Seconds between two attempts."""


@attrs.frozen
class LivePrice:
    """An event of the stream."""

    price: Price
    text: str
    """The received JSON."""


class Listener(Protocol):
    """Receives the events of `follow`."""

    def connected(self, symbols: Sequence[str]) -> None:
        """The stream has begun; it has these symbols."""
        ...

    async def arrived(self, prices: Sequence[LivePrice]) -> None:
        """Prices received together. The next are read after it returns: a slow listener skips some."""
        ...

    def lost(self, reason: str) -> None:
        """The connection was lost for this reason; `follow` will connect again."""
        ...


async def follow(
    address: Address,
    symbols: Collection[str],
    exchange: str | None,
    listener: Listener,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> NoReturn:
    """Pass every event of the stream to `listener`, until cancelled.

    Args:
        address: the address of the service.
        symbols: the symbols to follow; if empty, all.
        exchange: the exchange to follow; None: all exchanges of the current mode, also after a switch.
        listener: gets the events.
        task_status: reports the start at the first answer of the service.

    Raises:
        Unreachable: the first attempt failed. Later failures are not raised: it connects again.
        Refused: the service refuses the request, for example because a symbol is unknown.
        NotUnderstood: the server is not marketflow.
    """
    answered = False

    def begun() -> None:
        nonlocal answered
        if not answered:
            task_status.started()
        answered = True

    while True:
        try:
            known = await _known(address, symbols)
            begun()
            await _read(address, known, exchange, listener)
            listener.lost("the service has ended it")
        except Unreachable as error:
            if not answered:
                raise
            listener.lost(error.reason)
        except Refused as error:
            if not error.passing:
                raise
            begun()
            listener.lost(str(error))
        await trio.sleep(RETRY_SECONDS)


async def _known(address: Address, symbols: Collection[str]) -> Sequence[str]:
    """The symbols of the service that are to be followed, in the service's order."""
    url = str(address)
    configured = read(url, await ask(address, SYMBOLS), Symbols).symbols
    unknown = [symbol for symbol in symbols if symbol not in configured]
    if unknown:
        raise Refused(
            HTTPStatus.NOT_FOUND, f"unknown symbol {unknown[0]!r}; allowed: {', '.join(configured)}"
        )
    return [symbol for symbol in configured if not symbols or symbol in symbols]


async def _read(address: Address, symbols: Sequence[str], exchange: str | None, listener: Listener) -> None:
    """Read one stream to its end."""
    url = str(address)
    # The service can filter by one symbol only. For several we request all of them.
    only = symbols[0] if len(symbols) == 1 else None
    narrowed = {"symbol": only, "exchange": exchange}
    asked = Request(("stream",), narrowed, headers={"Accept": CONTENT_TYPE})
    async with answering(address, asked) as incoming:
        if incoming.status not in asked.good:
            await body_of(incoming, address, asked)
        if not incoming.headers.get("content-type", "").startswith(CONTENT_TYPE):
            raise NotUnderstood(url, "no event stream")
        listener.connected(symbols)
        parser = EventParser()
        while chunk := await _next(incoming, url):
            try:
                events = parser.feed(chunk)
            except EventTooLarge as error:
                raise NotUnderstood(url, str(error)) from error
            came = [
                LivePrice(read(url, each.data, Price), each.data) for each in events if each.type == "price"
            ]
            if wanted := [each for each in came if each.price.symbol in symbols]:
                await listener.arrived(wanted)


async def _next(incoming: Incoming, url: str) -> bytes:
    try:
        return await within(SILENCE_LIMIT, incoming.read)
    except trio.TooSlowError:
        raise Unreachable(url, f"silent for {SILENCE_LIMIT:.0f} s") from None
