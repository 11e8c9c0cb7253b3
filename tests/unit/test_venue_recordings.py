"""What venues have really sent: recorded sessions, which are not part of the repository.

They are looked for in the directory that VENUE_RECORDINGS names, else in `shared/data/venues` beside the
repository or one of its parents. Without them the tests are skipped.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import attrs
import pytest

from marketflow.adapters.exchange.venues.registry import VENUES
from marketflow.adapters.exchange.venues.venue import Subscribed, Trade, Trades

ROOT = Path(__file__).parents[2]


def directory() -> Path | None:
    """Where the recordings are."""
    named = os.environ.get("VENUE_RECORDINGS")
    places = [Path(named)] if named else [parent / "shared" / "data" / "venues" for parent in ROOT.parents]
    return next((place for place in places if place.is_dir()), None)


RECORDINGS = directory()
recorded = pytest.mark.skipif(RECORDINGS is None, reason="there are no recordings: set VENUE_RECORDINGS")


@attrs.frozen
class Frame:
    """A recorded message."""

    text: str
    received_at: float | None
    """Unix ms; None if it was not recorded."""


def frames(kind: str) -> Iterator[Frame]:
    """The messages that a venue has sent."""
    assert RECORDINGS is not None
    for path in sorted((RECORDINGS / kind).iterdir()):
        for line in path.read_text(encoding="utf-8").splitlines():
            if path.suffix == ".jsonl":
                yield Frame(line, None)
                continue
            head, _, text = line.partition(": ")
            if not line.startswith("wss://"):
                yield Frame(text, float(head) * 1_000)


@attrs.frozen
class Known:
    """A venue whose recordings are of the shapes that it has today."""

    is_trade: Callable[[Any], bool]
    price: Callable[[Any], str]
    volume: Callable[[Any], str]
    least: int
    """So many trades are recorded, at least."""
    at_once: bool = True
    """Whether all trades are new when they come."""


def data(message: Any) -> Any:
    """The first trade of a message."""
    return message["data"][0] if isinstance(message["data"], list) else message["data"]


KNOWN: Mapping[str, Known] = {
    "bitstamp": Known(
        lambda message: message["event"] == "trade",
        lambda message: data(message)["price_str"],
        lambda message: data(message)["amount_str"],
        5,
    ),
    "coinbase": Known(
        lambda message: message["type"] == "match",
        lambda message: message["price"],
        lambda message: message["size"],
        50,
    ),
    "gateio": Known(
        lambda message: (message["channel"], message["event"]) == ("spot.trades", "update"),
        lambda message: message["result"]["price"],
        lambda message: message["result"]["amount"],
        2,
    ),
    "kucoin": Known(
        lambda message: message.get("subject") == "trade.l3match",
        lambda message: data(message)["price"],
        lambda message: data(message)["size"],
        5,
    ),
    "okx": Known(
        lambda message: "event" not in message and message["arg"]["channel"] == "trades",
        lambda message: data(message)["px"],
        lambda message: data(message)["sz"],
        10,
        at_once=False,
    ),
}


@recorded
@pytest.mark.parametrize("kind", VENUES)
def test_nothing_recorded_raises(kind: str) -> None:
    """Also shapes of earlier years; what a session contains besides trades is no malformed trade."""
    venue = VENUES[kind].for_connection()
    count = 0
    for frame in frames(kind):
        count += 1
        meaning = venue.read(frame.text.encode())
        found = venue.trades(frame.text.encode())
        assert found.malformed + len(found.trades) >= 0
        if isinstance(meaning, Trades) and kind in KNOWN:
            assert venue.trades(meaning.body).malformed == 0
    assert count > 0


@recorded
@pytest.mark.parametrize("kind", KNOWN)
def test_all_recorded_trades_are_found(kind: str) -> None:
    """They are compared with the standard library's reading, and their times with those of their receipt."""
    venue, known = VENUES[kind].for_connection(), KNOWN[kind]
    found: list[tuple[Trade, Frame]] = []
    expected: list[tuple[float, float]] = []
    for frame in frames(kind):
        message = json.loads(frame.text)
        meaning = venue.read(frame.text.encode())
        assert isinstance(meaning, Trades) == known.is_trade(message), frame
        if isinstance(meaning, Trades):
            found += [(trade, frame) for trade in venue.trades(meaning.body).trades]
            expected.append((float(known.price(message)), float(known.volume(message))))
    assert [(trade.price, trade.volume) for trade, _ in found] == expected
    assert len(found) >= known.least
    for trade, frame in found:
        assert trade.side in ("buy", "sell")
        assert trade.symbol in frame.text.replace("live_trades_", "")
        if frame.received_at is not None and known.at_once:
            assert abs(trade.timestamp - frame.received_at) < 30_000
    if venue.contiguous_ids or kind == "okx":
        assert {type(trade.id) for trade, _ in found} == {int}


@recorded
@pytest.mark.parametrize("kind", ["bitstamp", "coinbase", "gateio", "kucoin", "okx"])
def test_recorded_acknowledgements_are_read(kind: str) -> None:
    meanings = [VENUES[kind].read(frame.text.encode()) for frame in frames(kind)]
    assert any(isinstance(meaning, Subscribed) for meaning in meanings)


@recorded
def test_a_recorded_trade_of_bitfinex_is_found_once() -> None:
    """The session had begun before; there are also trades of other kinds, and a snapshot."""
    venue = VENUES["bitfinex"].for_connection()
    venue.read(b'{"event":"subscribed","channel":"trades","chanId":18788,"symbol":"tBTCUSD"}')
    found: list[Trade] = []
    for frame in frames("bitfinex"):
        meaning = venue.read(frame.text.encode())
        if isinstance(meaning, Trades):
            found += venue.trades(meaning.body).trades
    assert found == [Trade("tBTCUSD", 102570.0, 1734237017719, 0.00991467, "buy", 5690221201)]


@recorded
def test_other_streams_of_binance_are_no_trades() -> None:
    """Its recordings have only other streams: aggregated trades, books, candles."""
    for frame in frames("binance"):
        assert not isinstance(VENUES["binance"].read(frame.text.encode()), Trades)
