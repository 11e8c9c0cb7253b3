"""The look of the dashboard: screenshots for people, and checks that a program can make.

The screenshots are in `.screenshots/` of the working tree.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect
from viewing import DESKTOP, PHONE

expect.set_options(timeout=15_000)

ROOT = Path(__file__).parents[2]
PICTURES = ROOT / ".screenshots"
AXE = ROOT / "marketflow/adapters/http/dashboard/node_modules/axe-core/axe.min.js"

SCREENS = pytest.mark.parametrize("screen", ["desktop", "phone"])
SCHEMES = pytest.mark.parametrize("scheme", ["light", "dark"])


def picture(page: Page, name: str, *, whole: bool = True) -> None:
    PICTURES.mkdir(exist_ok=True)
    page.screenshot(path=PICTURES / f"{name}.png", full_page=whole)


def violations(page: Page) -> list[dict[str, Any]]:
    """Serious violations that axe finds, with enough detail to fix them."""
    if not AXE.is_file():
        pytest.skip("there is no axe-core: nox -s dashboard fetches it")
    page.evaluate(AXE.read_text())
    found = page.evaluate("axe.run(document, {resultTypes: ['violations']})")
    return [
        {"id": each["id"], "where": [node["html"] for node in each["nodes"]]}
        for each in found["violations"]
        if each["impact"] in {"serious", "critical"}
    ]


@pytest.fixture
def opened(desk, open_page, screen, scheme) -> Page:
    """A page with data."""
    desk.tell_history(110)
    viewport = {"desktop": DESKTOP, "phone": PHONE}[screen]
    page = open_page(
        "?interval=1s",
        viewport=viewport,
        color_scheme=scheme,
        has_touch=screen == "phone",
        reduced_motion="reduce",
    )
    expect(page.locator("#board .price[data-moved]")).to_have_count(15)
    expect(page.locator("#verdict")).to_have_text("The counters add up for every exchange.")
    expect(page.locator("#chart-message")).to_be_hidden()
    return page


@pytest.fixture
def opened_wide(desk, open_page) -> Page:
    """A page with prices and their spreads."""
    desk.tell_history(110)
    page = open_page("?interval=1s")
    expect(page.locator("#board .price[data-moved]")).to_have_count(15)
    expect(page.locator("#board .spread .number:not(:empty)")).to_have_count(5)
    return page


@SCREENS
@SCHEMES
def test_it_looks_right(opened, screen, scheme):
    """There is no serious violation, nothing wider than the screen, and no too small touch target."""
    picture(opened, f"{screen}-{scheme}")
    assert violations(opened) == []
    assert opened.evaluate("document.documentElement.scrollWidth") <= opened.viewport_size["width"]
    if screen == "phone":
        heights = opened.locator("button:visible, select:visible").evaluate_all(
            "elements => elements.map(element => element.getBoundingClientRect().height)"
        )
        assert min(heights) >= 36

    opened.get_by_role("button", name="Switch to test").click()
    expect(opened.get_by_role("dialog")).to_be_visible()
    picture(opened, f"{screen}-{scheme}-dialog", whole=False)
    assert violations(opened) == []


@pytest.mark.parametrize("width", [1920, 1440, 1424, 1366, 1280, 1279, 1024])
def test_the_spread_is_in_sight(opened_wide, width):
    """With the prices of three exchanges nothing in the rows has to be scrolled."""
    opened_wide.set_viewport_size({"width": width, "height": 700})
    widths = "each => [each.scrollWidth, each.clientWidth]"
    needed, there = opened_wide.locator(".prices .scroll").evaluate(widths)
    assert needed <= there


class TestWithMuchToShow:
    """Many exchanges with long names."""

    @pytest.fixture
    def settings(self):
        names = [f"an-exchange-with-a-long-name-{each}" for each in range(6)]
        return {"GENERATOR__EXCHANGES": json.dumps(names), "MODE": "test"}

    def test_the_page_is_never_wider_than_the_screen(self, open_page):
        page = open_page()
        expect(page.locator("#board thead .name")).to_have_count(6)
        for width in (1920, 1280, 1024, 768, 375, 320):
            page.set_viewport_size({"width": width, "height": 800})
            assert page.evaluate("document.documentElement.scrollWidth") <= width
        picture(page, "phone-crowd")


@SCREENS
@pytest.mark.parametrize("scheme", ["light"])
def test_trouble_looks_right(opened, desk, complaints, screen):
    """First a feed is lost, then everything."""
    complaints.expected = re.compile("Failed to load resource|ERR_|EventSource")
    desk.market.kill("exchange3")
    expect(opened.locator("#board thead th", has_text="exchange3")).to_contain_text("reconnecting")
    desk.kill()
    expect(opened.locator("#lost")).to_be_visible()
    expect(opened.locator("#board [data-stale]")).to_have_count(15)
    picture(opened, f"{screen}-trouble")
    assert violations(opened) == []
