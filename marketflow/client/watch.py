"""`marketflow watch`: a live table on a terminal, or a line for each price.

```
 watch_table                    one nursery, until cancelled
 ├─ follow                      reads the stream into the table's state, and connects again
 ├─ ask_health                  requests the service's health for it
 ├─ suspend                     restores the terminal at Ctrl-Z
 └─ paint                       draws the table
```

These tasks share only that state. It needs no lock: they run in one thread, and none of them awaits while it
changes it.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING, Final, NoReturn

import attrs
import trio

from marketflow.client.address import Address
from marketflow.client.answers import Health, read
from marketflow.client.errors import ClientError
from marketflow.client.questions import ask
from marketflow.client.requests import HEALTH
from marketflow.client.stream import LivePrice, follow
from marketflow.client.table_state import TableState
from marketflow.client.words import moment, plain

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.live import Live

HEALTH_SECONDS: Final = 2.0
"""Seconds between two requests of the health."""

FRAME_SECONDS: Final = 0.2
"""Seconds between two redraws. Faster ones would not be easier to read."""


# ---- the table ----


async def watch_table(address: Address, symbols: Collection[str], exchange: str | None) -> None:
    """Show a table on the terminal, until cancelled. The last state stays on the screen.

    Raises:
        ExceptionGroup of Unreachable, Refused or NotUnderstood: as `follow`.
    """
    from rich.console import Console  # noqa: PLC0415 - only here: it takes its time
    from rich.live import Live  # noqa: PLC0415

    from marketflow.client.screen import Screen  # noqa: PLC0415

    state, console = TableState(only=exchange), Console()
    screen = Screen(str(address), console)
    try:
        async with trio.open_nursery() as nursery:
            # Take over the terminal only now: a failed connection is reported as by other commands.
            await nursery.start(follow, address, symbols, exchange, _IntoState(state))
            with Live(console=console, screen=True, auto_refresh=False) as live:
                nursery.start_soon(ask_health, address, state)
                nursery.start_soon(suspend, live)
                await paint(live, lambda: screen.drawn(state, _now()))
    finally:
        if state.symbols:
            console.print(screen.table(state, _now()))


async def paint(live: Live, drawn: Callable[[], RenderableType]) -> NoReturn:
    """Draw the table periodically."""
    while True:
        live.update(drawn(), refresh=True)
        await trio.sleep(FRAME_SECONDS)


async def suspend(live: Live) -> NoReturn:
    """Restore the terminal at Ctrl-Z, and take it over again afterwards."""
    with trio.open_signal_receiver(signal.SIGTSTP) as signals:
        async for _ in signals:
            live.stop()
            os.kill(os.getpid(), signal.SIGSTOP)
            live.start()
    raise AssertionError  # the signals never end


async def ask_health(address: Address, state: TableState) -> NoReturn:
    """Request the health periodically, also after errors."""
    while True:
        try:
            state.health = read(str(address), await ask(address, HEALTH), Health)
        except ClientError:
            state.health = None  # The reader of the stream reports the error.
        await trio.sleep(HEALTH_SECONDS)


@attrs.frozen
class _IntoState:
    """A Listener that keeps the state up to date."""

    state: TableState

    def connected(self, symbols: Sequence[str]) -> None:
        self.state.symbols = symbols
        self.state.trouble = None

    async def arrived(self, prices: Sequence[LivePrice]) -> None:
        self.state.enter(each.price for each in prices)

    def lost(self, reason: str) -> None:
        self.state.trouble = f"connection lost ({reason}), trying again"


# ---- lines ----


async def watch_lines(
    address: Address,
    symbols: Collection[str],
    exchange: str | None,
    *,
    as_json: bool,
    tell: Callable[[str], None],
) -> NoReturn:
    """Write a line for each price to stdout, until cancelled.

    Args:
        address, symbols, exchange: as for `follow`.
        as_json: whether to print the received JSON unchanged.
        tell: called with a message when the connection is lost or restored.

    Raises:
        Unreachable, Refused, NotUnderstood: as `follow`.
        BrokenPipeError: the reader of stdout has closed it.
    """
    await follow(address, symbols, exchange, _IntoLines(_as_it_came if as_json else _as_line, tell))


@attrs.define
class _IntoLines:
    """A Listener that writes lines."""

    wording: Callable[[LivePrice], str]
    tell: Callable[[str], None]
    is_lost: bool = False

    def connected(self, symbols: Sequence[str]) -> None:  # noqa: ARG002
        if self.is_lost:
            self.tell("connected again")
        self.is_lost = False

    async def arrived(self, prices: Sequence[LivePrice]) -> None:
        data = "".join(f"{self.wording(each)}\n" for each in prices).encode()
        # In a thread, so that a blocked pipe cannot keep us from exiting. Not through sys.stdout, since an
        # abandoned thread would keep its lock.
        await trio.to_thread.run_sync(_write, data, abandon_on_cancel=True)

    def lost(self, reason: str) -> None:
        if not self.is_lost:  # report it once, not for each attempt
            self.tell(f"connection lost ({reason}), trying again")
        self.is_lost = True


def _as_it_came(live: LivePrice) -> str:
    return " ".join(live.text.splitlines())


def _as_line(live: LivePrice) -> str:
    price = live.price
    volume = "" if price.volume is None else f" {price.volume}"
    return f"{moment(price.timestamp)} {plain(price.exchange)} {plain(price.symbol)} {price.price}{volume}"


def _write(data: bytes) -> None:
    while data:
        data = data[os.write(1, data) :]


def _now() -> int:
    return time.time_ns() // 1_000_000
