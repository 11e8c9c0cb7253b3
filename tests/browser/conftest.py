"""A browser, and a service for it. Tests are skipped, with the reason, if one of them is missing."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from desk import Desk, open_desk
from market import Market, open_market
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright
from viewing import DESKTOP, Complaints

from marketflow.adapters.http.pages import BUNDLE

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
ARGUMENTS = [
    "--no-sandbox",
    "--disable-quic",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]

PATIENCE = 15_000
"""The time limit of an expectation, in ms."""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """For one module only: while it runs, its thread has an event loop, which other tests must not meet."""
    if CHROMIUM is None:
        pytest.skip("there is no chromium: apt-get install chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture
def market() -> Iterator[Market]:
    with open_market() as market:
        yield market


@pytest.fixture
def settings() -> dict[str, str]:
    """Further settings of a test's service, besides exchanges and stores."""
    return {}


@pytest.fixture
def desk(
    tmp_path: Path, market: Market, redis_url: str, postgres_dsn: str, settings: dict[str, str]
) -> Iterator[Desk]:
    if not (BUNDLE / "index.html").is_file():
        pytest.skip("the dashboard is not built: nox -s dashboard")
    with open_desk(tmp_path, market, redis_url, postgres_dsn, **settings) as desk:
        yield desk


@pytest.fixture
def complaints() -> Iterator[Complaints]:
    """Complaints of all pages that a test opens. None is allowed, unless the test expects it."""
    complaints = Complaints()
    yield complaints
    assert complaints.found == []


@pytest.fixture
def open_page(browser: Browser, desk: Desk, complaints: Complaints) -> Iterator[Callable[..., Page]]:
    """Opens the dashboard in a new browser profile: `open_page(query, viewport=, color_scheme=)`."""
    with ExitStack() as stack:

        def open_page(query: str = "", **options: object) -> Page:
            context: BrowserContext = browser.new_context(**{"viewport": DESKTOP, **options})  # type: ignore[arg-type]
            context.set_default_timeout(PATIENCE)
            stack.callback(context.close)
            page = context.new_page()
            complaints.watch(page, desk.url)
            page.goto(f"{desk.url}/{query}")
            page.locator("#board tbody tr").first.wait_for()
            return page

        yield open_page
