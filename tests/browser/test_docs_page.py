"""/docs in a browser: it shows every route, can try them out, and uses only this service."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from desk import Desk, open_desk
from market import Market
from playwright.sync_api import Browser, Locator, Page, expect
from viewing import DESKTOP, Complaints

TOKEN = "s3cret"  # noqa: S105

expect.set_options(timeout=15_000)


@pytest.fixture
def desk(tmp_path: Path, market: Market, redis_url: str, postgres_dsn: str) -> Iterator[Desk]:
    """A service without the dashboard, which this page does not need."""
    with open_desk(tmp_path, market, redis_url, postgres_dsn, HTTP__TOKEN=TOKEN) as desk:
        yield desk


@pytest.fixture
def open_docs(browser: Browser, desk: Desk, complaints: Complaints) -> Iterator[Callable[..., Page]]:
    """Opens the page in a new browser profile, once."""
    context = None

    def open_docs(**options: object) -> Page:
        nonlocal context
        context = browser.new_context(viewport=DESKTOP, **options)  # type: ignore[arg-type]
        page = context.new_page()
        complaints.watch(page, desk.url)
        page.goto(f"{desk.url}/docs")
        return page

    yield open_docs
    if context is not None:
        context.close()


def tried(page: Page, operation: str) -> Locator:
    """Open an operation, execute it, and return the displayed answer."""
    block = page.locator(f"#operations-{operation}")
    if block.locator(".opblock-body").count() == 0:
        block.locator(".opblock-summary-control").click()
    block.get_by_role("button", name="Execute").click()
    return block.locator(".live-responses-table .response")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_operation_is_shown(desk: Desk, open_docs: Callable[..., Page], scheme: str) -> None:
    described = desk.get("/openapi.json")["paths"]
    page = open_docs(color_scheme=scheme)
    expect(page.locator(".opblock")).to_have_count(sum(len(methods) for methods in described.values()))
    shown = page.locator(".opblock-summary-path").all_inner_texts()
    assert {path.replace("\u200b", "") for path in shown} == set(described)
    dark = re.compile(r"\bdark-mode\b")
    expectation = expect(page.locator("html"))
    (expectation.to_have_class if scheme == "dark" else expectation.not_to_have_class)(dark)


def test_a_price_can_be_asked_for(market: Market, open_docs: Callable[..., Page]) -> None:
    """It uses the symbol that is filled in."""
    market.set("BTCUSDT", exchange1=123_456.5, exchange2=123_456.5, exchange3=123_456.5)
    answer = tried(open_docs(), "prices-get_prices_latest_symbol")
    expect(answer).to_contain_text("200")
    expect(answer).to_contain_text('"price": 123456.5')


def test_the_mode_is_switched_with_the_token_only(
    desk: Desk, open_docs: Callable[..., Page], complaints: Complaints
) -> None:
    complaints.expected = re.compile("401")
    page = open_docs()
    expect(tried(page, "mode-post_mode_test")).to_contain_text("/problems/unauthorized")
    assert desk.get("/mode")["mode"] == "live"
    page.get_by_role("button", name="Authorize").first.click()
    page.locator(".auth-container input").fill(TOKEN)
    page.locator(".auth-container button[type=submit]").click()
    page.locator(".auth-container .btn-done").click()
    expect(tried(page, "mode-post_mode_test")).to_contain_text('"changed": true')
    assert desk.get("/mode")["mode"] == "test"
