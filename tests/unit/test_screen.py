from __future__ import annotations

import io

import pytest
from client_answers import health_of
from rich.console import Console

from marketflow.client.answers import Price
from marketflow.client.screen import Screen
from marketflow.client.table_state import TableState

NOW = 1795363327057


def shown(state: TableState, *, width: int = 80, encoding: str = "utf-8", color: bool = False) -> str:
    """The text that a terminal of this width would show."""
    written = io.BytesIO()
    with io.TextIOWrapper(written, encoding=encoding, newline="") as file:
        console = Console(
            file=file, width=width, force_terminal=color, color_system="standard" if color else None
        )
        console.print(Screen("http://h", console).drawn(state, NOW))
        file.flush()
        return written.getvalue().decode(encoding)


def prices(exchange: str, *values: float, age: int = 300) -> list[Price]:
    return [Price("BTCUSDT", exchange, value, NOW - age) for value in values]


@pytest.fixture
def state() -> TableState:
    """A table of three exchanges, one of them stale."""
    state = TableState(
        symbols=["BTCUSDT", "ETHUSDT"],
        trouble=None,
        health=health_of(e1="connected", e2="connected", e3="stale", test1="off"),
    )
    state.enter(prices("e1", 99_000.0, 100_000.25) + prices("e2", 101_000.0, 99_000.0, age=12_000))
    state.enter(prices("e3", 5.0, age=400_000))
    return state


def test_a_row_has_every_exchange(state):
    """It has price, direction and age; stale prices are marked; the spread is that of the others."""
    lines = shown(state).splitlines()

    head = next(line for line in lines if line.startswith("symbol"))
    bitcoin = next(line for line in lines if line.startswith("BTCUSDT"))
    ether = next(line for line in lines if line.startswith("ETHUSDT"))
    assert head.split() == ["symbol", "connected", "connected", "stale", "spread"]
    assert bitcoin.split() == [
        *["BTCUSDT", "100000.25", "▲", "0.3s", "99000.00", "▼", "12s", "5.0000", "!", "6m"],
        *["1000.25", "1.01%"],
    ]
    assert ether.split() == ["ETHUSDT", "-", "-", "-", "-"]


def test_the_head_says_how_the_service_is(state):
    assert "marketflow http://h  mode live  health ok  16:02:07 UTC" in shown(state)

    state.health = health_of(e1="connected", postgres="away")
    state.trouble = "connection lost (why), trying again"
    text = shown(state)
    assert "PostgreSQL away" in text
    assert "Redis" not in text
    assert "connection lost (why), trying again" in text
    assert "100000.25 ! 0.3s" in text


def test_nothing_is_wider_than_the_terminal(state):
    """Three exchanges fit into 80 columns with any prices; if more do not fit, their number is shown."""
    state.enter(prices("e1", 100_000.0) + prices("e2", 1e-9) + prices("e3", 12_345.678))
    for width in (20, 40, 60, 80, 200):
        assert max(map(len, shown(state, width=width).splitlines())) <= width
    assert "more" not in shown(state)
    assert "1 more: widen the window" in shown(state, width=70)


def test_a_terminal_without_unicode_gets_none(state):
    text = shown(state, encoding="ascii")

    assert "100000.25 ^ 0.3s" in " ".join(text.split())
    assert "99000.00 v  12s" in text


def test_up_is_green_and_down_is_red(state):
    text = shown(state, color=True)

    assert "\x1b[32m100000.25 ▲" in text
    assert "\x1b[31m99000.00 ▼" in text


def test_names_cannot_command_the_terminal(state):
    state.symbols = ["BTC\x1b[2J"]
    state.health = health_of(**{"e\x1b[2J": "connected"})

    assert "\x1b[2J" not in shown(state)
