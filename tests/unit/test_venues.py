"""The conformance suite: what holds for every venue. Its frames are in `tests/venue_samples/`."""

from __future__ import annotations

import itertools
import json
import random
import re
from collections.abc import Iterator, Sequence
from functools import cache
from math import isfinite
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from venue_samples import SAMPLES
from venue_samples.sample import Sample, at, dump

from marketflow.adapters.exchange.checks import Checks, Quotes
from marketflow.adapters.exchange.venues.registry import VENUES
from marketflow.adapters.exchange.venues.venue import Found, Notice, Rejected, Subscribed, Trades, Venue

NOW = 1795343351549
DOCUMENT = Path(__file__).parents[2] / "docs" / "venues.md"
each_venue = pytest.mark.parametrize("kind", VENUES)
each_with_sides = pytest.mark.parametrize("kind", [kind for kind, sample in SAMPLES.items() if sample.sides])
each_with_several = pytest.mark.parametrize(
    "kind", [kind for kind, sample in SAMPLES.items() if sample.has_several]
)
MEANINGS = [(kind, name) for kind, sample in SAMPLES.items() for name in sample.meanings]


def test_each_venue_has_a_sample() -> None:
    assert SAMPLES.keys() == VENUES.keys()
    assert [venue.kind for venue in VENUES.values()] == [*VENUES]


# ---- trades ----


@each_venue
def test_a_trade_is_read(kind: str) -> None:
    sample, venue = SAMPLES[kind], VENUES[kind]
    found = sample.found(venue, sample.frame)
    assert found == Found([sample.trade])
    assert type(found.trades[0].id) is type(sample.trade.id)


@each_venue
def test_order_and_white_space_do_not_matter(kind: str) -> None:
    """Nor do members that are not known, or characters that are escaped."""
    sample, venue = SAMPLES[kind], VENUES[kind]
    document = with_unknown_members(reordered(sample.document))
    for frame in (
        dump(document),
        json.dumps(document, indent=4).encode(),
        b" \r\n\t" + json.dumps(document, separators=(" ,\t", " : ")).encode() + b"\n",
        sample.frame.replace(b"T", b"\\u0054"),
    ):
        assert sample.found(venue, frame) == Found([sample.trade])


def reordered(value: Any) -> Any:
    """The same with the members of all objects in reverse."""
    if isinstance(value, dict):
        return {name: reordered(value[name]) for name in reversed(value)}
    return [reordered(each) for each in value] if isinstance(value, list) else value


def with_unknown_members(value: Any) -> Any:
    """The same with more members in all objects."""
    if isinstance(value, dict):
        known = {name: with_unknown_members(each) for name, each in value.items()}
        return {"unknown": [1, {"price": 5}], **known, "other": {"data": None}}
    return [with_unknown_members(each) for each in value] if isinstance(value, list) else value


@each_venue
@pytest.mark.parametrize(
    "value", ["NaN", "nan", "Infinity", "-Infinity", "1e999", "", "one", None, True, [], {}, [1], {"a": 1}]
)
def test_a_price_that_is_no_finite_number_is_malformed(kind: str, value: object) -> None:
    sample, venue = SAMPLES[kind], VENUES[kind]
    assert sample.found(venue, sample.with_field(sample.price, value)) == Found([], 1)


@each_venue
@pytest.mark.parametrize(("value", "price"), [("0", 0.0), ("-1.5", -1.5), (0, 0.0), ("2e-07", 2e-07)])
def test_any_finite_price_is_read(kind: str, value: object, price: float) -> None:
    """Prices that are not positive are rejected later, with a reason of their own."""
    sample, venue = SAMPLES[kind], VENUES[kind]
    frame = sample.with_field(sample.price, value)
    assert sample.found(venue, frame) == Found([sample.changed(price=price)])


@each_venue
@pytest.mark.parametrize("value", ["NaN", "Infinity", "", "one", None, True, [], {}, [1], "1e999"])
def test_a_trade_counts_without_a_volume_that_is_no_number(kind: str, value: object) -> None:
    sample, venue = SAMPLES[kind], VENUES[kind]
    frame = sample.with_field(sample.volume, value)
    side = sample.trade.side if sample.side is not None else None
    assert sample.found(venue, frame) == Found([sample.changed(volume=None, side=side)])


@each_venue
def test_a_volume_may_be_out_of_range(kind: str) -> None:
    """Also a number that is not written as text."""
    sample, venue = SAMPLES[kind], VENUES[kind]
    frame = sample.with_field(sample.volume, "@").replace(b'"@"', b"1e999")
    (trade,), malformed = sample.found(venue, frame)
    assert (trade.price, trade.volume, malformed) == (sample.trade.price, None, 0)


@each_with_sides
def test_a_trade_may_have_no_volume(kind: str) -> None:
    """That differs from a volume that does not count. Trades of Bitfinex are arrays, so all have one."""
    sample, venue = SAMPLES[kind], VENUES[kind]
    document = sample.document
    del at(document, sample.at)[sample.volume]
    assert sample.found(venue, dump(document)) == Found([sample.changed(volume=msgspec.UNSET)])


@each_with_sides
def test_sides_are_those_of_the_taker(kind: str) -> None:
    sample, venue = SAMPLES[kind], VENUES[kind]
    assert sample.side is not None
    assert set(sample.sides.values()) == {"buy", "sell"}
    for told, side in sample.sides.items():
        frame = sample.with_field(sample.side, told)
        assert sample.found(venue, frame) == Found([sample.changed(side=side)])


@each_with_sides
@pytest.mark.parametrize("value", ["left", None, [], {}, 1.5])
def test_a_trade_counts_without_a_side_that_is_not_known(kind: str, value: object) -> None:
    sample, venue = SAMPLES[kind], VENUES[kind]
    assert sample.side is not None
    frame = sample.with_field(sample.side, value)
    assert sample.found(venue, frame) == Found([sample.changed(side=None)])


@each_venue
def test_times_are_read(kind: str) -> None:
    sample, venue = SAMPLES[kind], VENUES[kind]
    for told, timestamp in sample.times.items():
        frame = sample.with_field(sample.time, told)
        assert sample.found(venue, frame) == Found([sample.changed(timestamp=timestamp)])


@each_venue
@pytest.mark.parametrize("value", ["", "now", None, True, [], {}, "NaN", "Infinity", "2026-11-22T10:29:11.5"])
def test_a_trade_without_a_time_is_malformed(kind: str, value: object) -> None:
    """A time without a time zone is none."""
    sample, venue = SAMPLES[kind], VENUES[kind]
    assert sample.found(venue, sample.with_field(sample.time, value)) == Found([], 1)


@each_venue
def test_ids_are_numbers_where_the_venue_writes_numbers(kind: str) -> None:
    sample, venue = SAMPLES[kind], VENUES[kind]
    for told, expected in sample.ids.items():
        (trade,), _ = sample.found(venue, sample.with_field(sample.id, told))
        assert (trade.id, type(trade.id)) == (expected, type(expected))


@each_venue
def test_an_id_is_the_same_beside_a_trade_that_is_malformed(kind: str) -> None:
    """Or trades would be taken for others when they come again."""
    sample, venue = SAMPLES[kind], VENUES[kind]
    for told in (*sample.ids, sample.trade.id):
        (usual,), _ = sample.found(venue, sample.with_field(sample.id, told))
        document = json.loads(sample.with_field(sample.id, told))
        at(document, sample.at)[sample.volume] = None
        (unusual,), _ = sample.found(venue, dump(document))
        assert (usual.id, type(usual.id)) == (unusual.id, type(unusual.id))


@each_venue
def test_a_trade_in_another_unit_of_time_is_rejected(kind: str) -> None:
    """It is far in the past or in the future. A price of 0 is rejected too, each with its reason."""
    sample, venue = SAMPLES[kind], VENUES[kind]
    checks = Checks(frozenset({sample.trade.symbol}), interval=60_000, lateness=120_000)

    def rejected(frame: bytes) -> dict[str, int]:
        trades, malformed = sample.found(venue, frame)
        decoded = checks.decoded(trades, {"malformed": malformed}, NOW, told=True)
        return {reason: count for reason, count in decoded.rejected.items() if count}

    assert rejected(sample.frame) == {}
    assert rejected(sample.with_field(sample.price, "0")) == {"price": 1}
    for value in sample.other_units:
        assert rejected(sample.with_field(sample.time, value)) in ({"late": 1}, {"future": 1})


BAD_ITEMS = (None, True, 5, "text", [], {}, [[]], {"price": "1"})


@each_with_sides
def test_a_trade_may_have_no_side(kind: str) -> None:
    sample, venue = SAMPLES[kind], VENUES[kind]
    document = sample.document
    del at(document, sample.at)[sample.side]
    assert sample.found(venue, dump(document)) == Found([sample.changed(side=None)])


def test_the_side_of_bitfinex_is_the_sign_of_the_amount() -> None:
    sample, venue = SAMPLES["bitfinex"], VENUES["bitfinex"]
    for amount, side in ((0.5, "buy"), (-0.5, "sell"), (2, "buy"), (-2, "sell"), ("-0.5", "sell")):
        frame = sample.with_field(sample.volume, amount)
        assert sample.found(venue, frame) == Found([sample.changed(side=side, volume=abs(float(amount)))])


@each_with_several
def test_each_good_trade_beside_a_bad_one_is_found(kind: str) -> None:
    sample, venue = SAMPLES[kind], VENUES[kind]
    good = at(sample.document, sample.at)
    bad = [{**good, sample.price: "NaN"}, {**good, sample.time: None}, *BAD_ITEMS]
    for order in itertools.islice(itertools.permutations([good, good, *bad[:3]]), 0, None, 7):
        assert sample.found(venue, sample.with_trades(order)) == Found([sample.trade] * 2, 3)
    chance = random.Random(7)
    for _ in range(50):
        items = [good, *chance.choices(bad, k=4), good, *chance.choices(bad, k=4)]
        chance.shuffle(items)
        assert sample.found(venue, sample.with_trades(items)) == Found([sample.trade] * 2, 8)
    assert sample.found(venue, sample.with_trades([])) == Found([])
    assert sample.found(venue, sample.with_trades([good] * 1024)) == Found([sample.trade] * 1024)


@each_with_several
def test_a_bad_trade_among_thousands_costs_only_itself(kind: str) -> None:
    sample, venue = SAMPLES[kind], VENUES[kind]
    good = at(sample.document, sample.at)
    items = [good] * 5_000
    items[3_333] = {**good, sample.price: "NaN"}
    assert sample.found(venue, sample.with_trades(items)) == Found([sample.trade] * 4_999, 1)


@each_with_several
def test_thousands_of_bad_trades_are_not_all_read_one_by_one(kind: str) -> None:
    """That would hold up all exchanges. Good ones that follow each other are found nevertheless."""
    sample, venue = SAMPLES[kind], VENUES[kind]
    good = at(sample.document, sample.at)
    bad = {**good, sample.price: "NaN"}
    items = [good, bad] * 4_000 + [good] * 100
    assert sample.found(venue, sample.with_trades(items)) == Found([sample.trade] * 2_100, 6_000)


# ---- many messages together ----


def bodies_of(sample: Sample, venue: Venue, frames: list[bytes]) -> list[bytes]:
    """The bodies of frames that have trades."""
    connection = sample.connection(venue)
    return [meaning.body for frame in frames if isinstance(meaning := connection.read(frame), Trades)]


def one_by_one(venue: Venue, bodies: list[bytes]) -> dict[str, list[tuple[Any, ...]]]:
    """The trades of some bodies by symbol."""
    trades: dict[str, list[tuple[Any, ...]]] = {}
    for body in bodies:
        for trade in venue.trades(body).trades:
            row = (trade.timestamp, trade.price, trade.volume, trade.side, trade.id)
            trades.setdefault(trade.symbol, []).append(row)
    return trades


def rows(groups: Sequence[Quotes]) -> dict[str, list[tuple[Any, ...]]]:
    """The same of trades that are columns."""
    return {
        group.symbol: list(
            zip(
                group.timestamps, group.prices, group.volumes or (), group.sides, group.ids or (), strict=True
            )
        )
        for group in groups
    }


def usual_frames(sample: Sample) -> list[bytes]:
    """Frames whose trades differ in all that may differ."""
    frames = [sample.frame]
    frames += [sample.with_field(sample.price, price) for price in ("0.25", "77000", "2e-07")]
    frames += [sample.with_field(sample.time, time) for time in sample.times]
    if sample.side is not None:
        frames += [sample.with_field(sample.side, side) for side in sample.sides]
    return frames


@each_venue
def test_messages_together_have_the_trades_that_each_has(kind: str) -> None:
    sample, venue = SAMPLES[kind], VENUES[kind]
    bodies = bodies_of(sample, venue, usual_frames(sample)) * 5
    groups = venue.together(bodies)
    assert groups is not None
    assert rows(groups) == one_by_one(venue, bodies)
    assert sum(len(group.prices) for group in groups) == len(bodies)


@each_venue
def test_messages_are_not_taken_together_with_one_that_is_not_as_usual(kind: str) -> None:
    """Those would be lost, or two bad messages would make a good one."""
    sample, venue = SAMPLES[kind], VENUES[kind]
    (good,) = bodies_of(sample, venue, [sample.frame])
    nan, volume = (
        bodies_of(sample, venue, [sample.with_field(field, "NaN")])[0]
        for field in (sample.price, sample.volume)
    )
    begin, end = good[:1], good[-1:]
    for bad in (
        [nan],
        [volume],
        [b""],
        [b"garbage"],
        [good[:-1]],
        [good + good],
        [good + b"\n" + good],
        [good[:-1] + b",", b'"a":1' + end],
        [good + b" " + good[:-1], b',"a":1' + end],
        [begin + b'"a":"' + end, begin + good[1:]],
    ):
        assert venue.together([good, *bad, good]) is None
        assert venue.together([*bad, good]) is None
    assert venue.together([good, good]) is not None


@each_venue
@given(data=st.data())
def test_any_messages_together_have_the_trades_that_each_has(kind: str, data: st.DataObject) -> None:
    """Or have to be decoded one by one."""
    sample, venue = SAMPLES[kind], VENUES[kind]
    frames = data.draw(st.lists(st.just(sample.frame) | mutated(kind) | damaged(kind), max_size=4))
    bodies = bodies_of(sample, venue, frames)
    groups = venue.together(bodies)
    if groups is not None:
        assert rows(groups) == one_by_one(venue, bodies)
        assert not any(venue.trades(body).malformed for body in bodies)


@each_venue
@given(data=st.data())
def test_frames_that_surely_are_trades_are(kind: str, data: st.DataObject) -> None:
    sample, venue = SAMPLES[kind], VENUES[kind]
    frame = data.draw(st.just(sample.frame) | mutated(kind) | damaged(kind))
    connection = sample.connection(venue)
    if connection.only_trades([frame]):
        assert connection.read(frame) == Trades(frame)
        assert connection.only_trades([frame, sample.frame])
    else:
        assert not connection.only_trades([sample.frame, frame])


@each_venue
def test_other_frames_are_never_taken_for_trades(kind: str) -> None:
    sample = SAMPLES[kind]
    connection = sample.connection(VENUES[kind])
    assert connection.only_trades([sample.frame]) == (kind != "bitfinex")
    for frame, meaning in sample.meanings.values():
        if not isinstance(meaning, Trades):
            assert not connection.only_trades([sample.frame, frame, sample.frame])


# ---- other frames ----


@pytest.mark.parametrize(("kind", "name"), MEANINGS)
def test_a_frame_has_its_meaning(kind: str, name: str) -> None:
    sample = SAMPLES[kind]
    frame, meaning = sample.meanings[name]
    assert sample.connection(VENUES[kind]).read(frame) == meaning


@pytest.mark.parametrize(("kind", "name"), MEANINGS)
def test_the_form_of_a_frame_does_not_change_its_meaning(kind: str, name: str) -> None:
    sample = SAMPLES[kind]
    frame, meaning = sample.meanings[name]
    connection = sample.connection(VENUES[kind])
    if isinstance(meaning, Trades) or not frame.startswith((b"{", b"[")):
        assert type(connection.read(b" " + frame + b"\n")) is type(meaning)
        return
    document = json.loads(frame)
    if isinstance(document, dict):
        document = {"unknown": 1, **reordered(document)}
    assert connection.read(dump(document)) == meaning
    assert connection.read(json.dumps(document, indent=4).encode()) == meaning


@each_venue
def test_control_frames_and_leaving_are_covered(kind: str) -> None:
    """A sample has at least an acknowledgement, a rejection and a frame that only shows life."""
    kinds = {type(meaning).__name__ for _, meaning in SAMPLES[kind].meanings.values()}
    assert kinds >= {"Subscribed", "Rejected", "Alive"}


@each_venue
@pytest.mark.parametrize("frame", [b"", b"garbage", b'{"', b"\xff\xfe", b"[" * 5_000, b"nul"])
def test_what_cannot_be_read_counts_as_malformed(kind: str, frame: bytes) -> None:
    """It may have been trades."""
    sample, venue = SAMPLES[kind], VENUES[kind]
    assert sample.found(venue, frame) == Found([], 1)


@each_venue
def test_a_message_that_says_nothing_known_shows_life(kind: str) -> None:
    sample = SAMPLES[kind]
    for frame in (b"{}", b'{"type":5}', b'{"channel":[],"event":{},"e":1.5,"op":null,"topic":{}}'):
        assert not isinstance(sample.connection(VENUES[kind]).read(frame), Trades | Subscribed | Rejected), (
            frame
        )


# ---- requests ----


@each_venue
def test_requests_are_as_the_venue_wants_them(kind: str) -> None:
    sample, venue = SAMPLES[kind], VENUES[kind]
    symbols, expected = sample.request
    assert len(symbols) <= venue.rules.batch
    request = venue.subscribe([venue.canonical(symbol) for symbol in symbols], 7, NOW)
    assert json.loads(request) == expected


@each_venue
def test_requests_and_trades_agree_on_symbols(kind: str) -> None:
    """Any form that the configuration may have leads to that of the trades."""
    sample, venue = SAMPLES[kind], VENUES[kind]
    symbol = sample.trade.symbol
    assert venue.canonical(symbol) == symbol
    if venue.spelling("BTCUSDT") is None:
        return
    for configured in (symbol.lower(), symbol.upper()):
        assert venue.canonical(configured) == symbol
    assert venue.canonical(venue.spelling(symbol.upper()) or "") == symbol


def test_only_some_venues_spell_symbols_as_we_do() -> None:
    """Only where nothing but the letters has to be known."""
    spellings = {kind: venue.spelling("BTCUSDT") for kind, venue in VENUES.items()}
    assert {kind: spelling for kind, spelling in spellings.items() if spelling is not None} == {
        "binance": "BTCUSDT",
        "bitstamp": "btcusdt",
        "bybit": "BTCUSDT",
    }


@each_venue
def test_pings_are_sent_where_there_is_an_interval(kind: str) -> None:
    venue = VENUES[kind]
    if venue.rules.ping_every is None:
        with pytest.raises(NotImplementedError):
            venue.ping(8, NOW)
    else:
        assert b"ping" in venue.ping(8, NOW) or b"heartbeat" in venue.ping(8, NOW)
        assert venue.rules.silence > 2 * venue.rules.ping_every


@each_venue
def test_rules_make_sense(kind: str) -> None:
    rules = VENUES[kind].rules
    assert rules.attempts.most >= 1
    assert rules.requests.most >= 1
    assert 1 <= rules.batch <= rules.symbols
    assert 0 < rules.least_pause < 60 <= rules.most_pause


# ---- connections with a state ----


def test_bitfinex_knows_channels_by_connection() -> None:
    """Each numbers its own; a trade of a channel that is not known is not lost silently."""
    sample, venue = SAMPLES["bitfinex"], VENUES["bitfinex"]
    first, second = sample.connection(venue), venue.for_connection()
    other = b'{"event":"subscribed","channel":"trades","chanId":18788,"symbol":"tETHUSD"}'
    assert second.read(sample.frame) == Trades(sample.frame)
    assert venue.trades(sample.frame) == Found([], 1)
    second.read(other)
    symbols = []
    for connection in (first, second):
        meaning = connection.read(sample.frame)
        assert isinstance(meaning, Trades)
        symbols += [trade.symbol for trade in venue.trades(meaning.body).trades]
    assert symbols == ["tBTCUSD", "tETHUSD"]


def test_bitfinex_keeps_no_more_channels_than_it_was_asked_for() -> None:
    connection = VENUES["bitfinex"].for_connection()
    frames = [
        b'{"event":"subscribed","channel":"trades","chanId":%d,"symbol":"t%d"}' % (each, each)
        for each in range(30)
    ]
    meanings = [type(connection.read(frame)) for frame in frames]
    assert meanings == [Subscribed] * connection.rules.symbols + [Notice] * 5


@each_venue
def test_a_venue_without_a_state_serves_all_connections(kind: str) -> None:
    venue = VENUES[kind]
    assert (venue.for_connection() is venue) == (kind != "bitfinex")


# ---- the document ----


@each_venue
def test_the_document_has_the_endpoint_and_the_limits(kind: str) -> None:
    venue, rules = VENUES[kind], VENUES[kind].rules
    rows = re.findall(rf"^\| `{kind}` \| (.*) \|$", DOCUMENT.read_text(encoding="utf-8"), re.MULTILINE)
    endpoint, limits, life, _ = rows
    assert endpoint.startswith(f"`{venue.url}`")
    assert life
    assert limits.split(" | ") == [
        f"{rules.attempts.most} in {rules.attempts.seconds:g}",
        f"{rules.requests.most} in {rules.requests.seconds:g}"
        + ", pongs too" * rules.pongs_are_requests
        + ", all connections together" * rules.requests_by_address,
        str(rules.batch),
        str(rules.symbols),
        "none" if rules.ping_every is None else f"{rules.ping_every:g}",
        f"{rules.silence:g}",
        "none" if rules.lifetime is None else f"{rules.lifetime / 3_600:g} h",
    ]
    assert ("without gaps" in endpoint) == venue.contiguous_ids
    assert ("(any case)" in endpoint) == (venue.spelling("BTCUSDT") is not None)


# ---- any bytes ----

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


def paths(document: Any, before: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The paths of all values within a document."""
    if isinstance(document, dict):
        inner: Any = document.items()
    elif isinstance(document, list):
        inner = enumerate(document)
    else:
        return
    for step, value in inner:
        yield (*before, step)
        yield from paths(value, (*before, step))


def documents(sample: Sample) -> list[Any]:
    """All messages of a sample that are JSON."""
    frames = [sample.frame, *sample.before, *(frame for frame, _ in sample.meanings.values())]
    return [json.loads(frame) for frame in frames if frame.startswith((b"{", b"["))]


@cache
def mutated(kind: str) -> st.SearchStrategy[bytes]:
    """Good messages in which one or two values are something else, or missing."""
    sample = SAMPLES[kind]
    scalars = [
        value
        for document in documents(sample)
        for path in paths(document)
        if not isinstance(value := at(document, path), dict | list)
    ]
    values = JSON | st.sampled_from(scalars) | st.sampled_from(["NaN", "-Infinity", 10**400, "1" * 400])

    @st.composite
    def build(draw: st.DrawFn) -> bytes:
        document = draw(st.sampled_from(documents(sample)))
        document = json.loads(json.dumps(document))
        for _ in range(draw(st.integers(1, 2))):
            places = [*paths(document)]
            if not places:
                break
            *parents, last = draw(st.sampled_from(places))
            parent = at(document, tuple(parents))
            if draw(st.booleans()):
                del parent[last]
            else:
                parent[last] = draw(values)
        return dump(document)

    return build()


@cache
def damaged(kind: str) -> st.SearchStrategy[bytes]:
    """Good frames of which some bytes are others, or missing, and frames of any bytes."""
    sample = SAMPLES[kind]
    frames = [sample.frame, *sample.before, *(frame for frame, _ in sample.meanings.values())]
    pieces = st.builds(
        lambda frame, start, end, piece: frame[:start] + piece + frame[end:],
        st.sampled_from(frames),
        st.integers(0, 300),
        st.integers(0, 300),
        st.binary(max_size=4),
    )
    return st.binary(max_size=64) | JSON.map(dump) | pieces


def check_any(sample: Sample, venue: Venue, frame: bytes) -> None:
    """Nothing is raised, and what is found is sound."""
    meaning = sample.connection(venue).read(frame)
    venue.for_connection().read(frame)
    for body in {frame, meaning.body} if isinstance(meaning, Trades) else {frame}:
        trades, malformed = venue.trades(body)
        assert malformed >= 0
        for trade in trades:
            assert type(trade.symbol) is str
            assert type(trade.price) is float
            assert isfinite(trade.price)
            assert type(trade.timestamp) is int
            assert type(trade.id) in (int, str)
            assert trade.side in ("buy", "sell", None)
            assert trade.volume in (None, msgspec.UNSET) or (
                type(trade.volume) is float and isfinite(trade.volume)
            )


@each_venue
@given(data=st.data())
def test_any_bytes_are_read(kind: str, data: st.DataObject) -> None:
    check_any(SAMPLES[kind], VENUES[kind], data.draw(damaged(kind)))


@each_venue
@given(data=st.data())
def test_any_change_of_a_message_is_read(kind: str, data: st.DataObject) -> None:
    check_any(SAMPLES[kind], VENUES[kind], data.draw(mutated(kind)))
