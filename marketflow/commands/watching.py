"""`marketflow watch`."""

from __future__ import annotations

import os
import sys
from functools import partial

import click

from marketflow.client.address import Address
from marketflow.commands.service import complete_exchanges, complete_symbols, url_option
from marketflow.commands.signals import until_signal


@click.command()
@click.argument("symbols", nargs=-1, metavar="[SYMBOL]...", shell_complete=complete_symbols)
@click.option("--exchange", metavar="NAME", shell_complete=complete_exchanges, help="Only this exchange.")
@url_option
@click.option("--json", "as_json", is_flag=True, help="Print each price as a line of JSON.")
def watch(*, symbols: tuple[str, ...], exchange: str | None, url: Address, as_json: bool) -> None:
    """Watch prices live.

    On a terminal it shows a table, otherwise it prints a line for each price. Ctrl-C ends it.
    After a lost connection it connects again.
    """
    import trio  # noqa: PLC0415

    from marketflow.client.watch import watch_lines, watch_table  # noqa: PLC0415

    if as_json or not sys.stdout.isatty() or os.environ.get("TERM") == "dumb":
        lines = partial(watch_lines, url, symbols, exchange, as_json=as_json, tell=_tell)
        trio.run(until_signal, lines)
    else:
        trio.run(until_signal, partial(watch_table, url, symbols, exchange))


def _tell(words: str) -> None:
    click.echo(f"marketflow: {words}", err=True)
