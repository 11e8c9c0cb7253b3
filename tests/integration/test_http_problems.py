"""Every error is a problem (RFC 9457) that says what is allowed."""

from __future__ import annotations

from http import HTTPStatus

import pytest
import trio
from structlog.testing import capture_logs
from test_http_fakes import Questions

from marketflow.adapters.http.problem import TRACEBACK_EVERY
from marketflow.app.answers import NothingCanAnswer
from marketflow.domain.periods import CANDLE_INTERVALS

SYMBOLS = ["BTCUSDT", "ETHUSDT"]
EXCHANGES = ["exchange1", "exchange2", "test1"]
INTERVALS = list(CANDLE_INTERVALS)
RANGE = ["period", "start", "end"]
PERIODS = ["<n>s", "<n>m", "<n>h", "<n>d"]


async def problem(response, status, kind):
    assert response.status_code == status
    assert response.content_type == "application/problem+json"
    body = await response.get_json(force=True)
    assert body["type"] == f"/problems/{kind}"
    assert body["status"] == status
    assert body["title"]
    assert body["detail"]
    return body


@pytest.mark.parametrize(
    ("path", "status", "kind", "allowed"),
    [
        ("/prices/latest/NOSUCH", 404, "unknown-symbol", SYMBOLS),
        ("/prices/latest?symbol=", 404, "unknown-symbol", SYMBOLS),
        ("/prices/latest?symbol=BTCUSDT,X", 404, "unknown-symbol", SYMBOLS),
        ("/prices/latest/BTCUSDT,ETHUSDT", 404, "unknown-symbol", SYMBOLS),
        ("/prices/highest/nowhere/BTCUSDT", 404, "unknown-exchange", EXCHANGES),
        ("/prices/aggregate/BTCUSDT?exchange=", 404, "unknown-exchange", EXCHANGES),
        ("/prices/average/ETHUSDT", 404, "no-data", None),
        ("/prices/average/BTCUSDT?period=", 400, "bad-period", PERIODS),
        ("/prices/average/BTCUSDT?period=0s", 400, "bad-period", PERIODS),
        ("/prices/lowest?period=31d", 400, "bad-period", PERIODS),
        ("/prices/aggregate/BTCUSDT?period=1w", 400, "bad-period", PERIODS),
        ("/candles/BTCUSDT?interval=2m", 400, "bad-interval", INTERVALS),
        ("/candles/BTCUSDT?interval=", 400, "bad-interval", INTERVALS),
        ("/candles/BTCUSDT?limit=0", 400, "bad-limit", None),
        ("/candles/BTCUSDT?limit=1001", 400, "bad-limit", None),
        ("/candles/BTCUSDT?limit=", 400, "bad-limit", None),
        ("/candles/BTCUSDT?start=-1", 400, "bad-start", None),
        ("/candles/BTCUSDT?start=", 400, "bad-start", None),
        ("/candles/BTCUSDT?end=1e3", 400, "bad-end", None),
        ("/candles/BTCUSDT?end=9223372036854775808", 400, "bad-end", None),
        ("/candles/BTCUSDT?start=2&end=1", 400, "bad-start", None),
        ("/candles/BTCUSDT?start=1795343351", 400, "seconds", None),
        ("/prices/highest?start=1795343351", 400, "seconds", None),
        ("/prices/highest/BTCUSDT?start=5&period=5m", 400, "conflicting-span", None),
        ("/prices/aggregate?start=2&end=1", 400, "bad-start", None),
        ("/prices/average/BTCUSDT?end=tomorrow", 400, "bad-end", None),
        ("/prices/at/BTCUSDT", 400, "bad-time", None),
        ("/prices/at/BTCUSDT?time=", 400, "bad-time", None),
        ("/prices/at/BTCUSDT?time=1795343351", 400, "seconds", None),
        ("/prices/at/ETHUSDT?time=1795343351549", 404, "no-data", None),
        ("/prices/latest/exchange1/BTCUSDT?exchange=exchange1", 400, "unknown-parameter", []),
        ("/prices/lowest/exchange1/BTCUSDT?exchange=exchange2", 400, "unknown-parameter", RANGE),
        (
            "/candles/exchange1/BTCUSDT?exchange=exchange1",
            400,
            "unknown-parameter",
            ["interval", "start", "end", "limit", "format"],
        ),
        ("/prices/latest/BTCUSDT?period=1m", 400, "unknown-parameter", ["exchange"]),
        ("/prices/highest?perod=1m", 400, "unknown-parameter", ["symbol", "exchange", *RANGE, "format"]),
        ("/prices/highest?period=1m&period=1m", 400, "repeated-parameter", None),
        ("/symbols?x", 400, "unknown-parameter", ["format"]),
        ("/exchanges?x=1", 400, "unknown-parameter", ["format"]),
        ("/exchanges?format=xml", 400, "bad-format", ["json", "csv"]),
        ("/candles/BTCUSDT?format=CSV", 400, "bad-format", ["json", "csv"]),
        ("/mode?x=1", 400, "unknown-parameter", []),
        ("/health?x=1", 400, "unknown-parameter", []),
        ("/nowhere", 404, "not-found", None),
        ("/prices/latest/", 404, "not-found", ["/prices/latest"]),
        ("/prices/latest//BTCUSDT", 404, "not-found", ["/prices/latest/BTCUSDT"]),
        ("/Prices/Latst/BTCUSDT/", 404, "not-found", ["/prices/latest/BTCUSDT"]),
        ("/candle/exchange1/BTCUSDT", 404, "not-found", ["/candles/exchange1/BTCUSDT"]),
        ("/mode/prod", 404, "not-found", ["/mode/live", "/mode/test"]),
        ("/prices/at", 404, "not-found", ["/prices/at/<symbol>"]),
        ("/candles", 404, "not-found", ["/candles/<symbol>"]),
        ("/prices/latst/B%20C", 404, "not-found", ["/prices/latest/B%20C"]),
        ("/" + "x" * 300, 404, "not-found", None),
        ("/prices/latest/a/b/c", 404, "not-found", None),
        ("/mode/test", 405, "method-not-allowed", ["OPTIONS", "POST"]),
    ],
)
async def test_each_mistake_has_its_problem(client, path, status, kind, allowed):
    body = await problem(await client.get(path), status, kind)
    assert body.get("allowed") == allowed


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH"])
async def test_a_wrong_method_is_told_the_right_ones(client, method):
    response = await client.open("/prices/latest/BTCUSDT", method=method)
    body = await problem(response, 405, "method-not-allowed")
    assert body["allowed"] == ["GET", "HEAD", "OPTIONS"]
    assert response.headers["Allow"] == "GET, HEAD, OPTIONS"


async def test_options_tells_the_methods(client):
    response = await client.options("/prices/latest/BTCUSDT")
    assert response.status_code == 200
    assert set(response.headers["Allow"].split(", ")) == {"GET", "HEAD", "OPTIONS"}


async def test_what_nothing_can_answer_may_be_asked_again(client, questions):
    questions.prices.error = NothingCanAnswer(retry_after=3)
    response = await client.get("/prices/latest/BTCUSDT")
    await problem(response, 503, "nothing-can-answer")
    assert response.headers["Retry-After"] == "3"


async def test_not_ready_is_a_problem(client, questions):
    questions.health.ready = False
    response = await client.get("/health/ready")
    await problem(response, 503, "not-ready")
    assert response.headers["Retry-After"] == "1"


@pytest.mark.parametrize(
    "error", [RuntimeError("secret"), ExceptionGroup("several", [KeyError("secret"), ValueError()])]
)
async def test_an_unexpected_error_is_logged_once_and_not_shown(client, questions, error):
    questions.prices.error = error
    with capture_logs() as logs:
        response = await client.get("/prices/latest/BTCUSDT")
    await problem(response, 500, "internal-server-error")
    assert "secret" not in await response.get_data(as_text=True)
    [entry] = [entry for entry in logs if entry["log_level"] == "error"]
    assert entry["event"] == "request failed"
    assert isinstance(entry["exc_info"], Exception)


async def test_a_client_cannot_fill_the_log_with_tracebacks(client, questions, autojump_clock):
    questions.prices.error = RuntimeError("a bug")
    with capture_logs() as logs:
        for pause in (0, 0, TRACEBACK_EVERY):
            await trio.sleep(pause)
            await client.get("/prices/latest/BTCUSDT")
    entries = [entry for entry in logs if entry["event"] == "request failed"]
    assert ["exc_info" in entry for entry in entries] == [True, False, True]
    assert entries[1]["error"] == "RuntimeError: a bug"


async def test_the_log_has_the_request(client):
    with capture_logs() as logs:
        await client.get("/prices/latest/NOSUCH?exchange=exchange1")
    [entry] = [entry for entry in logs if entry["event"] == "request answered"]
    assert entry.pop("ms") >= 0
    assert entry == {
        "event": "request answered",
        "log_level": "debug",
        "method": "GET",
        "path": "/prices/latest/NOSUCH",
        "status": HTTPStatus.NOT_FOUND,
    }


async def test_no_prices_while_it_starts_or_stops():
    """Prices would be out of date a moment later; answers that do not change are given."""
    questions = Questions()
    questions.health.ready = False
    client = questions.app().test_client()
    for path in ("/prices/latest/BTCUSDT", "/prices/highest", "/candles/BTCUSDT"):
        response = await client.get(path)
        assert response.status_code == 503
        assert response.headers["Retry-After"] == "1"
        assert (await response.get_json(force=True))["type"] == "/problems/not-ready"
    assert questions.prices.asked == []
    assert (await client.get("/exchanges")).status_code == 200
