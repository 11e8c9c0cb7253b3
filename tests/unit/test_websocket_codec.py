from __future__ import annotations

import json

import pytest
from wire_commands import commands_of

from marketflow.adapters.cache.members import UpdatesPacker, read_member
from marketflow.adapters.exchange.checks import Checks
from marketflow.adapters.exchange.venues.kraken import Kraken
from marketflow.adapters.exchange.websocket.codec import VenueDecoder
from marketflow.adapters.exchange.websocket.frames import Frames
from marketflow.app.ports import Written
from tests.websocket_exchange import PlainVenue

NOW = 1_795_343_351_549
NAMES = {"a-usd": "AUSD", "b-usd": "BUSD", "CUSD": "DUSD"}
CHECKS = Checks(frozenset({"AUSD", "BUSD", "CUSD", "DUSD"}), 60_000, 120_000)


def decoded(*bodies, venue=None):
    frames = tuple(json.dumps({"trades": trades}).encode() for trades in bodies)
    decode = VenueDecoder(PlainVenue() if venue is None else venue, NAMES, CHECKS)
    return decode(Frames(frames, NOW, NOW, 1.0))


def test_trades_of_all_messages_are_grouped_by_our_symbols():
    found = decoded([["a-usd", 1.0, NOW, 1], ["b-usd", 2.0, NOW, 1]], [["a-usd", 3.0, NOW + 1, 2]])
    assert [(each.symbol, each.columns.prices, each.columns.ids) for each in found.updates] == [
        ("AUSD", [1.0, 3.0], ["1", "2"]),
        ("BUSD", [2.0], ["1"]),
    ]
    assert (found.received, found.rejected, found.ignored_volumes) == (3, {}, 0)


@pytest.mark.parametrize("spelling", ["DUSD", "AUSD", "x-usd", ""])
def test_a_spelling_that_is_not_configured_is_rejected(spelling):
    """Also if it happens to be the name of another symbol of ours."""
    found = decoded([[spelling, 1.0, NOW, 1], ["CUSD", 2.0, NOW, 1]])
    assert found.rejected == {"symbol": 1}
    assert [(each.symbol, each.columns.prices) for each in found.updates] == [("DUSD", [2.0])]


def test_of_equal_times_the_greater_id_is_the_later():
    found = decoded([["a-usd", 3.0, NOW, 10], ["a-usd", 1.0, NOW - 1, 11]], [["a-usd", 2.0, NOW, 9]])
    (updates,) = found.updates
    assert updates.columns.ids == ["11", "9", "10"]
    (bar,) = updates.bars.values()
    assert (bar.open, bar.close) == (1.0, 3.0)


def test_without_numbers_the_order_of_receipt_decides():
    found = decoded([["a-usd", 3.0, NOW, "b"], ["a-usd", 1.0, NOW, "a"], ["a-usd", 2.0, NOW - 5, "c"]])
    assert found.updates[0].columns.ids == ["c", "b", "a"]


def test_malformed_and_unacceptable_trades_are_counted():
    found = decoded([["a-usd", 1.0, NOW, 1], ["a-usd"], ["a-usd", -1.0, NOW, 2], ["b-usd", 1.0, 5, 3]])
    assert found.rejected == {"malformed": 1, "price": 1, "late": 1}
    assert (found.received, found.accepted) == (4, 1)
    assert found.updates[0].columns.ids == ["1"]


def test_ids_of_trades_that_are_not_accepted_have_come():
    """Those of symbols that are not configured belong to no count: several may be mixed."""

    class Contiguous(PlainVenue):
        contiguous_ids = True

    found = decoded(
        [["a-usd", 1.0, NOW, 1], ["a-usd", -1.0, NOW, 2], ["x-usd", 1.0, NOW, 3]], venue=Contiguous()
    )
    assert found.identity.others == {"AUSD": ["2"]}


def test_volumes_and_sides_are_those_of_the_trades():
    trade = '{"symbol":"BTC/USD","side":"buy","price":77313.3,"qty":%s,"trade_id":%d,"timestamp":"%s"}'
    time = "2026-11-22T10:29:11.549000Z"
    trades = [trade % ("0.5", 1, time), trade % ('"x"', 2, time)]
    body = f'{{"channel":"trade","type":"update","data":[{",".join(trades)}]}}'.encode()
    decode = VenueDecoder(Kraken(), {"BTC/USD": "BTCUSD"}, Checks(frozenset({"BTCUSD"}), 60_000, 120_000))
    found = decode(Frames((body,), NOW, NOW, 1.0))
    (updates,) = found.updates
    assert (updates.columns.volumes, updates.columns.sides) == ([0.5, None], ["buy", None])
    assert (updates.columns.ids, found.ignored_volumes) == (["1", "2"], 1)
    assert found.identity.ignored == {"BTCUSD": {1}}


def test_a_volume_that_does_not_count_is_that_of_its_own_trade():
    """Of several trades with one id the first counts, if it is accepted: its volume and no other."""
    good = kraken_body("BTC/USD", 7.0, 1)
    bad, rejected = (kraken_body("BTC/USD", price, 1).replace(b"0.5", b"-1") for price in (7.0, 0))
    decode = VenueDecoder(Kraken(), {"BTC/USD": "BTCUSD"}, Checks(frozenset({"BTCUSD"}), 60_000, 120_000))
    for bodies, places in (
        ((good, bad), {1}),
        ((bad, good), {0}),
        ((rejected, bad, good), {0}),
        ((rejected, good, bad, rejected, bad), {1, 2}),
    ):
        found = decode(Frames(bodies, NOW, NOW, 1.0))
        assert (found.identity.ignored, found.ignored_volumes) == ({"BTCUSD": places}, len(places))


@pytest.mark.parametrize("number", [-1, 2**63, 10**200, "", "a:b", "a b", "\u0663", "x" * 65])
def test_an_id_that_a_member_cannot_have_is_malformed(number):
    """The window could not be written, or read."""
    found = decoded([["a-usd", 1.0, NOW, number], ["a-usd", 2.0, NOW, 7]])
    assert (found.rejected, found.updates[0].columns.ids) == ({"malformed": 1}, ["7"])


@pytest.mark.parametrize("number", [0, 2**63 - 1, "x" * 64, "62fade002e113d292303a18b"])
def test_other_ids_can_be_written_and_read(number):
    (updates,) = decoded([["a-usd", 1.0, NOW, number]]).updates
    data, _ = UpdatesPacker(b"boot").pack({b"key": [Written("x", "AUSD", [NOW], updates.columns)]})
    ((_, _, _, member),) = commands_of(data)
    assert read_member(("x", "AUSD"), member, NOW).id == str(number)


def kraken_body(symbol: str, price: object, number: int, millisecond: int = 549) -> bytes:
    trade = {
        "symbol": symbol,
        "side": "buy",
        "price": price,
        "qty": 0.5,
        "trade_id": number,
        "timestamp": f"2026-11-22T10:29:11.{millisecond}000Z",
    }
    return json.dumps({"channel": "trade", "type": "update", "data": [trade]}).encode()


def test_many_messages_are_decoded_as_if_they_were_one():
    """Each symbol in the order of time and id, and a bad message costs only itself."""
    names = {"BTC/USD": "BTCUSD", "ETH/USD": "ETHUSD"}
    decode = VenueDecoder(Kraken(), names, Checks(frozenset(names.values()), 60_000, 120_000))
    good = [
        kraken_body("BTC/USD", 3.0, 10),
        kraken_body("ETH/USD", 7.0, 1),
        kraken_body("BTC/USD", 2.0, 9),
        kraken_body("BTC/USD", 1.0, 11, 548),
        kraken_body("XRP/USD", 1.0, 1),
    ]
    for bad in ([], [b"garbage"], [kraken_body("BTC/USD", "NaN", 12)]):
        found = decode(Frames((*good, *bad), NOW, NOW, 1.0))
        assert [(each.symbol, each.columns.prices, each.columns.ids) for each in found.updates] == [
            ("BTCUSD", [1.0, 2.0, 3.0], ["11", "9", "10"]),
            ("ETHUSD", [7.0], ["1"]),
        ]
        assert found.rejected == {"symbol": 1} | ({"malformed": 1} if bad else {})
        assert found.received == len(good) + len(bad)


@pytest.mark.parametrize("count", [1, 7, 8, 50])
def test_ids_are_texts_as_the_venue_writes_them(count):
    numbers = [2**63 - count + place for place in range(count)]
    (updates,) = decoded(*[[["a-usd", 1.0, NOW, number]] for number in numbers]).updates
    assert updates.columns.ids == [str(number) for number in numbers]
