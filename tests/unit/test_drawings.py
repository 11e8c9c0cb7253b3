"""Drawings that stand in the code and in the architecture are the same, and tables of states are complete."""

from __future__ import annotations

import importlib
import re
from pathlib import Path
from typing import get_args

import pytest

from marketflow.adapters.exchange.websocket import state as session
from marketflow.app.ingest.state import TRANSITIONS, Event, State

ARCHITECTURE = (Path(__file__).parents[2] / "docs" / "architecture.md").read_text(encoding="utf-8")


def drawings(text: str) -> list[str]:
    """The blocks between fences."""
    return re.findall(r"^```\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize(
    "module",
    [
        "service",
        "app.ingest.state",
        "app.share.link",
        "app.share.history",
        "app.share.pair_bars",
        "adapters.cache.fenced",
        *(f"adapters.exchange.websocket.{each}" for each in ("source", "session", "state", "subscriptions")),
    ],
)
def test_a_drawing_is_the_same_in_the_code_and_in_the_architecture(module: str) -> None:
    """A module that draws its tasks or states draws them as the document does."""
    drawn = drawings(importlib.import_module(f"marketflow.{module}").__doc__ or "")
    assert drawn
    assert [each for each in drawn if each not in drawings(ARCHITECTURE)] == []


def test_the_table_of_a_feed_has_every_transition() -> None:
    """Each transition is in the document's table, and nothing else is."""
    events = get_args(Event)
    (table,) = re.findall(
        rf"^\| state \| {' [|] '.join(events)} \|\n\|[-|]+\n((?:\|.*\n)+)", ARCHITECTURE, re.MULTILINE
    )
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines()]
    assert [state for state, *_ in rows] == list(get_args(State))
    found = {
        (state, event): after
        for state, *cells in rows
        for event, after in zip(events, cells, strict=True)
        if after
    }
    assert found == TRANSITIONS


def test_the_drawing_of_a_feed_has_an_arrow_for_each_transition() -> None:
    """Stops share one arrow, since each state has one."""
    (drawn,) = drawings(importlib.import_module("marketflow.app.ingest.state").__doc__ or "")
    heads = re.findall(r"[<>^]|(?<!\w)v(?!\w)", drawn)
    assert len(heads) == sum(event != "stop" for _, event in TRANSITIONS) + 1


def test_the_drawing_of_a_session_has_an_arrow_for_each_transition() -> None:
    """Ends share one arrow, since each state has one, and `closed` is what they lead to."""
    (drawn,) = drawings(session.__doc__ or "")
    assert len(re.findall(r"[<>]", drawn)) == sum(event != "ended" for _, event in session.TRANSITIONS) + 1
    states = get_args(session.State)
    assert {state for state, event in session.TRANSITIONS if event == "ended"} == {*states} - {"closed"}
    assert [state for state in states if state not in drawn] == []
    assert [event for event in get_args(session.Event) if event not in drawn] == []
