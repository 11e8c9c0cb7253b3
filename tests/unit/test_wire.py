from __future__ import annotations

import json
import math
from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from marketflow.adapters.exchange.checks import Checks
from marketflow.adapters.exchange.faults import GARBAGE
from marketflow.adapters.exchange.lines import LineFramer, Lines
from marketflow.adapters.exchange.wire import Decoder, encode_line
from marketflow.app.ports import Decoded
from marketflow.domain.bars import by_second
from marketflow.domain.columns import Traded
from marketflow.domain.prices import FUTURE, LATE, MALFORMED, OVERSIZED, PRICE, REASONS, SYMBOL, SYMBOLS

NOW = 1_795_343_351_549
INTERVAL = 60_000
LATENESS = 120_000
EARLIEST = (NOW - LATENESS) // INTERVAL * INTERVAL
LATEST = NOW + 5_000

decode = Decoder(Checks(frozenset(SYMBOLS), INTERVAL, LATENESS))


def lines_of(lines: bytes, oversized: int = 0) -> Lines:
    return Lines(lines, oversized, NOW, 1.5)


def line(symbol='"BTCUSDT"', price="1.5", timestamp=str(NOW), more="") -> bytes:
    return f'{{"symbol":{symbol},"price":{price},"timestamp":{timestamp}{more}}}'.encode()


def accepted_of(batch: Decoded) -> dict[str, list[tuple[int, float]]]:
    return {
        updates.symbol: list(zip(updates.columns.timestamps, updates.columns.prices, strict=True))
        for updates in batch.updates
    }


GOOD = {
    "plain": line(),
    "another symbol": line('"TONUSDT"'),
    "whole price": line(price="7"),
    "exponent": line(price="2e-07"),
    "capital exponent": line(price="1.25E+3"),
    "41-digit price": line(price="9" * 41),
    "300-digit price": line(price="9" * 300),
    "5000-digit fraction": line(price="1." + "3" * 5_000),
    "largest price": line(price="1.7976931348623157e308"),
    "smallest price": line(price="5e-324"),
    "first that is not late": line(timestamp=str(EARLIEST)),
    "last that is not in the future": line(timestamp=str(LATEST)),
    "other order": f'{{"timestamp":{NOW},"price":2.5,"symbol":"SOLUSDT"}}'.encode(),
    "unknown fields": line(more=',"a":null,"b":[1,{"symbol":"x"}],"c":"}\\n{","d":1e999'),
    "5000-digit unknown field": line(more=',"n":' + "9" * 5_000),
    "UTF-8 in an unknown field": line(more=',"note":"Zürich 😀"'),
    "UTF-8 in an unknown key": line(more=',"größe":1'),
    "escaped symbol": line('"\\u0042TCUSDT"'),
    "escaped key": line().replace(b'"symbol"', b'"\\u0073ymbol"'),
    "spaces within": f'{{ "symbol" : "BTCUSDT" ,\t"price" : 1.5 , "timestamp" : {NOW} }}'.encode(),
    "spaces around": b" \t" + line() + b" \t",
    "carriage return": line() + b"\r",
    "two carriage returns": line() + b"\r\r",
    "carriage return within": line().replace(b",", b",\r"),
    "last of two keys": line(more=',"price":4.5'),
    "200 levels in an unknown field": line(more=',"n":' + "[" * 200 + "]" * 200),
}

BAD = {
    "no json": (MALFORMED, b"hello"),
    "empty object": (MALFORMED, b"{}"),
    "array": (MALFORMED, b"[]"),
    "array of columns": (MALFORMED, f'["BTCUSDT",1.5,{NOW}]'.encode()),
    "array of one object": (MALFORMED, b"[" + line() + b"]"),
    "null": (MALFORMED, b"null"),
    "number": (MALFORMED, b"17"),
    "string": (MALFORMED, b'"BTCUSDT"'),
    "two objects": (MALFORMED, line() + line()),
    "two objects apart": (MALFORMED, line() + b" " + line()),
    "two objects, one of them empty": (MALFORMED, b"{}" + line()),
    "two objects and a carriage return": (MALFORMED, line() + b"\r" + line()),
    "two objects and a comma": (MALFORMED, line() + b"," + line()),
    "half": (MALFORMED, line()[:-20]),
    "other half": (MALFORMED, line()[20:]),
    "brace only": (MALFORMED, b"{"),
    "closing brace only": (MALFORMED, b"}"),
    "no end": (MALFORMED, line()[:-1]),
    "one brace too many": (MALFORMED, line() + b"}"),
    "trailing comma": (MALFORMED, line(more=",")),
    "unterminated string": (MALFORMED, b'{"symbol":"BTCUSDT'),
    "unterminated string and a brace": (MALFORMED, line(more=',"note":"}')),
    "comment": (MALFORMED, line(more="/* */")),
    "single quotes": (MALFORMED, line().replace(b'"', b"'")),
    "no symbol": (MALFORMED, f'{{"price":1.5,"timestamp":{NOW}}}'.encode()),
    "no price": (MALFORMED, f'{{"symbol":"BTCUSDT","timestamp":{NOW}}}'.encode()),
    "no timestamp": (MALFORMED, b'{"symbol":"BTCUSDT","price":1.5}'),
    "other case": (MALFORMED, line().replace(b"symbol", b"Symbol")),
    "nested": (MALFORMED, b'{"data":' + line() + b"}"),
    "null symbol": (MALFORMED, line("null")),
    "number symbol": (MALFORMED, line("1")),
    "list symbol": (MALFORMED, line('["BTCUSDT"]')),
    "null price": (MALFORMED, line(price="null")),
    "string price": (MALFORMED, line(price='"1.5"')),
    "true price": (MALFORMED, line(price="true")),
    "list price": (MALFORMED, line(price="[1.5]")),
    "NaN": (MALFORMED, line(price="NaN")),
    "Infinity": (MALFORMED, line(price="Infinity")),
    "-Infinity": (MALFORMED, line(price="-Infinity")),
    "1e400": (MALFORMED, line(price="1e400")),
    "-1e400": (MALFORMED, line(price="-1e400")),
    "310-digit price": (MALFORMED, line(price="9" * 310)),
    "5000-digit price": (MALFORMED, line(price="9" * 5_000)),
    "price with a plus": (MALFORMED, line(price="+1")),
    "price with a leading zero": (MALFORMED, line(price="01.5")),
    "price that ends with a point": (MALFORMED, line(price="1.")),
    "price that begins with a point": (MALFORMED, line(price=".5")),
    "null timestamp": (MALFORMED, line(timestamp="null")),
    "string timestamp": (MALFORMED, line(timestamp=f'"{NOW}"')),
    "true timestamp": (MALFORMED, line(timestamp="true")),
    "timestamp 1.0": (MALFORMED, line(timestamp=f"{NOW}.0")),
    "timestamp 1e3": (MALFORMED, line(timestamp="1e3")),
    "timestamp 1795343351549e0": (MALFORMED, line(timestamp=f"{NOW}e0")),
    "5000-digit timestamp": (MALFORMED, line(timestamp="9" * 5_000)),
    "hexadecimal timestamp": (MALFORMED, line(timestamp="0x1")),
    "3000 levels without an end": (MALFORMED, line(more=',"n":' + "[" * 3_000)),
    "30000 levels of objects": (MALFORMED, b'{"a":' * 10_000 + b"1" + b"}" * 10_000),
    "invalid UTF-8": (MALFORMED, b"\xff\xfe\x00"),
    "invalid UTF-8 in the symbol": (MALFORMED, line().replace(b"BTC", b"BTC\xff")),
    "invalid UTF-8 in a key": (MALFORMED, line(more=',"k?":1').replace(b"?", b"\xc3")),
    "invalid UTF-8 in an unknown field": (MALFORMED, line(more=',"note":"?"').replace(b"?", b"\xff")),
    "invalid UTF-8 in a nested key": (MALFORMED, line(more=',"n":{"?":1}').replace(b"?", b"\x80")),
    "surrogate in UTF-8": (MALFORMED, line(more=',"note":"?"').replace(b"?", b"\xed\xa0\x80")),
    "Latin-1": (MALFORMED, line(more=',"note":"Zürich"').decode().encode("latin-1")),
    "UTF-16": (MALFORMED, line().decode().encode("utf-16-le")),
    "byte order mark": (MALFORMED, b"\xef\xbb\xbf" + line()),
    "NUL": (MALFORMED, b"\x00"),
    "NUL before": (MALFORMED, b"\x00" + line()),
    "NUL after": (MALFORMED, line() + b"\x00"),
    "NUL in an unknown field": (MALFORMED, line(more=',"note":"\x00"')),
    "tabulator in a string": (MALFORMED, line(more=',"note":"\t"')),
    "form feed": (MALFORMED, b"\x0c"),
    "form feed after": (MALFORMED, line() + b"\x0c"),
    "no-break space after": (MALFORMED, line() + b"\xc2\xa0"),
    "bad escape": (MALFORMED, line(more=',"note":"\\x41"')),
    "lone surrogate in an unknown field": (MALFORMED, line(more=',"note":"\\udc00"')),
    "lone surrogate as symbol": (MALFORMED, line('"\\ud800"')),
    "unknown symbol": (SYMBOL, line('"XRPUSDT"')),
    "empty symbol": (SYMBOL, line('""')),
    "small letters": (SYMBOL, line('"btcusdt"')),
    "symbol with a space": (SYMBOL, line('"BTCUSDT "')),
    "symbol in other letters": (SYMBOL, line('"ВТСUSDT"')),  # noqa: RUF001 - Cyrillic on purpose
    "symbol with NUL": (SYMBOL, line('"BTCUSDT\\u0000"')),
    "unknown symbol before bad price": (SYMBOL, line('"XRPUSDT"', price="-1", timestamp="1")),
    "zero": (PRICE, line(price="0")),
    "minus zero": (PRICE, line(price="-0.0")),
    "negative": (PRICE, line(price="-1.5")),
    "1e-400": (PRICE, line(price="1e-400")),
    "bad price before bad time": (PRICE, line(price="-1", timestamp="1")),
    "future": (FUTURE, line(timestamp=str(LATEST + 1))),
    "41-digit timestamp": (FUTURE, line(timestamp="9" * 41)),
    "nanoseconds": (FUTURE, line(timestamp=str(NOW * 1_000_000))),
    "late": (LATE, line(timestamp=str(EARLIEST - 1))),
    "seconds": (LATE, line(timestamp=str(NOW // 1_000))),
    "timestamp zero": (LATE, line(timestamp="0")),
    "negative timestamp": (LATE, line(timestamp=f"-{NOW}")),
    "negative 41-digit timestamp": (LATE, line(timestamp="-" + "9" * 41)),
}

# The decoder's own limit differs between Pythons. Not in GOOD and BAD: the standard library has a limit too.
DEEP = {
    "3000 levels in an unknown field": line(more=',"n":' + "[" * 3_000 + "]" * 3_000),
    "as many levels as a line has room for": line(more=',"n":' + "[" * 32_000 + "]" * 32_000),
    "10000 objects in each other": line(more=',"n":' + '{"a":' * 10_000 + "1" + "}" * 10_000),
    "deep, twice, and with brackets in strings": line(
        more=',"m":' + '["]}\\"",' * 3_000 + "{}" + "]" * 3_000 + ',"n":' + "[" * 3_000 + "]" * 3_000
    ),
    "deep before the known fields": b'{"n":' + b"[" * 5_000 + b"]" * 5_000 + b"," + line()[1:],
}
DEEP_AND_BAD = {
    "3000 levels as a price": (MALFORMED, line(price="[" * 3_000 + "]" * 3_000)),
    "3000 levels of which one is wrong": (MALFORMED, line(more=',"n":' + "[" * 3_000 + "}" + "]" * 2_999)),
    "3000 levels and no value": (MALFORMED, line(more=',"n":' + "[" * 3_000 + "x" + "]" * 3_000)),
    "3000 levels and a comma": (MALFORMED, line(more=',"n":' + "[" * 1_500 + "1," + "]" * 1_500)),
    "3000 levels and one bracket more": (MALFORMED, line(more=',"n":' + "[" * 3_000 + "]" * 3_001)),
    "3000 levels and invalid UTF-8": (
        MALFORMED,
        line(more=',"n":' + "[" * 3_000 + '"?"' + "]" * 3_000).replace(b"?", b"\xff"),
    ),
    "deep, and a string without an end": (
        MALFORMED,
        line(more=',"n":' + "[" * 3_000 + "]" * 3_000 + ',"s":"' + '\\"' * 10_000),
    ),
    "two deep objects": (MALFORMED, 2 * line(more=',"n":' + "[" * 3_000 + "]" * 3_000)),
}

BLANK = [b"", b" ", b"\t", b"\r", b" \t\r"]


@pytest.mark.parametrize("raw", GOOD.values(), ids=GOOD)
def test_good_line(raw):
    """It is accepted with the numbers that Python reads, even next to a line that needs a closer look."""
    alone = decode(lines_of(raw + b"\n"))
    symbol, price, timestamp = (load(raw)[key] for key in ("symbol", "price", "timestamp"))
    assert accepted_of(alone) == {symbol: [(timestamp, float(price))]}
    assert (alone.received, alone.rejected) == (1, {})
    assert decode(lines_of(raw + b"\nhello\n")).updates == alone.updates


@pytest.mark.parametrize(("reason", "raw"), BAD.values(), ids=BAD)
def test_bad_line(reason, raw):
    """It costs only itself, and is counted with its reason."""
    batch = decode(lines_of(line(price="1") + b"\n" + raw + b"\n" + line(price="2") + b"\n"))
    assert batch.rejected == {reason: 1}
    assert batch.received == 3
    assert accepted_of(batch) == {"BTCUSDT": [(NOW, 1.0), (NOW, 2.0)]}


@pytest.mark.parametrize("raw", DEEP.values(), ids=DEEP)
def test_good_line_however_deep_in_an_unknown_field(raw):
    batch = decode(lines_of(line(price="1") + b"\n" + raw + b"\n" + line(price="2") + b"\n"))
    assert (batch.received, batch.rejected) == (3, {})
    assert accepted_of(batch) == {"BTCUSDT": [(NOW, 1.0), (NOW, 1.5), (NOW, 2.0)]}


@pytest.mark.parametrize(("reason", "raw"), DEEP_AND_BAD.values(), ids=DEEP_AND_BAD)
def test_bad_line_however_deep(reason, raw):
    test_bad_line(reason, raw)


@pytest.mark.parametrize("raw", GARBAGE, ids=range(len(GARBAGE)))
def test_simulated_garbage_is_rejected_once_a_line(raw):
    lines, oversized = LineFramer().push(raw + b"\n")
    batch = decode(lines_of(lines, oversized))
    assert (batch.received, sum(batch.rejected.values()), batch.accepted) == (1, 1, 0)


def test_one_object_over_two_lines_is_two_malformed_lines():
    """This holds even with two objects on another line, so that the numbers agree."""
    first, second = line()[:20], line()[20:]
    batch = decode(lines_of(first + b"\n" + second + b"\n" + line() + line() + b"\n" + line() + b"\n"))
    assert (batch.received, batch.rejected, batch.accepted) == (4, {MALFORMED: 3}, 1)


@pytest.mark.parametrize("glue", [b"", b" ", b"\r", b"\t"])
def test_lines_that_look_right_but_hold_two_objects(glue):
    two = line() + glue + line() + b"\n"
    batch = decode(lines_of(two + line(price="9") + b"\n" + two))
    assert (batch.received, batch.rejected) == (3, {MALFORMED: 2})
    assert accepted_of(batch) == {"BTCUSDT": [(NOW, 9.0)]}


def test_a_brace_in_a_string_does_not_hide_a_line():
    """`}`, newline, `{` within what would be one string."""
    batch = decode(lines_of(line(more=',"note":"}\n{"') + b"\n" + line(price="9") + b"\n"))
    assert (batch.received, batch.rejected) == (3, {MALFORMED: 2})
    assert accepted_of(batch) == {"BTCUSDT": [(NOW, 9.0)]}


def test_blank_lines_are_not_received():
    good = line() + b"\n"
    heartbeats = b"".join(blank + b"\n" for blank in BLANK)
    batch = decode(lines_of(heartbeats + good + heartbeats + good + heartbeats))
    assert (batch.received, batch.rejected, batch.accepted) == (2, {}, 2)
    assert decode(lines_of(heartbeats)).received == 0


def test_oversized_lines_are_received_and_rejected():
    batch = decode(lines_of(line() + b"\n", oversized=3))
    assert (batch.received, batch.rejected, batch.accepted) == (4, {OVERSIZED: 3}, 1)
    alone = decode(lines_of(b"", oversized=1))
    assert (alone.received, alone.rejected, list(alone.updates)) == (1, {OVERSIZED: 1}, [])


def test_updates_are_grouped_in_order_with_their_bars():
    ticks = [
        (symbol, index + 1.25, NOW - 3_000 + 700 * (index % 5))
        for index in range(20)
        for symbol in ("SOLUSDT", "BTCUSDT")
    ]
    batch = decode(lines_of(b"".join(encode_line(*tick) for tick in ticks)))
    assert [updates.symbol for updates in batch.updates] == ["SOLUSDT", "BTCUSDT"]
    for updates in batch.updates:
        assert list(zip(updates.columns.prices, updates.columns.timestamps, strict=True)) == [
            (price, timestamp) for symbol, price, timestamp in ticks if symbol == updates.symbol
        ]
        assert updates.bars == by_second(updates.columns.timestamps, updates.columns.prices)


def test_bars_leave_rejected_lines_out():
    lines = [line(price="3"), line(price="-1"), line(price="5"), line(timestamp="1"), line(price="4")]
    [updates] = decode(lines_of(b"\n".join(lines) + b"\n")).updates
    [bar] = updates.bars.values()
    assert (bar.count, bar.open, bar.max, bar.close, bar.close_sequence) == (3, 3.0, 5.0, 4.0, 2)


def load(raw: bytes) -> Any:
    """A line as the standard library reads it, as strict as the wire.

    Raises ValueError for invalid JSON, or for text that cannot be encoded as UTF-8.
    """

    def no_number(name: str) -> float:
        raise ValueError(name)

    # Python reads no integer of more than 4,300 digits.
    found = json.loads(
        raw.decode(),
        parse_constant=no_number,
        parse_int=lambda digits: int(digits) if len(digits) < 4_300 else math.inf,
    )
    json.dumps(found, ensure_ascii=False).encode()
    return found


def model(raw: bytes) -> tuple[str, float, int] | str:
    """The expected result of one line that is not blank: an update, or a reason."""
    try:
        found = load(raw)
        symbol, price, timestamp = found["symbol"], found["price"], found["timestamp"]
        well_formed = (
            type(symbol) is str
            and type(price) in {int, float}
            and type(timestamp) is int
            and math.isfinite(float(price))
        )
    except (ValueError, TypeError, KeyError, RecursionError, OverflowError):
        well_formed = False
    reasons = {
        MALFORMED: lambda: not well_formed,
        SYMBOL: lambda: symbol not in SYMBOLS,
        PRICE: lambda: price <= 0,
        FUTURE: lambda: timestamp > LATEST,
        LATE: lambda: timestamp < EARLIEST,
    }
    first = next((reason for reason, applies in reasons.items() if applies()), None)
    return first or (symbol, float(price), timestamp)


text = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\n"), max_size=8)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text, inner, max_size=3),
    max_leaves=5,
)
near = st.sampled_from([EARLIEST - 1, EARLIEST, NOW, LATEST, LATEST + 1])
objects = st.fixed_dictionaries(
    {},
    optional={
        "symbol": st.sampled_from([*SYMBOLS, "XRPUSDT"]) | text | values,
        "price": st.floats(width=64) | st.integers() | values,
        "timestamp": near | st.integers() | values,
        "note": values,
    },
)
likely = st.fixed_dictionaries(
    {
        "symbol": st.sampled_from(SYMBOLS),
        "price": st.floats(min_value=1e-9, max_value=1e9),
        "timestamp": near,
    },
    optional={"note": values},
)
encoded = st.builds(
    lambda found, ascii_only, tight: json.dumps(
        found, ensure_ascii=ascii_only, separators=(",", ":") if tight else None
    ).encode(),
    likely | objects,
    st.booleans(),
    st.booleans(),
)
damaged = st.builds(
    lambda raw, at, byte, keep: (raw[: at % len(raw)] + byte + raw[at % len(raw) + keep :]).replace(
        b"\n", b""
    ),
    encoded,
    st.integers(0, 500),
    st.binary(max_size=2),
    st.integers(0, 3),
)
raw_lines = st.lists(
    encoded
    | damaged
    | st.sampled_from([raw for _, raw in BAD.values()])
    | st.sampled_from(list(GOOD.values()))
    | st.sampled_from(BLANK)
    | st.binary(max_size=20).map(lambda raw: raw.replace(b"\n", b"")),
    max_size=12,
)


@given(raws=raw_lines, end=st.sampled_from([b"\n", b"\r\n"]), oversized=st.integers(0, 2))
def test_like_line_by_line_with_the_standard_library(raws, end, oversized):
    """Exactly the good lines are accepted, in order, and all others are counted with their reason."""
    batch = decode(lines_of(b"".join(raw + end for raw in raws), oversized))
    expected: dict[str, list[tuple[int, float]]] = {}
    reasons: Counter[str] = Counter({OVERSIZED: oversized} if oversized else {})
    for outcome in (model(raw) for raw in raws if raw.strip(b" \t\r")):
        if isinstance(outcome, str):
            reasons[outcome] += 1
        else:
            symbol, price, timestamp = outcome
            expected.setdefault(symbol, []).append((timestamp, price))
    assert accepted_of(batch) == expected
    assert batch.rejected == reasons
    assert batch.received == sum(batch.rejected.values()) + batch.accepted
    for updates in batch.updates:
        assert updates.bars == by_second(updates.columns.timestamps, updates.columns.prices)


@given(raw=st.binary(max_size=300), oversized=st.integers(0, 3))
def test_no_bytes_break_the_count(raw, oversized):
    batch = decode(lines_of(raw + b"\n", oversized))
    assert batch.received == sum(batch.rejected.values()) + batch.accepted
    assert set(batch.rejected) <= set(REASONS)
    assert all(batch.rejected.values())


def test_encode_line_is_exactly_the_wire_form():
    assert encode_line("BTCUSDT", 100150.75492142327, 1795343351549) == (
        b'{"symbol":"BTCUSDT","price":100150.75492142327,"timestamp":1795343351549}\n'
    )
    assert encode_line("DOGEUSDT", 2e-07, 5) == b'{"symbol":"DOGEUSDT","price":2e-07,"timestamp":5}\n'


@given(
    symbol=st.sampled_from(SYMBOLS),
    price=st.floats(min_value=0, exclude_min=True, allow_infinity=False),
    timestamp=st.integers(EARLIEST, LATEST),
)
def test_what_is_encoded_is_decoded(symbol, price, timestamp):
    batch = decode(lines_of(encode_line(symbol, price, timestamp)))
    assert accepted_of(batch) == {symbol: [(timestamp, price)]}


@given(price=st.from_regex(r"(0|[1-9][0-9]{0,24})(\.[0-9]{1,24})?([eE][-+]?[0-9]{1,3})?", fullmatch=True))
def test_prices_are_read_like_python_reads_them(price):
    """To the last bit, in any notation."""
    raw = line(price=price)
    expected = model(raw)
    batch = decode(lines_of(raw + b"\n"))
    if isinstance(expected, str):
        assert batch.rejected == {expected: 1}
    else:
        assert accepted_of(batch) == {"BTCUSDT": [(NOW, expected[1])]}


def traded(*lines: bytes):
    """What the updates of BTCUSDT have traded, and how many of their volumes were ignored."""
    decoded = decode(lines_of(b"".join(each + b"\n" for each in lines)))
    assert not decoded.rejected
    (updates,) = decoded.updates
    (bar,) = updates.bars.values()
    assert bar.traded == updates.columns.traded
    return bar.traded, decoded.ignored_volumes


def telling(told: bytes) -> bytes:
    return line(price="2.0", more=told.decode())


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        (b',"volume":0.5', Traded(1, 0.5, 1.0)),
        (b',"volume":3', Traded(1, 3.0, 6.0)),
        (b',"volume":0', Traded(1, 0.0, 0.0)),
        (b',"volume":0.5,"side":"buy"', Traded(1, 0.0, 1.0, 0.5, 0.0)),
        (b',"side":"sell","volume":0.5', Traded(1, 0.0, 1.0, 0.0, 0.5)),
        (b',"volume":0.5,"side":"BUY"', Traded(1, 0.5, 1.0)),
        (b',"volume":0.5,"side":7', Traded(1, 0.5, 1.0)),
        (b',"volume":0.5,"side":{"a":1e999}', Traded(1, 0.5, 1.0)),
        (b',"\\u0076olume":0.5', Traded(1, 0.5, 1.0)),
        (b',"side":"buy"', None),
        (b"", None),
    ],
)
def test_a_line_may_tell_its_volume(told, expected):
    assert traded(telling(told)) == (expected, 0)
    # Beside lines that tell nothing, too.
    assert traded(telling(b""), telling(told), telling(b"")) == (expected, 0)


@pytest.mark.parametrize(
    "told", [b'"0.5"', b"-1", b"null", b"true", b"1e19", b"1e999", b"-1e999", b"[1]", b'{"a":1}', b"1" * 500]
)
def test_no_line_is_rejected_for_its_volume(told):
    """It is ignored, and counted; other lines keep theirs."""
    bad = telling(b',"volume":%b,"side":"buy"' % told)
    assert traded(bad) == (None, 1)
    assert traded(telling(b',"volume":0.5'), bad, telling(b"")) == (Traded(1, 0.5, 1.0), 1)


@pytest.mark.parametrize("order", [1, -1])
@pytest.mark.parametrize("side", [b'"buy"', b"[" * 5_000 + b"]" * 5_000])
def test_nor_is_one_that_also_has_a_deep_field(order, side):
    fields = [b'"volume":1e999', b'"deep":' + b"[" * 5_000 + b"]" * 5_000, b'"side":' + side]
    assert traded(telling(b"," + b",".join(fields[::order]))) == (None, 1)


def test_volumes_of_rejected_lines_do_not_count():
    bad = line(price="-1", more=',"volume":"x"')
    decoded = decode(lines_of(telling(b',"volume":1') + b"\n" + bad + b"\n"))
    assert decoded.rejected == {PRICE: 1}
    assert decoded.ignored_volumes == 0
    assert decoded.updates[0].columns.volumes == [1.0]
