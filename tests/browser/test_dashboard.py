"""The dashboard, used like a person would, with the real service."""

from __future__ import annotations

import re

import pytest
from market import NAMES, SYMBOLS
from playwright.sync_api import Locator, Page, expect

expect.set_options(timeout=15_000)


def cell(page: Page, symbol: str, exchange: str) -> Locator:
    row = page.locator("#board tbody tr", has=page.locator(".symbol", has_text=symbol))
    return row.locator("td").nth(NAMES.index(exchange))


def price(page: Page, symbol: str, exchange: str) -> Locator:
    return cell(page, symbol, exchange).locator(".number")


def test_every_pair_has_the_price_of_each_exchange(desk, open_page):
    prices = {"BTCUSDT": 100_150.75492142327, "DOGEUSDT": 0.30000000000000004, "ETHUSDT": 3_050.0}
    for symbol, value in prices.items():
        desk.market.set(symbol, **dict.fromkeys(NAMES, value))
    page = open_page()
    for exchange in NAMES:
        expect(price(page, "BTCUSDT", exchange)).to_have_text("100,150.75")
        expect(price(page, "DOGEUSDT", exchange)).to_have_text("0.30000")
        expect(price(page, "ETHUSDT", exchange)).to_have_text("3,050.00")
    expect(page.locator("#board thead .name")).to_have_text(list(NAMES))
    expect(page.locator("#board .symbol")).to_have_count(len(SYMBOLS))
    expect(page.locator("#connection")).to_have_text("streaming")


def test_a_price_that_moves_says_so_by_more_than_its_colour(desk, open_page):
    desk.market.set("SOLUSDT", exchange2=200.0)
    page = open_page()
    moving = cell(page, "SOLUSDT", "exchange2")
    expect(moving.locator(".number")).to_have_text("200.0000")
    colours = []
    for value, arrow, word in [(201.5, "▲", "up"), (200.25, "▼", "down")]:
        desk.market.set("SOLUSDT", exchange2=value)
        expect(moving.locator(".number")).to_have_text(f"{value:.4f}")
        expect(moving.locator(".arrow")).to_have_text(arrow)
        expect(moving.get_by_role("img", name=word)).to_be_visible()
        colours.append(moving.locator(".number").evaluate("element => getComputedStyle(element).color"))
    assert colours[0] != colours[1]


def test_the_spread_is_that_of_the_exchanges(desk, open_page):
    desk.market.set("TONUSDT", exchange1=4.0, exchange2=4.1, exchange3=4.02)
    page = open_page()
    spread = page.locator("#board tbody tr", has_text="TONUSDT").locator(".spread")
    expect(spread.locator(".number")).to_have_text("0.1000")
    expect(spread.locator(".relative")).to_have_text("2.50 %")
    expect(cell(page, "TONUSDT", "exchange1").locator(".end")).to_have_text("low")
    expect(cell(page, "TONUSDT", "exchange2").locator(".end")).to_have_text("high")
    expect(cell(page, "TONUSDT", "exchange3").locator(".end")).to_have_text("")


def painted(page: Page, colour: str) -> int:
    """The number of pixels in the chart with one of the page's colours."""
    return page.locator("#chart").evaluate(
        """(chart, name) => {
          const wanted = getComputedStyle(chart).getPropertyValue(name).match(/\\d+/g).map(Number);
          wanted.push(255);
          let count = 0;
          for (const canvas of chart.querySelectorAll("canvas")) {
            const copy = document.createElement("canvas");
            [copy.width, copy.height] = [canvas.width, canvas.height];
            const context = copy.getContext("2d", { willReadFrequently: true });
            context.drawImage(canvas, 0, 0);
            const { data } = context.getImageData(0, 0, copy.width, copy.height);
            for (let at = 0; at < data.length; at += 4) {
              if (wanted.every((part, index) => data[at + index] === part)) count += 1;
            }
          }
          return count;
        }""",
        colour,
    )


def test_the_chart_has_the_candles_of_the_service(desk, open_page):
    desk.tell_history(60)
    page = open_page("?symbol=ETHUSDT&exchange=exchange2&interval=5s")
    expect(page.locator("#chart-symbol")).to_have_value("ETHUSDT")
    expect(page.locator("#chart")).to_have_attribute("aria-label", "Candle chart of ETHUSDT, exchange2, 5s")
    expect(page.locator("#legend-close")).to_have_text(re.compile(r"\d"))
    assert painted(page, "--up") > 50
    assert painted(page, "--down") > 50

    page.get_by_text("Newest candles as a table").click()
    rows = [
        [text.strip() for text in row.locator("th, td").all_inner_texts()]
        for row in page.locator("#chart-table tr").all()
    ]
    told = desk.get("/candles/ETHUSDT?exchange=exchange2&interval=5s")["candles"]
    closed = {each["start"]: each for each in told if each["closed"]}
    compared = 0
    for start, *numbers in rows:
        candle = closed.get(page.evaluate("text => Date.parse(text.replace(' ', 'T') + 'Z')", start))
        if candle is not None:
            shown = [f"{candle[key]:,.2f}" for key in ("open", "high", "low", "close")]
            assert numbers == [*shown, str(candle["updates"])]
            compared += 1
    assert compared >= 10


def test_the_chart_goes_on_live(desk, open_page, complaints):
    """The stream alone updates it: requests for candles fail."""
    complaints.expected = re.compile("ERR_FAILED")
    desk.market.set("BTCUSDT", exchange1=110_000.0)
    page = open_page("?symbol=BTCUSDT&exchange=exchange1&interval=1d")
    expect(page.locator("#legend-close")).to_have_text("110,000.00")
    page.route("**/candles/**", lambda route: route.abort())
    desk.market.set("BTCUSDT", exchange1=120_000.0)
    expect(page.locator("#legend-close")).to_have_text("120,000.00")
    expect(page.locator("#legend-high")).to_have_text("120,000.00")
    expect(page).to_have_title("120,000.00 BTCUSDT · marketflow")


def test_another_pair_and_interval_by_controls_and_by_the_table(desk, open_page):
    page = open_page()
    cell(page, "SOLUSDT", "exchange3").get_by_role("button").click()
    expect(page.locator("#chart")).to_have_attribute("aria-label", re.compile("SOLUSDT, exchange3, 5s"))
    page.get_by_label("15s").check()
    page.get_by_label("Exchange", exact=True).select_option("all exchanges")
    expect(page.locator("#chart")).to_have_attribute(
        "aria-label", "Candle chart of SOLUSDT, all exchanges, 15s"
    )
    page.reload()
    expect(page.locator("#chart")).to_have_attribute(
        "aria-label", "Candle chart of SOLUSDT, all exchanges, 15s"
    )


def test_the_keyboard_alone(desk, open_page):
    """The whole table is one Tab stop with arrow keys inside, and the focus is visible."""
    page = open_page()
    page.get_by_role("button", name="BTCUSDT chart of all exchanges").focus()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    focused = page.locator(":focus")
    expect(focused).to_have_accessible_name(re.compile("DOGEUSDT on exchange2: "))
    assert focused.evaluate("element => getComputedStyle(element).outlineStyle") == "solid"
    page.keyboard.press("Enter")
    expect(focused).to_have_attribute("aria-pressed", "true")
    expect(page.locator("#chart")).to_have_attribute("aria-label", re.compile("DOGEUSDT, exchange2"))
    page.keyboard.press("Tab")
    expect(page.locator("#chart-symbol")).to_be_focused()


def test_the_ledger_adds_up(desk, open_page):
    page = open_page()
    expect(page.locator("#verdict")).to_have_text("The counters add up for every exchange.")
    expect(page.locator("#ledger [data-holds=true]")).to_have_count(8)
    received, accepted, rejected, together = (
        int(
            page.locator("#ledger tr").nth(line).locator("td").first.inner_text().strip("✓ ").replace(",", "")
        )
        for line in range(4)
    )
    assert received == accepted + rejected == together > 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_theme_is_the_systems_until_another_is_chosen(desk, open_page, scheme):
    page = open_page(color_scheme=scheme)

    def ground() -> int:
        colour = page.evaluate("getComputedStyle(document.documentElement).backgroundColor")
        return sum(map(int, re.findall(r"\d+", colour)))

    assert (ground() > 384) == (scheme == "light")
    button = page.get_by_role("button", name="Theme")
    expect(button).to_have_text(re.compile("auto"))
    button.click()
    expect(button).to_have_text(re.compile("light"))
    assert ground() > 384
    button.click()
    expect(button).to_have_text(re.compile("dark"))
    page.reload()
    expect(button).to_have_text(re.compile("dark"))
    assert ground() < 384
