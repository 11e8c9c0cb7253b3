"""Watches what a page does while it is open."""

from __future__ import annotations

import re

import attrs
from playwright.sync_api import Page

DESKTOP = {"width": 1440, "height": 900}
PHONE = {"width": 375, "height": 812}


@attrs.define
class Complaints:
    """Errors in the browser, and requests to other servers than the service."""

    expected: re.Pattern[str] | None = None
    """Errors that a test provokes."""
    found: list[str] = attrs.Factory(list)

    def watch(self, page: Page, url: str) -> None:
        page.on("console", lambda message: self._console(message.type, message.text))
        page.on("pageerror", lambda error: self.found.append(f"uncaught: {error}"))
        page.on("request", lambda request: self._request(request.url, url))

    def _console(self, kind: str, text: str) -> None:
        if kind in {"error", "warning"} and not (self.expected and self.expected.search(text)):
            self.found.append(f"{kind}: {text}")

    def _request(self, asked: str, url: str) -> None:
        if not asked.startswith(url):
            self.found.append(f"asked elsewhere: {asked}")
