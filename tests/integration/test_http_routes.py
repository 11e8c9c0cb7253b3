"""The calls and answers of each route, with the fakes, without a port."""

from __future__ import annotations

import re

import pytest
from test_http_fakes import AWKWARD, TIME

from marketflow.domain.periods import Range

LATEST = {
    "symbol": "BTCUSDT",
    "exchange": "exchange1",
    "price": AWKWARD,
    "timestamp": TIME,
    "source": "redis",
    "volume": 0.25,
}
TRADED = {
    "volume": 12.5,
    "quote_volume": 25.0,
    "buy_volume": 7.5,
    "sell_volume": 5.0,
    "volume_updates": 300,
    "vwap": 2.0,
}
SIDELESS = {**TRADED, "buy_volume": None, "sell_volume": None}


def statistic(exchange, period="1m", start=TIME - 60_000):
    return {
        "symbol": "BTCUSDT",
        "exchange": exchange,
        "period": period,
        "price": AWKWARD,
        "updates": 600,
        "start": start,
        "end": TIME,
        "source": "memory",
    }


async def answer(client, path, status=200):
    response = await client.get(path)
    assert response.status_code == status
    assert response.content_type == "application/json"
    return await response.get_json()


async def test_latest(client):
    assert await answer(client, "/prices/latest/BTCUSDT") == LATEST


async def test_fields_keep_their_order(client):
    body = await (await client.get("/prices/latest")).get_data(as_text=True)
    assert re.findall(r'"(\w+)":', body) == ["prices", *LATEST]


async def test_a_price_is_written_exactly(client):
    response = await client.get("/prices/latest/BTCUSDT")
    assert b'"price":0.30000000000000004,' in await response.get_data(as_text=False)


@pytest.mark.parametrize(
    "path",
    [
        "/prices/latest/exchange2/BTCUSDT",
        "/prices/latest/BTCUSDT?exchange=exchange2",
    ],
)
async def test_the_exchange_may_stand_in_either_place(client, path):
    assert await answer(client, path) == {**LATEST, "exchange": "exchange2"}


async def test_latest_of_all(client, questions):
    assert await answer(client, "/prices/latest") == {"prices": [LATEST]}
    await answer(client, "/prices/latest?symbol=BTCUSDT&exchange=test1")
    assert [each["exchange"] for each in await prices(client, "/prices/latest?exchange=test1,exchange1")] == [
        "test1",
        "exchange1",
    ]
    assert questions.prices.asked == [
        (None, None),
        (("BTCUSDT",), ("test1",)),
        (None, ("test1", "exchange1")),
    ]


async def prices(client, path):
    return (await answer(client, path))["prices"]


@pytest.mark.parametrize("path", ["/prices/latest/btcusdt", "/prices/latest/exchange1/BtcUsdt"])
async def test_the_case_of_a_symbol_does_not_matter(client, path):
    assert await answer(client, path) == LATEST
    assert await prices(client, "/prices/latest?symbol=btcusdt") == [LATEST]


@pytest.mark.parametrize(
    "path",
    [
        "/prices/at/exchange2/btcusdt?time=2026-11-26T10:00:00Z",
        "/prices/at/BTCUSDT?exchange=exchange2&time=1795687200000",
    ],
)
async def test_the_price_at_a_time(client, path):
    assert await answer(client, path) == {
        "symbol": "BTCUSDT",
        "exchange": "exchange2",
        "price": AWKWARD,
        "timestamp": 1_795_687_199_950,
        "time": 1_795_687_200_000,
        "resolution": "exact",
        "source": "redis",
    }


@pytest.mark.parametrize("kind", ["highest", "lowest", "average"])
async def test_statistics(client, questions, kind):
    assert await answer(client, f"/prices/{kind}/BTCUSDT") == statistic(None)
    assert await answer(client, f"/prices/{kind}/exchange1/BTCUSDT?period=5m") == statistic(
        "exchange1", "5m", TIME - 300_000
    )
    assert await answer(client, f"/prices/{kind}/BTCUSDT?exchange=test1") == statistic("test1")
    assert await answer(client, f"/prices/{kind}") == {"prices": [statistic(None)]}
    await answer(client, f"/prices/{kind}?symbol=BTCUSDT&exchange=exchange2&period=24h")
    assert questions.prices.asked == [
        ("BTCUSDT", None, kind, Range()),
        ("BTCUSDT", ("exchange1",), kind, Range("5m")),
        ("BTCUSDT", ("test1",), kind, Range()),
        (None, None, kind, Range()),
        (("BTCUSDT",), ("exchange2",), kind, Range("24h")),
    ]


@pytest.mark.parametrize("kind", ["highest", "aggregate"])
async def test_a_past_span(client, kind):
    path = f"/prices/{kind}/BTCUSDT"
    found = await answer(client, f"{path}?start={TIME - 500_000}&end={TIME - 400_000}")
    assert (found["period"], found["start"], found["end"]) == (None, TIME - 500_000, TIME - 400_000)
    found = await answer(client, f"{path}?period=5m&end={TIME - 1}")
    assert (found["period"], found["start"], found["end"]) == ("5m", TIME - 300_001, TIME - 1)
    (found,) = await prices(client, f"/prices/{kind}?start={TIME - 7}")
    assert (found["start"], found["end"]) == (TIME - 7, TIME)


async def test_aggregates_of_all(client):
    found = await prices(client, "/prices/aggregate?symbol=btcusdt&exchange=exchange1,exchange2")
    (one,) = found
    assert (one["symbol"], one["exchange"], one["max_price"]) == ("BTCUSDT", None, 3.0)


async def test_aggregate(client):
    expected = {
        "symbol": "BTCUSDT",
        "exchange": None,
        "period": "1m",
        "average_price": 2.0,
        "min_price": 1.0,
        "max_price": 3.0,
        "open_price": 1.5,
        "close_price": 2.5,
        "updates": 600,
        **TRADED,
        "start": TIME - 60_000,
        "end": TIME,
        "source": "postgres",
    }
    assert await answer(client, "/prices/aggregate/BTCUSDT") == expected
    one = {**expected, "exchange": "exchange1", "period": "30s", "start": TIME - 30_000}
    assert await answer(client, "/prices/aggregate/exchange1/BTCUSDT?period=30s") == one
    assert await answer(client, "/prices/aggregate/BTCUSDT?period=30s&exchange=exchange1") == one


async def test_candles(client, questions):
    candle = {
        "start": 0,
        "end": 60_000,
        "open": 1.0,
        "high": 3.0,
        "low": 0.5,
        "close": 2.0,
        "average": 1.75,
        "updates": 600,
        **SIDELESS,
        "closed": True,
    }
    assert await answer(client, "/candles/BTCUSDT") == {
        "symbol": "BTCUSDT",
        "exchange": None,
        "interval": "1m",
        "candles": [candle],
        "next": 60_000,
    }
    await answer(
        client, "/candles/BTCUSDT?interval=1h&exchange=exchange1&start=0&end=9223372036854775807&limit=1"
    )
    await answer(client, "/candles/exchange2/BTCUSDT?start=5&end=5&limit=1000")
    assert questions.prices.asked == [
        ("BTCUSDT", None, "1m", None, None, 500),
        ("BTCUSDT", ("exchange1",), "1h", 0, 2**63 - 1, 1),
        ("BTCUSDT", ("exchange2",), "1m", 5, 5, 1000),
    ]


async def test_symbols_and_exchanges(client):
    assert await answer(client, "/symbols") == {"symbols": ["BTCUSDT", "ETHUSDT"]}
    assert await answer(client, "/exchanges") == {
        "exchanges": [
            {"name": "exchange1", "mode": "live", "status": "connected"},
            {"name": "test1", "mode": "test", "status": "off"},
        ]
    }


async def test_health(client):
    some = {
        "received": 12,
        "accepted": 10,
        "rejected": {"malformed": 1, "late": 1},
        "cached": 6,
        "expired": 1,
        "dropped": {"overflow": 2},
        "pending": 1,
    }
    nothing = {
        "received": 0,
        "accepted": 0,
        "rejected": {},
        "cached": 0,
        "expired": 0,
        "dropped": {},
        "pending": 0,
    }
    lines = {"kind": "lines", "activity": None, "rejected_symbols": [], "gaps": 0, "symbols": None}
    assert await answer(client, "/health") == {
        "status": "ok",
        "mode": "live",
        "version": "0.1.0",
        "uptime": 12.5,
        "redis": {"status": "up", "since": TIME, "error": None},
        "postgres": {"status": "away", "since": TIME, "error": "it does not answer"},
        "exchanges": {
            "exchange1": {
                "status": "connected",
                "last_update_age": 0.05,
                "reconnects": 2,
                "updates": some,
                **lines,
            },
            "test1": {"status": "off", "last_update_age": None, "reconnects": 0, "updates": nothing, **lines},
        },
        "updates": some,
    }


@pytest.mark.parametrize(("status", "code"), [("ok", 200), ("degraded", 200), ("unavailable", 503)])
async def test_the_health_report_comes_with_its_status(client, questions, status, code):
    questions.health.status = status
    assert (await answer(client, "/health", code))["status"] == status


async def test_probes(client, questions):
    assert await answer(client, "/health/live") == {"status": "ok"}
    assert await answer(client, "/health/ready") == {"status": "ok"}
    questions.health.ready = False
    assert await answer(client, "/health/live") == {"status": "ok"}
    response = await client.get("/health/ready")
    assert response.status_code == 503
    assert response.headers["Retry-After"] == "1"
    questions.health.live = False
    assert (await client.get("/health/live")).status_code == 503


@pytest.mark.parametrize(
    "path",
    [
        "/prices/latest",
        "/prices/highest/BTCUSDT",
        "/candles/BTCUSDT",
        "/symbols",
        "/mode",
        "/health",
        "/health/ready",
    ],
)
async def test_head_says_what_get_says_but_for_the_body(client, path):
    got, head = await client.get(path), await client.head(path)
    assert head.status_code == got.status_code == 200
    for name in ("Content-Type", "Content-Length", "Cache-Control"):
        assert head.headers[name] == got.headers[name]


async def test_nothing_may_be_stored_on_the_way(client):
    for path in ("/prices/latest/BTCUSDT", "/prices/latest/NOSUCH", "/nowhere"):
        assert (await client.get(path)).headers["Cache-Control"] == "no-store"


@pytest.mark.parametrize("given", ["abc", "A-b_c.9", "x" * 64])
async def test_a_sane_request_id_is_taken_over(client, given):
    response = await client.get("/symbols", headers={"X-Request-Id": given})
    assert response.headers["X-Request-Id"] == given


@pytest.mark.parametrize("given", ["", "a b", "x" * 65, "ä", '"><script>'])
async def test_another_request_id_is_replaced(client, given):
    first = await client.get("/symbols", headers={"X-Request-Id": given})
    second = await client.get("/symbols", headers={"X-Request-Id": given})
    assert first.headers["X-Request-Id"].isalnum()
    assert given != first.headers["X-Request-Id"] != second.headers["X-Request-Id"]
