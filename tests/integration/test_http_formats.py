"""Lists as CSV, and compressed answers."""

from __future__ import annotations

import csv
import gzip
import io
import json

import pytest
from test_http_fakes import AWKWARD, TIME, FakePrices, Questions

from marketflow.adapters.http.compression import LONG

PATHS = [
    "/symbols",
    "/exchanges",
    "/prices/latest",
    "/prices/highest",
    "/prices/aggregate",
    "/candles/BTCUSDT",
    "/candles/exchange1/BTCUSDT",
]


def value(text):
    """A cell as JSON has it."""
    try:
        return json.loads(text) if text else None
    except ValueError:
        return text


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    ("query", "headers"),
    [
        ("?format=csv", {}),
        ("", {"Accept": "text/csv"}),
        ("", {"Accept": "text/csv;charset=utf-8, application/json;q=0.5"}),
    ],
)
async def test_a_list_as_csv_has_what_it_has_as_json(client, path, query, headers):
    answer = await client.get(path + query, headers=headers)
    assert answer.content_type.startswith("text/csv")
    assert "Accept" in answer.headers["Vary"]
    rows = list(csv.reader(io.StringIO(await answer.get_data(as_text=True))))
    shown = await (await client.get(path)).get_json()
    (listed,) = [each for each in shown.values() if isinstance(each, list)]
    expected = [each if isinstance(each, dict) else {"symbol": each} for each in listed]
    assert rows[0] == list(expected[0])
    assert [list(map(value, row)) for row in rows[1:]] == [list(each.values()) for each in expected]


@pytest.mark.parametrize(
    "accept", ["*/*", "text/html,application/xhtml+xml,*/*;q=0.8", "application/json", "image/png"]
)
async def test_by_default_a_list_is_json(client, accept):
    answer = await client.get("/prices/latest", headers={"Accept": accept})
    assert answer.content_type == "application/json"
    assert (
        await client.get("/prices/latest?format=json", headers={"Accept": "text/csv"})
    ).content_type == answer.content_type


async def test_floats_are_written_exactly(client):
    text = await (await client.get("/prices/latest?format=csv")).get_data(as_text=True)
    head, line = text.splitlines()
    assert head == "symbol,exchange,price,timestamp,source,volume"
    assert line == f"BTCUSDT,exchange1,{AWKWARD!r},{TIME},redis,0.25"


async def test_the_following_page_is_a_link(client):
    answer = await client.get("/candles/BTCUSDT?interval=5m&start=5&format=csv")
    assert answer.headers["Link"] == '<?interval=5m&start=60000&format=csv>; rel="next"'


class Many(FakePrices):
    symbols = tuple(f"S{number:04}" for number in range(2_000))

    async def latest_of_all(self, symbols, exchanges):
        return await super().latest_of_all(symbols or self.symbols, exchanges)


@pytest.mark.parametrize("symbols", ["S0001", ",".join(Many.symbols[:20]), ",".join(Many.symbols[:1_000])])
@pytest.mark.parametrize(
    ("accept", "packs"), [("gzip, br", True), ("", False), ("gzip;q=0", False), ("br", False)]
)
async def test_long_answers_are_compressed_for_who_accepts_it(symbols, accept, packs):
    questions = Questions()
    questions.prices = Many()
    client = questions.app().test_client()
    path = f"/prices/latest?symbol={symbols}"
    plain = await (await client.get(path)).get_data(as_text=False)
    answer = await client.get(path, headers={"Accept-Encoding": accept})
    assert "Accept-Encoding" in answer.headers["Vary"]
    body = await answer.get_data(as_text=False)
    assert int(answer.headers["Content-Length"]) == len(body)
    if packs and len(plain) >= 1_024:
        assert answer.headers["Content-Encoding"] == "gzip"
        assert len(body) < len(plain) / 3
        body = gzip.decompress(body)
    else:
        assert "Content-Encoding" not in answer.headers
    assert body == plain
    assert (len(plain) > LONG) == (len(symbols) > 2_000)


async def test_a_compressed_page_has_a_version_of_its_own(client):
    plain = await client.get("/")
    packed = await client.get("/", headers={"Accept-Encoding": "gzip"})
    if "ETag" in packed.headers and packed.headers.get("Content-Encoding") == "gzip":
        assert packed.headers["ETag"] == f"W/{plain.headers['ETag']}"
        again = await client.get(
            "/", headers={"Accept-Encoding": "gzip", "If-None-Match": packed.headers["ETag"]}
        )
        assert again.status_code == 304
