"""Events of the log have short names, and say of what they are: `store away`, `row refused`."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import marketflow

ROOT = Path(marketflow.__file__).parent
LEVELS = ("debug", "info", "warning", "error", "critical", "exception", "log", "_line", "_bug")
"""Methods of loggers, and those of the log of outages."""
MOST_WORDS = 6
SENTENCES = {"is", "are", "was", "were", "had", "would", "may", "must", "they", "it", "which"}
"""Words of a sentence. What has happened belongs into the name, why and how into the fields."""


def events(source: str) -> set[str]:
    """The names of events that a source logs, where they are literals."""
    return {
        each.value
        for call in ast.walk(ast.parse(source))
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute) and call.func.attr in LEVELS
        for each in call.args[:2]
        if isinstance(each, ast.Constant) and isinstance(each.value, str) and each.value not in LEVELS
    }


def fault(event: str) -> str | None:
    """What is wrong with the name of an event."""
    words = event.split()
    if any(sign in event for sign in ",;:!?_") or event.endswith("."):
        return "it has signs"
    if len(words) > MOST_WORDS:
        return "it is too long"
    return "it is a sentence" if SENTENCES & set(words) else None


@pytest.mark.parametrize("path", sorted(ROOT.rglob("*.py")), ids=lambda path: str(path.relative_to(ROOT)))
def test_events_have_plain_names(path: Path) -> None:
    found = {event: fault(event) for event in events(path.read_text(encoding="utf-8"))}
    assert {event: wrong for event, wrong in found.items() if wrong} == {}


def test_events_are_found() -> None:
    """Also those of a bound logger, over several lines, and with a level that is a variable."""
    source = """
log.info("one", a="no event")
self._log.warning(
    "two",
    path="x",
)
log.log(level, "three", message=message)
self._line("info", "four")
math.log(2.0)
"""
    assert events(source) == {"one", "two", "three", "four"}
    assert "store away" in events((ROOT / "app" / "instruments" / "stores.py").read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    "event",
    [
        "request_failed",
        "bars of symbols that are not configured cannot be looked for",
        "bars spooled, no store would take them",
        "Redis may evict what it holds",
        "embedded server had started",
    ],
)
def test_a_bad_name_is_found(event: str) -> None:
    assert fault(event) is not None


@pytest.mark.parametrize("event", ["store away", "lease on Redis taken", "connection limit lowered"])
def test_a_good_name_is_not(event: str) -> None:
    assert fault(event) is None
