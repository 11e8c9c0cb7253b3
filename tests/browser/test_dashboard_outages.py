"""The page while feeds and the service itself are lost, and its recovery."""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from desk import Desk, open_desk
from market import NAMES
from playwright.sync_api import Page, expect

import marketflow

expect.set_options(timeout=20_000)


def column(page: Page, exchange: str):
    return page.locator("#board thead th", has_text=exchange).locator(".status")


def ages(page: Page, exchange: str):
    return page.locator("#board tbody tr").first.locator("td").nth(NAMES.index(exchange)).locator(".age")


def test_a_feed_that_is_silent_and_one_that_dies(desk, open_page):
    page = open_page()
    expect(column(page, "exchange2")).to_have_text("connected")
    desk.market.silence("exchange2")
    desk.market.kill("exchange3")
    expect(column(page, "exchange3")).to_have_text("reconnecting")
    expect(column(page, "exchange2")).to_have_text("stale")
    expect(page.locator("#service-short")).to_have_text("degraded")
    for exchange in ("exchange2", "exchange3"):
        expect(ages(page, exchange)).to_have_text(re.compile("stale, "))
    expect(ages(page, "exchange1")).to_have_text("now")
    expect(page.locator("#announcements")).to_have_text(re.compile("exchange2 is stale"))
    # Stale prices do not count, and a single price has no spread.
    expect(page.locator("#board .spread .relative").first).to_have_text("")

    desk.market.speak("exchange2")
    desk.market.listen("exchange3")
    for exchange in NAMES:
        expect(column(page, exchange)).to_have_text("connected")
        expect(ages(page, exchange)).to_have_text("now")
    expect(page.locator("#service-short")).to_have_text("ok")
    expect(page.locator("#board .spread .number").first).to_have_text(re.compile(r"\d"))


@pytest.mark.parametrize("settings", [{"FEEDS__STALE_AFTER": "1s"}])
def test_prices_are_stale_when_their_feed_is(desk, open_page):
    page = open_page()
    expect(ages(page, "exchange2")).to_have_text("now")
    desk.market.silence("exchange2")
    expect(ages(page, "exchange2")).to_have_text(re.compile(r"stale, [1-4]\.\d s"))
    expect(column(page, "exchange2")).to_have_text("stale")


def watch_announcements(page):
    """Note all that is announced from now on, and return a function that gives it.

    An announcement may be replaced by the next before a test looks at it.
    """
    page.evaluate(
        """() => {
            const node = document.getElementById("announcements");
            window.announced = [];
            new MutationObserver(() => window.announced.push(node.textContent))
                .observe(node, { childList: true, characterData: true, subtree: true });
        }"""
    )
    return lambda: page.evaluate("window.announced")


def test_the_service_is_killed_and_comes_back(desk, open_page, complaints):
    complaints.expected = re.compile("Failed to load resource|ERR_|EventSource")
    page = open_page("?interval=1s")
    expect(page.locator("#connection")).to_have_text("streaming")
    expect(page.locator("#lost")).to_be_hidden()
    desk.market.set("BTCUSDT", exchange1=100_000.0)
    expect(page.locator("#board .number").first).to_have_text("100,000.00")

    desk.kill()
    expect(page.locator("#lost")).to_be_visible()
    expect(page.locator("#lost")).to_contain_text(
        re.compile(r"does not answer\. Prices are those of \d\d:\d\d:\d\d")
    )
    expect(page.locator("#lost")).to_contain_text("Next try in")
    expect(page.locator("#connection")).to_have_text("not connected")
    expect(page.locator("#service-short")).to_have_text("unknown")
    expect(page.locator("#announcements")).to_contain_text("Connection lost")
    expect(ages(page, "exchange1")).to_have_text(re.compile("stale, "))
    expect(page).to_have_title("marketflow")

    desk.market.set("BTCUSDT", exchange1=101_000.0)
    announced = watch_announcements(page)
    desk.start()
    expect(page.locator("#lost")).to_be_hidden()
    expect(page.locator("#connection")).to_have_text("streaming")
    deadline = time.monotonic() + 20
    while "Connected again." not in announced():
        assert time.monotonic() < deadline, announced()
        page.wait_for_timeout(100)
    expect(page.locator("#board .number").first).to_have_text("101,000.00")
    expect(page.locator("#service-short")).to_have_text("ok")
    expect(page.locator("#legend-updates")).to_have_text(re.compile(r"\d"))


def test_who_does_not_want_to_wait_tries_now(desk, open_page, complaints):
    complaints.expected = re.compile("Failed to load resource|ERR_|EventSource")
    page = open_page()
    expect(page.locator("#connection")).to_have_text("streaming")
    page.evaluate("window.setTimeout = () => 0")  # disable automatic retries
    desk.kill()
    expect(page.locator("#lost")).to_be_visible()
    desk.start()
    page.get_by_role("button", name="Try now").click()
    expect(page.locator("#connection")).to_have_text("streaming")


def test_without_the_stream_prices_are_asked_for(desk, browser, complaints):
    """For example if the stream has reached its limit of clients."""
    complaints.expected = re.compile("status of 503|EventSource")
    page = browser.new_page()
    complaints.watch(page, desk.url)
    page.route("**/stream", lambda route: route.fulfill(status=503, body="full"))
    desk.market.set("ETHUSDT", exchange1=3_000.0)
    page.goto(desk.url)
    row = page.locator("#board tbody tr", has_text="ETHUSDT").locator(".number").first
    expect(row).to_have_text("3,000.00")
    desk.market.set("ETHUSDT", exchange1=3_001.0)
    expect(row).to_have_text("3,001.00")
    expect(page.locator("#lost")).to_contain_text("The live stream is away")
    page.unroute("**/stream")
    expect(page.locator("#lost")).to_be_hidden()
    page.close()


@pytest.fixture
def without_bundle(tmp_path, market, redis_url, postgres_dsn) -> Iterator[Desk]:
    """A service whose package has no bundle: a copy in its working directory."""
    package = Path(marketflow.__file__).parent
    shutil.copytree(
        package, tmp_path / "marketflow", ignore=shutil.ignore_patterns("dashboard", "__pycache__")
    )
    with open_desk(tmp_path, market, redis_url, postgres_dsn) as desk:
        yield desk


def test_without_a_bundle_it_says_how_to_build_it(browser, without_bundle, complaints):
    """The API still answers."""
    complaints.expected = re.compile("status of 404")  # it has no icon
    page = browser.new_page()
    complaints.watch(page, without_bundle.url)
    page.goto(without_bundle.url)
    expect(page.get_by_role("heading")).to_have_text("The dashboard is not built")
    expect(page.locator("code")).to_contain_text("nox -s dashboard")
    page.close()
    assert without_bundle.get("/mode") == {"mode": "live", "changed": False}
