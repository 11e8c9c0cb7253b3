"""The switch of the mode, from the page."""

from __future__ import annotations

import re

import pytest
from market import NAMES
from playwright.sync_api import Page, expect

expect.set_options(timeout=15_000)

TESTS = ["test1", "test2", "test3"]


def switch(page: Page, to: str) -> None:
    page.get_by_role("button", name=f"Switch to {to}").click()
    page.get_by_role("dialog").get_by_role("button", name=f"Switch to {to}").click()


def test_there_and_back(desk, open_page):
    page = open_page("?symbol=SOLUSDT&exchange=exchange2")
    expect(page.locator("#mode")).to_have_text("live")
    switch(page, "test")
    expect(page.locator("#mode")).to_have_text("test data")
    expect(page.locator("#board thead .name")).to_have_text(TESTS)
    expect(page.locator("#board .price .number").first).to_have_text(re.compile(r"\d"))
    expect(page.locator("#chart")).to_have_attribute("aria-label", re.compile("SOLUSDT, all exchanges"))
    assert desk.get("/mode")["mode"] == "test"
    switch(page, "live")
    expect(page.locator("#mode")).to_have_text("live")
    expect(page.locator("#board thead .name")).to_have_text(list(NAMES))
    assert desk.get("/mode")["mode"] == "live"


def test_it_asks_before(desk, open_page):
    """Escape cancels, and returns the focus."""
    page = open_page()
    button = page.get_by_role("button", name="Switch to test")
    for leave in (
        lambda: page.keyboard.press("Escape"),
        lambda: page.get_by_role("button", name="Cancel").click(),
    ):
        button.click()
        expect(page.get_by_role("dialog", name="Switch to test mode?")).to_be_visible()
        leave()
        expect(page.get_by_role("dialog")).to_be_hidden()
        expect(button).to_be_focused()
    assert desk.get("/mode")["mode"] == "live"


def test_a_switch_by_somebody_else_is_seen(desk, open_page):
    one, other = open_page(), open_page()
    switch(one, "test")
    expect(other.locator("#mode")).to_have_text("test data")
    expect(other.locator("#board thead .name")).to_have_text(TESTS)


class TestWithToken:
    @pytest.fixture
    def settings(self):
        return {"HTTP__TOKEN": "a-secret-of-ours"}

    def test_it_is_asked_for_once_and_kept_for_the_tab_only(self, open_page, complaints):
        complaints.expected = re.compile("status of 401")
        page = open_page()
        switch(page, "test")
        dialog = page.get_by_role("dialog")
        token = dialog.get_by_label("Token")
        expect(token).to_be_focused()
        token.fill("a guess")
        page.keyboard.press("Enter")
        expect(dialog.get_by_role("alert")).to_have_text("The service does not accept this token.")
        expect(page.locator("#mode")).to_have_text("live")
        token.fill("a-secret-of-ours")
        page.keyboard.press("Enter")
        expect(page.locator("#mode")).to_have_text("test data")
        switch(page, "live")
        expect(page.locator("#mode")).to_have_text("live")
        assert "a-secret-of-ours" in page.evaluate("Object.values(sessionStorage)")
        assert "a-secret-of-ours" not in page.evaluate("JSON.stringify(localStorage) + document.cookie")
