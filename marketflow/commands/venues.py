"""The commands about real exchanges: which kinds there are, and what one of them says."""

from __future__ import annotations

from pathlib import Path

import click

from marketflow.commands.options import Finite, Run, log_options
from marketflow.commands.running import load_settings, start_logging


@click.command()
def venues() -> None:
    """List the kinds of real exchanges."""
    from marketflow.adapters.exchange.venues.registry import VENUES  # noqa: PLC0415

    rows = [("kind", "symbols", "address")]
    rows += [
        (kind, "as ours" if venue.spelling("BTCUSDT") else "its own", venue.url)
        for kind, venue in VENUES.items()
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(2)]
    for row in rows:
        click.echo(f"{row[0]:{widths[0]}}  {row[1]:{widths[1]}}  {row[2]}")


@click.command(name="check-exchange")
@click.argument("name")
@click.option(
    "--config", "file", type=Path, metavar="FILE", help="The default is ./config.toml, if it exists."
)
@click.option(
    "--seconds", type=Finite(min=0.1, max=3_600), default=15.0, help="How long to wait for updates."
)
@log_options("error")
@click.pass_obj
def check_exchange(this: Run, /, *, name: str, file: Path | None, seconds: float) -> None:
    """Connect to a configured exchange once, and say what it sends.

    It ends when an update of each symbol has come. Nothing is stored.
    """
    start_logging(this)
    settings = load_settings(file, {}).settings

    import random  # noqa: PLC0415
    from functools import partial  # noqa: PLC0415

    import trio  # noqa: PLC0415

    from marketflow import exchange_check  # noqa: PLC0415
    from marketflow.app.instruments.clocks import SystemClock  # noqa: PLC0415
    from marketflow.client.words import plain  # noqa: PLC0415

    check = partial(
        exchange_check.check_exchange,
        settings,
        name,
        seconds=seconds,
        clock=SystemClock(),
        entropy=random.SystemRandom(),
        say=lambda line: click.echo(plain(line)),
    )
    try:
        trio.run(check)
    except LookupError as error:
        raise click.BadArgumentUsage(str(error)) from None
