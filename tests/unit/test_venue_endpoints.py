"""Venues that say where to connect: the answer to the request for a token."""

from __future__ import annotations

import json
from urllib.parse import parse_qs, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from marketflow.adapters.exchange.venues.registry import VENUES

KUCOIN = VENUES["kucoin"]


def answer(**server: object) -> bytes:
    """An answer of KuCoin, with other values for its server."""
    usual = {
        "endpoint": "wss://ws-api-spot.kucoin.com/",
        "encrypt": True,
        "protocol": "websocket",
        "pingInterval": 18000,
        "pingTimeout": 10000,
    }
    data = {"token": "2neA==&x+y", "instanceServers": [usual | server]}
    return json.dumps({"code": "200000", "data": data}).encode()


def test_only_kucoin_asks_for_a_token() -> None:
    assert [kind for kind, venue in VENUES.items() if venue.token_path] == ["kucoin"]
    assert KUCOIN.token_path == "/api/v1/bullet-public"  # noqa: S105 - a path


def test_the_url_has_the_token_and_the_name_of_the_connection() -> None:
    """Both are quoted. The intervals are KuCoin's."""
    url, ping_every, silence = KUCOIN.endpoint(answer(), "connection 1")
    assert url.startswith("wss://ws-api-spot.kucoin.com/?")
    assert parse_qs(urlsplit(url).query) == {"token": ["2neA==&x+y"], "connectId": ["connection 1"]}
    assert (ping_every, silence) == (18.0, 46.0)


def test_an_endpoint_may_have_a_query_already() -> None:
    url, *_ = KUCOIN.endpoint(answer(endpoint="ws://127.0.0.1:1/endpoint?a=b"), "1")
    assert parse_qs(urlsplit(url).query) == {"a": ["b"], "token": ["2neA==&x+y"], "connectId": ["1"]}


@pytest.mark.parametrize(
    ("interval", "expected"), [(1, 1.0), (10**9, 60.0), (0, None), (-5, None), ("18000", None), (True, None)]
)
def test_an_interval_is_bounded(interval: object, expected: float | None) -> None:
    """Pings do not flood, and do come; what is no interval is replaced by that of the rules."""
    endpoint = KUCOIN.endpoint(answer(pingInterval=interval), "1")
    assert endpoint.ping_every == expected
    assert (endpoint.silence is None) == (expected is None)


@pytest.mark.parametrize(
    "other",
    [
        b"",
        b"[]",
        b"{}",
        b'{"code":"200000","data":null}',
        b'{"code":"200000","data":{"token":"t","instanceServers":[]}}',
        b'{"code":"200000","data":{"token":5,"instanceServers":[{"endpoint":"wss://a"}]}}',
        answer(endpoint=None),
        answer(endpoint="https://example.org"),
        answer(endpoint="file:///etc/passwd"),
    ],
)
def test_an_answer_without_an_endpoint_is_an_error(other: bytes) -> None:
    with pytest.raises(ValueError, match="no endpoint"):
        KUCOIN.endpoint(other, "1")


def test_the_error_has_the_words_of_the_venue() -> None:
    with pytest.raises(ValueError, match="Too many requests"):
        KUCOIN.endpoint(b'{"code":"429000","msg":"Too many requests"}', "1")


@given(data=st.data())
def test_any_answer_is_an_endpoint_or_a_value_error(data: st.DataObject) -> None:
    frame = answer()
    start, end = sorted(data.draw(st.tuples(*[st.integers(0, len(frame))] * 2)))
    try:
        url, *_ = KUCOIN.endpoint(frame[:start] + data.draw(st.binary(max_size=4)) + frame[end:], "1")
    except ValueError:
        return
    assert url.startswith(("wss://", "ws://"))
