"""The dashboard with real exchanges: their names for the pairs, and what their connections do."""

from __future__ import annotations

import json
import re

import pytest
from playwright.sync_api import Locator, Page, expect
from test_dashboard_looks import picture, violations
from trading import NAMES, open_trading

expect.set_options(timeout=15_000)

EXCHANGES = [*NAMES, "exchange1"]
PHONE = {"width": 390, "height": 844}


@pytest.fixture
def trading():
    with open_trading({"okx": "DOGE-USDT"}) as trading:
        yield trading


@pytest.fixture
def settings(trading, market):
    """Three venues, and one of the other exchanges."""
    lines = {"name": "exchange1", "host": "127.0.0.1", "port": market.ports["exchange1"]}
    return {"EXCHANGES": json.dumps([*trading.exchanges, lines])}


@pytest.fixture
def open_venues(open_page):
    """Opens a page on which all pairs have prices that will ever have one."""

    def open_venues(query: str = "?interval=1s", **options: object) -> Page:
        page = open_page(query, **options)
        expected = sum(map(len, NAMES.values())) + 5 - 1  # okx refuses one
        numbers = page.locator("#board .price .number", has_text=re.compile(r"\d"))
        expect(numbers).to_have_count(expected)
        expect(cell(page, "DOGEUSDT", "okx").locator(".age")).to_have_text("refused")
        return page

    return open_venues


def cell(page: Page, symbol: str, exchange: str) -> Locator:
    row = page.locator("#board tbody tr", has=page.locator(".symbol", has_text=symbol))
    return row.locator("td").nth(EXCHANGES.index(exchange))


def feed(page: Page, exchange: str) -> Locator:
    """The second row of a venue."""
    first = page.locator("#feeds tr", has=page.get_by_role("rowheader", name=exchange))
    return first.locator("xpath=following-sibling::tr[1]")


def test_each_price_has_the_venues_name_of_its_pair(open_venues):
    """Exchanges of lines have none."""
    page = open_venues()
    for exchange, names in NAMES.items():
        for symbol, name in names.items():
            shown = cell(page, symbol, exchange).locator(".spelling")
            expect(shown).to_be_visible()
            expect(shown).to_have_text(name.upper() if exchange == "binance" else name)
    expect(cell(page, "BTCUSDT", "exchange1").locator(".spelling")).to_have_text("")


def test_a_pair_that_a_venue_does_not_have_waits_for_nothing(open_venues):
    """The reason is in the title, and in the accessible name; there is no chart to open."""
    page = open_venues("?symbol=BTCUSDT&interval=1s")
    expect(page.locator("#chart")).to_have_attribute("aria-label", re.compile("BTCUSDT"))
    missing = cell(page, "TONUSDT", "kraken")
    button = missing.get_by_role("button")
    expect(missing.locator(".number")).to_have_text("\N{EN DASH}")
    expect(missing.locator(".age")).to_have_text("not configured")
    expect(button).to_have_attribute("title", "kraken is not configured for TONUSDT")
    expect(button).to_have_accessible_name(
        "TONUSDT on kraken: \N{EN DASH} (kraken is not configured for TONUSDT)"
    )
    button.click(force=True)
    expect(button).to_have_attribute("aria-pressed", "false")

    page.get_by_label("Pair", exact=True).select_option("TONUSDT")
    page.get_by_label("Exchange", exact=True).select_option("kraken")
    expect(page.locator("#chart-message")).to_have_text("No candles: kraken is not configured for TONUSDT.")


def test_feeds_tell_what_venues_do_and_lack(open_venues, trading):
    """Nothing moves when they tell something new."""
    page = open_venues()
    for exchange in NAMES:
        expect(page.get_by_role("rowheader", name=f"{exchange} {exchange}", exact=True)).to_be_visible()
        expect(feed(page, exchange).locator(".activity")).to_have_text("live")
    expect(page.locator("#feeds .kind")).to_have_count(len(NAMES))
    expect(page.locator("#feeds .refusal:not(:empty)")).to_have_count(1)
    expect(feed(page, "okx").locator(".refusal")).to_have_text("refuses DOGEUSDT")
    expect(cell(page, "DOGEUSDT", "okx").get_by_role("button")).to_have_attribute(
        "title", "okx refuses DOGEUSDT"
    )

    expect(page.locator("#feeds .gaps:not(:empty)")).to_have_count(0)
    heights = "rows => rows.map(row => row.getBoundingClientRect().height)"
    rows = page.locator("#feeds tr, #board tbody tr")
    before = rows.evaluate_all(heights)
    trading.lose("binance", "BTCUSDT", 12)
    expect(feed(page, "binance").locator(".gaps")).to_have_text("12 trades missing")
    trading.cut("kraken")
    expect(feed(page, "kraken").locator(".activity")).not_to_have_text("live")
    assert rows.evaluate_all(heights) == before


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_on_every_screen(open_venues, scheme):
    """Nothing is wider than the screen, and there is no serious violation."""
    page = open_venues(color_scheme=scheme, reduced_motion="reduce")
    expect(page.locator("#chart-message")).to_be_hidden()
    for width, height in [(1920, 1080), (1440, 900), (1280, 800), (390, 844), (360, 780)]:
        page.set_viewport_size({"width": width, "height": height})
        picture(page, f"venues-{width}-{scheme}")
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        cut = page.locator("#board .spelling").evaluate_all(
            "all => all.filter(each => each.scrollWidth > each.clientWidth).map(each => each.textContent)"
        )
        assert cut == []
        assert violations(page) == []
