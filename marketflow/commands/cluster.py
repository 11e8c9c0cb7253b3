"""The commands that move the stores of a single service to the nodes of a cluster, and back."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from marketflow.commands.options import Run, log_options
from marketflow.commands.running import load_settings, start_logging
from marketflow.commands.signals import interruptible

if TYPE_CHECKING:
    from marketflow.adapters.cache.copying import Copied
    from marketflow.adapters.db.last_use import Use

Command = TypeVar("Command", bound=Callable[..., Any])

PROGRESS_SECONDS: Final = 1.0
"""How often it is said how far it is."""


class _RedisUrl(click.ParamType[str]):
    """The URL of a Redis."""

    name = "url"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Check the URL."""
        from marketflow.config.redis_url import expected_of  # noqa: PLC0415 - help needs none of it

        expected = expected_of(value)
        if expected is not None:
            self.fail(f"expected {expected}.", param, ctx)
        return value


_config = click.option(
    "--config", "file", type=Path, metavar="FILE", help="The default is ./config.toml, if it exists."
)


def _url(name: str) -> Callable[[Command], Command]:
    """The option of that name."""
    return click.option(
        name,
        "url",
        type=_RedisUrl(),
        metavar="URL",
        help="The Redis of the single service; by default that of the settings.",
    )


@click.group()
def cluster() -> None:
    """Go from one machine to several, and back."""


@cluster.command()
@_config
@_url("--from")
@log_options("warning")
@click.pass_obj
def adopt(this: Run, /, *, file: Path | None, url: str | None) -> None:
    """Bring what a single service has in Redis and in its spool to the nodes of a cluster.

    The settings are those of a node. Neither a service nor a node may run. It can be run again at any time.
    """
    _move(this, "nodes of a cluster", file, url)


@cluster.command()
@_config
@_url("--to")
@log_options("warning")
@click.pass_obj
def leave(this: Run, /, *, file: Path | None, url: str | None) -> None:
    """Bring what the nodes of a cluster have in Redis and in the spool to a single service.

    The settings are those of a node. Neither a service nor a node may run. It can be run again at any time.
    """
    _move(this, "a single service", file, url)


def _move(this: Run, use: Use, file: Path | None, url: str | None) -> None:
    start_logging(this)
    settings = load_settings(file, {"cluster.enabled": True}).settings

    import trio  # noqa: PLC0415

    from marketflow import moving  # noqa: PLC0415

    move = partial(
        moving.move,
        settings,
        use,
        settings.redis.effective_url if url is None else url,
        now=time.time_ns() // 1_000_000,
        boot=f"{random.SystemRandom().getrandbits(32):08x}",
        progress=_Progress().tell,
    )
    with interruptible():
        moved = trio.run(move)
    copied = moved.copied
    spooled = f", {moved.spooled:,} of them from the spool" if moved.spooled else ""
    click.echo(f"{_amount(copied)} of {copied.pairs:,} pairs moved to {use}{spooled}")
    if moved.kept:
        click.echo(
            f"{moved.kept:,} spooled bars are older than what Redis keeps, and stay in {settings.state_dir}"
        )


class _Progress:
    """Tells on stderr how far it is, if it takes long."""

    def __init__(self) -> None:
        self._told_at = time.monotonic()

    def tell(self, copied: Copied) -> None:
        """So much was copied."""
        now = time.monotonic()
        if now >= self._told_at + PROGRESS_SECONDS:
            self._told_at = now
            click.echo(f"{_amount(copied)} so far", err=True)


def _amount(copied: Copied) -> str:
    return f"{copied.updates:,} updates and {copied.bars:,} bars"
