"""Answers of the API, as a client receives them, without a service."""

from __future__ import annotations

import json
from typing import Any

from marketflow.client.answers import Health, read

NONE: dict[str, Any] = {
    "received": 0,
    "accepted": 0,
    "rejected": {},
    "cached": 0,
    "expired": 0,
    "dropped": {},
    "pending": 0,
}
"""An empty ledger."""


def health_of(*, postgres: str = "up", error: str | None = None, **statuses: str) -> Health:
    """A health report about these exchanges."""
    updates = NONE | {"received": 9, "accepted": 7, "rejected": {"price": 2, "late": 0}, "cached": 7}
    exchanges = {
        name: {
            "status": status,
            "last_update_age": None if status == "off" else 0.25,
            "reconnects": 1,
            "updates": NONE if status == "off" else updates,
        }
        for name, status in statuses.items()
    }
    report = {
        "status": "ok",
        "mode": "live",
        "version": "1.2.3",
        "uptime": 3723.5,
        "redis": {"status": "up", "since": 1795363327057, "error": None},
        "postgres": {"status": postgres, "since": 1795363327057, "error": error},
        "exchanges": exchanges,
        "updates": updates,
        "something_newer": 1,
    }
    return read("http://test", json.dumps(report), Health)
