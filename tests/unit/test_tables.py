from __future__ import annotations

import re

import attrs
import pytest
from client_answers import health_of

from marketflow.client import tables
from marketflow.client.answers import (
    Aggregate,
    Candle,
    Candles,
    Exchange,
    Exchanges,
    Health,
    Mode,
    Price,
    Prices,
    Statistic,
    read,
)
from marketflow.client.errors import NotUnderstood

AT = 1795363327057
TIME = "2026-11-22T16:02:07.057Z"


def test_latest():
    """Columns line up, with exact prices right-aligned; a single price has the same form."""
    first, second = Price("BTCUSDT", "e", 100832.99816104842, AT, "redis"), Price("X", "ee", 2e-07, 0, None)

    assert tables.latest(Prices([first, second])).splitlines() == [
        "exchange  symbol                price  time                      source",
        f"e         BTCUSDT  100832.99816104842  {TIME}  redis",
        "ee        X                     2e-07  1970-01-01T00:00:00.000Z",
    ]
    assert tables.latest(first).splitlines()[1].split() == [
        "e",
        "BTCUSDT",
        "100832.99816104842",
        TIME,
        "redis",
    ]
    assert tables.latest(Prices([])) == "exchange  symbol  price  time  source"


def test_latest_with_volumes():
    """There is a column of exact volumes if any update told one; 0 is a volume, too."""
    told = Price("A", "e", 1.5, AT, "redis", volume=0.000123456789)
    zero = Price("B", "e", 2.5, AT, "redis", volume=0.0)

    assert tables.latest(Prices([told, zero, Price("C", "e", 3.5, AT, "redis")])).splitlines() == [
        "exchange  symbol  price          volume  time                      source",
        f"e         A         1.5  0.000123456789  {TIME}  redis",
        f"e         B         2.5             0.0  {TIME}  redis",
        f"e         C         3.5               -  {TIME}  redis",
    ]


def test_an_average_is_of_all_exchanges():
    text = tables.statistics(Statistic("X", None, "1m", 1.5, 3, AT - 60_000, AT, "memory"))

    assert text.splitlines()[1].split() == [
        "all",
        "X",
        "1.5",
        "3",
        "2026-11-22T16:01:07.057Z",
        TIME,
        "memory",
    ]


def test_aggregate():
    text = tables.aggregate(Aggregate("X", "e", "1m", 2.0, 1.0, 4.0, 1.5, 3.5, 7, 0, AT, "redis"))

    assert dict(line.split() for line in text.splitlines()) == {
        "exchange": "e",
        "symbol": "X",
        "average": "2.0",
        "min": "1.0",
        "max": "4.0",
        "open": "1.5",
        "close": "3.5",
        "updates": "7",
        "from": "1970-01-01T00:00:00.000Z",
        "to": TIME,
        "source": "redis",
    }


def test_aggregate_with_volumes():
    """Unknown fields have no line. Here no update has a side."""
    text = tables.aggregate(
        Aggregate(
            *("X", "e", "1m", 2.0, 1.0, 4.0, 1.5, 3.5, 7, 0, AT, "redis"),
            volume=12.5,
            quote_volume=25.0,
            volume_updates=6,
            vwap=2.0,
        )
    )

    assert [line.split() for line in text.splitlines()][7:13] == [
        ["updates", "7"],
        ["volume", "12.5"],
        ["quote_volume", "25.0"],
        ["volume_updates", "6"],
        ["vwap", "2.0"],
        ["from", "1970-01-01T00:00:00.000Z"],
    ]
    sides = tables.aggregate(
        Aggregate(
            *("X", "e", "1m", 2.0, 1.0, 4.0, 1.5, 3.5, 7, 0, AT, "redis"), buy_volume=0.0, sell_volume=12.5
        )
    )
    assert re.findall(r"(buy|sell)_volume +(\S+)", sides) == [("buy", "0.0"), ("sell", "12.5")]


def test_candles():
    """It shows whether they are closed, and how to get the next page."""
    page = Candles([Candle(0, 1.0, 2.0, 0.5, 1.5, 1.25, 3, closed=True)], AT)

    head, row, more = tables.candles(page).splitlines()
    assert dict(zip(head.split(), row.split(), strict=True)) == {
        "from": "1970-01-01T00:00:00.000Z",
        "open": "1.0",
        "high": "2.0",
        "low": "0.5",
        "close": "1.5",
        "average": "1.25",
        "updates": "3",
        "closed": "yes",
    }
    assert more == f"more with --start {AT}"


def candle(**volumes: float | None) -> Candle:
    return Candle(0, 1.0, 2.0, 0.5, 1.5, 1.25, 3, closed=True, **volumes)


@pytest.mark.parametrize(
    ("candles", "columns"),
    [
        ([candle(volume=None, volume_updates=0, vwap=None)], {}),
        (
            [
                candle(volume=2.5, volume_updates=3, vwap=1.125),
                candle(volume=0.0, volume_updates=3, vwap=None),
            ],
            {"volume": ["2.5", "0.0"], "vwap": ["1.125", "-"]},
        ),
        (
            [candle(), candle(volume=2.5, volume_updates=2, vwap=1.125)],
            {"volume": ["-", "2.5"], "vwap": ["-", "1.125"], "volume_updates": ["0", "2"]},
        ),
    ],
    ids=["untold", "of all", "of some"],
)
def test_candles_with_volumes(candles, columns):
    """Columns about volumes are there if any is known, and so far as they say more."""
    head, *rows = [line.split() for line in tables.candles(Candles(candles, None)).splitlines()]

    assert head == ["from", "open", "high", "low", "close", "average", "updates", *columns, "closed"]
    assert [row[7:-1] for row in rows] == [
        [column[at] for column in columns.values()] for at in range(len(rows))
    ]


def test_health():
    """It has the whole report: stores with the reason, exchanges, the ledger, and losses with reasons."""
    report = health_of(postgres="away", error="it is gone", e1="connected", test1="off")

    text = tables.health(report)
    lines = [re.split(r"\s{2,}", line) for line in text.splitlines()]
    assert ["postgres", f"away since {TIME}: it is gone"] in lines
    assert ["uptime", "1h"] in lines
    assert ["e1", "connected", "0.2s", "1"] in lines
    assert ["test1", "off", "-", "1"] in lines
    assert ["e1", "9", "7", "2", "7", "0", "0", "0"] in lines
    assert ["all", "9", "7", "2", "7", "0", "0", "0"] in lines
    assert lines[-1] == ["rejected: price", "2"]


def with_venue() -> Health:
    """A report about an exchange of lines, and a real one."""
    report = health_of(e1="connected", k="connected")
    venue = attrs.evolve(
        report.exchanges["k"],
        kind="kraken",
        activity="subscribing 1 of 3",
        rejected_symbols=["XUSDT", "YUSDT"],
        gaps=12,
        symbols={"BTCUSDT": "BTC/USDT"},
    )
    return attrs.evolve(report, exchanges={"e1": report.exchanges["e1"], "k": venue})


def test_health_of_venues():
    """If there is a real exchange, the table of exchanges has its kind, activity and what it lacks."""
    lines = tables.health(with_venue()).split("\n\n")[1].splitlines()

    assert lines == [
        "exchange  status     last update  reconnects  kind    activity            missing  refuses",
        "e1        connected  0.2s                  1  lines   -                         -  -",
        "k         connected  0.2s                  1  kraken  subscribing 1 of 3       12  XUSDT,YUSDT",
    ]
    assert "kind" not in tables.health(health_of(e1="connected"))


def test_exchanges():
    """An exchange that the report does not know yet, or any more, has no kind."""
    answer = Exchanges([Exchange("e1", "live", "connected"), Exchange("k", "live", "stale")])

    assert tables.exchanges(answer, health_of(e1="connected", k="stale")).splitlines() == [
        "exchange  mode  status",
        "e1        live  connected",
        "k         live  stale",
    ]
    answer.exchanges.append(Exchange("new", "test", "off"))
    assert tables.exchanges(answer, with_venue()).splitlines() == [
        "exchange  mode  status     kind    activity            missing  refuses",
        "e1        live  connected  lines   -                         -  -",
        "k         live  stale      kraken  subscribing 1 of 3       12  XUSDT,YUSDT",
        "new       test  off        -       -                         -  -",
    ]


def test_switched():
    assert tables.switched(Mode("test", changed=True)) == "switched to test"
    assert tables.switched(Mode("test", changed=False)) == "it was test already"


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b"<html>", "malformed"),
        (b"\xff", "prices"),
        (b"{}", "missing required field `prices`"),
        (b'{"prices": [{"symbol": 1}]}', "Expected `str`"),
        (b"[" * 100_000, "prices"),
    ],
)
def test_an_answer_of_something_else_is_an_error(body, why):
    """The error says where, and what was expected."""
    with pytest.raises(NotUnderstood, match=rf"the server at http://h is not marketflow.*{why}"):
        read("http://h", body, Prices)
