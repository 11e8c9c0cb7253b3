"""Volumes on the dashboard: those that exchanges tell, and nothing for those that do not."""

from __future__ import annotations

import re

import pytest
from market import NAMES
from playwright.sync_api import Page, expect
from test_dashboard import cell
from test_dashboard_looks import picture, violations

expect.set_options(timeout=15_000)

VIEW = "?symbol=BTCUSDT&exchange=exchange2&interval=1s"
WIDTHS = (1920, 1440, 1366, 1280, 1024, 768, 390, 320)


def closed_rows(page: Page, desk, path: str) -> list[tuple[list[str], dict]]:
    """The rows of the table of candles, each with the service's candle, if that is closed."""
    told = {each["start"]: each for each in desk.get(path)["candles"] if each["closed"]}
    rows = []
    for row in page.locator("#chart-table tr").all():
        begins, *shown = [text.strip() for text in row.locator("th, td").all_inner_texts()]
        start = page.evaluate("text => Date.parse(text.replace(' ', 'T') + 'Z')", begins)
        if start in told:
            rows.append((shown, told[start]))
    return rows


def traded(candle: dict) -> str:
    """Its volume as the page shows it: with the number of updates that told it, if that is not all."""
    part = f" (of {candle['volume_updates']})" if candle["volume_updates"] < candle["updates"] else ""
    return f"{candle['volume']:g}{part}"


def test_nothing_is_shown_where_nobody_tells(desk, open_page):
    desk.tell_history(10)
    page = open_page(VIEW)
    expect(page.locator("#legend-close")).to_have_text(re.compile(r"\d"))
    page.get_by_text("Newest candles as a table").click()
    expect(page.locator("#chart-table tr").nth(5)).to_be_visible()

    text = page.locator("body").inner_text()
    assert [word for word in ("vol", "vwap", "null", "undefined", "NaN") if word in text.lower()] == []


def test_a_price_has_the_volume_of_its_update(desk, open_page):
    """It belongs to the newest update: it goes when that has none."""
    desk.market.trade("exchange2", 0.0125)
    page = open_page()
    volume = cell(page, "BTCUSDT", "exchange2").locator(".volume")
    expect(volume).to_have_text("vol 0.0125")
    expect(cell(page, "BTCUSDT", "exchange1").locator(".volume")).to_have_text("")
    desk.market.trade("exchange2", 0)
    expect(volume).to_have_text("vol 0")
    height = page.locator("#board").evaluate("board => board.clientHeight")
    desk.market.stop_trading("exchange2")
    expect(volume).to_have_text("")
    assert page.locator("#board").evaluate("board => board.clientHeight") == height


def test_a_candle_has_volume_and_vwap(desk, open_page):
    desk.market.trade("exchange2", 0.25, "sell")
    desk.tell_history(30)
    page = open_page(VIEW)
    expect(page.locator("#legend-volume")).to_have_text(re.compile(r"^[0-9.]+$"))
    expect(page.locator("#legend-vwap")).to_have_text(re.compile(r"^[0-9,]+\.\d\d$"))
    page.get_by_text("Newest candles as a table").click()

    rows = closed_rows(page, desk, "/candles/BTCUSDT?exchange=exchange2&interval=1s")
    assert len(rows) >= 10
    for shown, candle in rows:
        assert shown[-2:] == [traded(candle), f"{candle['vwap']:,.2f}"]


def test_a_volume_of_some_updates_says_so(desk, open_page):
    """A candle of all exchanges, of which one tells its volumes."""
    desk.market.trade("exchange2", 0.25)
    desk.tell_history(30)
    page = open_page("?symbol=BTCUSDT&interval=1s")
    expect(page.locator("#legend-volume")).to_have_text(re.compile(r"^[0-9.]+ \(of \d+\)$"))
    page.get_by_text("Newest candles as a table").click()

    rows = closed_rows(page, desk, "/candles/BTCUSDT?interval=1s")
    assert len(rows) >= 10
    for shown, candle in rows:
        assert candle["volume_updates"] < candle["updates"]
        assert shown[-2] == traded(candle)
        assert "(of" in shown[-2]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_looks_right_on_every_screen(desk, open_page, scheme):
    """Volumes cause no violation and no scrolling."""
    for name, volume in zip(NAMES, (0.0125, 1_234.5678, 0.00000123456), strict=True):
        desk.market.trade(name, volume)
    desk.tell_history(110)
    page = open_page("?interval=1s", color_scheme=scheme, reduced_motion="reduce")
    expect(page.locator("#board .volume:not(:empty)")).to_have_count(15)
    expect(page.locator("#legend-vwap")).to_have_text(re.compile(r"\d"))
    for width in WIDTHS:
        page.set_viewport_size({"width": width, "height": 900})
        picture(page, f"volume-{width}-{scheme}")
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        widths = "each => [each.scrollWidth, each.clientWidth]"
        needed, there = page.locator(".prices .scroll").evaluate(widths)
        assert needed <= there, width
    page.get_by_text("Newest candles as a table").click()
    assert violations(page) == []


def test_the_whole_legend_is_in_sight(desk, open_page):
    desk.market.trade("exchange2", 1_234_567.8)
    desk.tell_history(30)
    page = open_page("?interval=1d")
    expect(page.locator("#legend-volume")).to_contain_text("(of ")
    for width in WIDTHS:
        page.set_viewport_size({"width": width, "height": 900})
        needed, there = page.locator("#legend").evaluate("each => [each.scrollHeight, each.clientHeight]")
        assert needed <= there, width
