"""The live table, drawn with rich."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from marketflow.client.table_state import Quote, Spread, TableState
from marketflow.client.words import age, moment, plain, rounded

_NAME_WIDTH: Final = 10
_CELL_WIDTH: Final = 18
_SPREAD_WIDTH: Final = 14
"""Widths of columns, gaps included. Three exchanges fit into a window of 80 columns."""

_UNICODE: Final = {1: "▲", -1: "▼", 0: " "}
_ASCII: Final = {1: "^", -1: "v", 0: " "}
_COLOURS: Final = {1: "green", -1: "red", 0: ""}
_STATUS_COLOURS: Final = {"ok": "green", "connected": "green", "unavailable": "red"}


class Screen:
    """Draws the live table on a console, with the console's current width."""

    def __init__(self, url: str, console: Console) -> None:
        self._url = url
        self._console = console

    def drawn(self, state: TableState, now: int) -> RenderableType:
        """The whole screen, as it is at `now` (Unix ms)."""
        shown, left_out = self._fitting(state.exchanges)
        parts: list[RenderableType] = [
            self._head(state, now),
            Text(),
            self._prices(state, shown, now),
            Text(),
        ]
        if left_out:
            words = f"{left_out} more: widen the window, or name one with --exchange. "
            parts.append(Text(words, "dim"))
        parts.append(Text("! is stale. Ctrl-C ends it.", "dim"))
        return Group(*parts)

    def table(self, state: TableState, now: int) -> RenderableType:
        """The table of prices."""
        shown, _ = self._fitting(state.exchanges)
        return self._prices(state, shown, now)

    def _fitting(self, exchanges: Sequence[str]) -> tuple[Sequence[str], int]:
        """The exchanges that fit, and the number of those that do not."""
        room = (self._console.width - _NAME_WIDTH - _SPREAD_WIDTH) // _CELL_WIDTH
        shown = exchanges[: max(1, room)]
        return shown, len(exchanges) - len(shown)

    def _head(self, state: TableState, now: int) -> Text:
        head = Text.assemble(("marketflow ", "bold"), plain(self._url))
        health = state.health
        if health is not None:
            head.append("  mode ", "dim").append(plain(health.mode), "bold")
            head.append("  health ", "dim").append(plain(health.status), _colour(health.status))
            for name, store in (("Redis", health.redis), ("PostgreSQL", health.postgres)):
                if store.status != "up":
                    head.append(f"  {name} {plain(store.status)}", "yellow")
        head.append(f"  {moment(now)[11:19]} UTC\n", "dim")
        if state.trouble is not None:
            head.append(plain(state.trouble), "bold red")
        return head

    def _prices(self, state: TableState, exchanges: Sequence[str], now: int) -> Table:
        table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="")
        table.add_column("symbol", width=_NAME_WIDTH - 2, no_wrap=True)
        for exchange in exchanges:
            head = Text(plain(exchange), "bold")
            status = state.status(exchange)
            if status is not None:
                head.append(f"\n{plain(status)}", _colour(status))
            table.add_column(head, justify="right", min_width=_CELL_WIDTH - 2, no_wrap=True)
        table.add_column("spread", justify="right", min_width=_SPREAD_WIDTH - 2, no_wrap=True)
        for symbol in state.symbols:
            quotes = [
                self._quote(state.quote(exchange, symbol), now, stale=state.stale(exchange))
                for exchange in exchanges
            ]
            table.add_row(Text(plain(symbol), "bold"), *quotes, _spread(state.spread(symbol)))
        return table

    def _quote(self, quote: Quote | None, now: int, *, stale: bool) -> Text:
        if quote is None:
            return Text("-      ", "dim")
        arrow = (_ASCII if self._console.options.ascii_only else _UNICODE)[quote.change]
        since = age((now - quote.timestamp) / 1_000)
        if stale:
            return Text(f"{rounded(quote.price)} ! {since:>4}", "yellow")
        return Text.assemble(
            (f"{rounded(quote.price)} {arrow}", _COLOURS[quote.change]), (f" {since:>4}", "dim")
        )


def _colour(status: str) -> str:
    return _STATUS_COLOURS.get(status, "yellow")


def _spread(spread: Spread | None) -> Text:
    return Text("-", "dim") if spread is None else Text(f"{rounded(spread.amount)} {spread.part:6.2%}")
