"""The commands that run the service, a simulated exchange or both, and the one that shows the settings."""

from __future__ import annotations

import gc
import math
import os
import sys
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

import attrs
import click

from marketflow import __version__
from marketflow.commands.options import AMOUNT, FRACTION, Finite, Run, log_options
from marketflow.commands.signals import until_signal

if TYPE_CHECKING:
    from marketflow.config import Loaded, Settings


def load_settings(file: Path | None, flags: Mapping[str, object]) -> Loaded:
    """The settings of all layers.

    Raises:
        ConfigError: has all problems.
    """
    from marketflow.config import load  # noqa: PLC0415

    try:
        cwd = Path.cwd()
    except FileNotFoundError:  # the working directory was removed
        cwd = Path()
    return load(file, flags, os.environ, cwd)


def start_logging(this: Run) -> None:
    """Log as the options of the run say."""
    # structlog imports rich for tracebacks if it is installed. Ours are plain; the import takes a twentieth
    # of a start.
    with _hidden("rich"):
        from marketflow import logs  # noqa: PLC0415

    logs.configure(this.log_level, this.log_format)


@contextmanager
def _hidden(module: str) -> Iterator[None]:
    """Make a module appear not installed, unless it was imported before."""
    hiding = sys.modules.setdefault(module, None) is None  # type: ignore[arg-type]  # None: as Python has it
    try:
        yield
    finally:
        if hiding:
            del sys.modules[module]


COLLECT_AFTER: Final = 10_000
"""New objects before the youngest generation is collected: those of dozens of requests, not of one or two."""
OTHER_FILES: Final = 512
"""Open files in addition to clients' connections: exchanges, stores, refused connections."""


@click.command()
@click.option(
    "--config", "file", type=Path, metavar="FILE", help="The default is ./config.toml, if it exists."
)
@click.option("--host", metavar="H", help="The address to listen on; 127.0.0.1 by default.")
@click.option("--port", metavar="N", help="The TCP port; 8080 by default, 0: any free one.")
@click.option(
    "--mode", metavar="live|test", help="Start with the exchanges (live) or with generated prices (test)."
)
@click.option("--embedded", is_flag=True, help="Start its own Redis and PostgreSQL.")
@click.option(
    "--role", metavar="all|ingest|api", help="Run as a node of a cluster; api: it takes no exchange."
)
@log_options("info")
@click.pass_obj
def serve(this: Run, /, *, file: Path | None, embedded: bool, role: str | None, **given: str | None) -> None:
    """Run the service until SIGINT, SIGTERM or SIGHUP."""
    if embedded and role is not None:
        raise click.UsageError("--embedded starts stores for one service, and --role is for several")
    with _sparing_the_collector():
        start_logging(this)
        flags: dict[str, object] = {f"http.{key}": given[key] for key in ("host", "port")}
        flags |= {"mode": given["mode"], "cluster.role": role}
        loaded = load_settings(file, flags | ({"cluster.enabled": True} if role is not None else {}))
        this.address = loaded.settings.http.host, str(loaded.settings.http.port)
        if embedded and loaded.settings.cluster.enabled:
            raise click.UsageError("--embedded starts stores for one service, and cluster.enabled is set")

        import structlog  # noqa: PLC0415
        import trio  # noqa: PLC0415

        run = _run_of(loaded.settings, embedded=embedded)

    log, rows = structlog.get_logger("marketflow"), loaded.describe()
    log.info("starting", version=__version__, **{row.key: row.value for row in rows if row.value != "none"})
    log.debug("settings read", sources={row.key: row.source for row in rows})
    trio.run(run, with_open_files(loaded.settings))


def _run_of(settings: Settings, *, embedded: bool) -> Callable[[Settings], Awaitable[None]]:
    """What to run: a service that is alone on its stores, or a node of a cluster."""
    if settings.cluster.enabled:
        from marketflow.cluster_service import run_node  # noqa: PLC0415

        return run_node

    from marketflow.service import run_service  # noqa: PLC0415

    return partial(run_service, embedded=embedded)


@contextmanager
def _sparing_the_collector() -> Iterator[None]:
    """Exclude permanent objects (modules, classes) from garbage collection.

    Imports create hardly any garbage, but looking for it takes a tenth of a start. Later all these objects
    would be scanned several times a second under many requests.
    """
    gc.disable()
    try:
        yield
        gc.freeze()
        gc.set_threshold(COLLECT_AFTER, 20, 20)
    finally:
        gc.enable()


def with_open_files(settings: Settings) -> Settings:
    """Raise the limit of open files, and reduce `max_connections` in the settings if it is still too low.

    Otherwise many clients could use up the file descriptors that a feed needs to connect again. The usual
    soft limit is 1,024, and the hard limit is far higher.
    """
    import resource  # noqa: PLC0415

    import structlog  # noqa: PLC0415

    wanted = settings.http.max_connections + OTHER_FILES
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    soft, hard = (math.inf if each == resource.RLIM_INFINITY else each for each in limits)
    may = int(min(wanted, hard))
    if soft < may:
        resource.setrlimit(resource.RLIMIT_NOFILE, (may, limits[1]))
    if may == wanted:
        return settings
    connections = max(1, may - OTHER_FILES)
    log = structlog.get_logger("marketflow")
    log.warning("connection limit lowered", setting="http.max_connections", to=connections, files=may)
    return attrs.evolve(settings, http=attrs.evolve(settings.http, max_connections=connections))


@click.command()
@click.option("--name", default="exchange1")
@click.option("--host", metavar="H", default="127.0.0.1")
@click.option("--port", type=click.IntRange(0, 65_535), default=40101, help="0: any free one.")
@click.option(
    "--rate",
    type=AMOUNT,
    default=10.0,
    help="Ticks a second (a tick is a line for each symbol); 0: no limit.",
)
@click.option(
    "--walk",
    type=click.Choice(["free", "fair"]),
    default="free",
    show_default=True,
    help="free: random walks, like the provided exchanges. fair: one market for all exchanges, whose "
    "prices stay together.",
)
@click.option("--seed", type=int, help="free: gives the same prices each time. fair: chooses the market.")
@click.option("--volumes", is_flag=True, help="Tell a volume and the taker's side in each line.")
@click.option(
    "--close-every", type=AMOUNT, default=0.0, help="Close each connection after this many seconds."
)
@click.option("--garbage", type=FRACTION, default=0.0, help="The fraction of lines that are garbage.")
@click.option(
    "--silence", type=AMOUNT, default=0.0, help="Seconds of traffic, then as many of silence, in turn."
)
@click.option(
    "--half-lines", type=FRACTION, default=0.0, help="The fraction of writes that end within a line."
)
@click.option(
    "--skew", type=Finite(-86_400, 86_400), default=0.0, help="Seconds by which its clock is ahead."
)
@log_options("info")
@click.pass_obj
def exchange(
    this: Run,
    /,
    *,
    name: str,
    host: str,
    port: int,
    rate: float,
    walk: Literal["free", "fair"],
    seed: int | None,
    volumes: bool,
    **faults: float,
) -> None:
    """Run a simulated exchange until SIGINT, SIGTERM or SIGHUP.

    It sends the same lines at the same rate as the real ones, except for the faults that you set, and for
    volumes, which the real ones do not tell. All clients get the same lines.
    """
    start_logging(this)
    host = host.removeprefix("[").removesuffix("]")  # IPv6 addresses have brackets in URLs
    this.address = host, str(port)

    import trio  # noqa: PLC0415

    from marketflow.adapters.exchange.faults import Faults  # noqa: PLC0415
    from marketflow.adapters.exchange.simulator import simulate  # noqa: PLC0415

    task = partial(
        simulate,
        name=name,
        host=host,
        port=port,
        rate=rate,
        walk=walk,
        seed=seed,
        volumes=volumes,
        faults=Faults(**faults),
    )
    trio.run(until_signal, task)


@click.command()
@click.option("--port", metavar="N", help="The TCP port; 8080 by default, 0: any free one.")
@click.option("--duration", type=AMOUNT, metavar="S", help="Stop by itself after S seconds.")
@click.option(
    "--nodes",
    type=click.IntRange(2, 9),
    metavar="N",
    help="A cluster of N nodes, each a process: one answers only, the others share the exchanges.",
)
@log_options("warning")
@click.pass_obj
def demo(this: Run, /, *, port: str | None, duration: float | None, nodes: int | None) -> None:
    """Run three simulated exchanges and the service, or several nodes of a cluster.

    This also starts a Redis and a PostgreSQL, and removes their data afterwards.
    """
    start_logging(this)
    settings = load_settings(None, {"http.port": port}).settings
    this.address = settings.http.host, str(settings.http.port)

    import trio  # noqa: PLC0415

    if nodes is not None:
        from marketflow.cluster_demo import run_cluster_demo  # noqa: PLC0415

        trio.run(partial(run_cluster_demo, settings, nodes, duration=duration))
        return

    from marketflow.demo import run_demo  # noqa: PLC0415

    trio.run(partial(run_demo, with_open_files(settings), duration=duration))


@click.command()
@click.option("--config", "file", type=Path, metavar="FILE", help="By default ./config.toml, if it is there.")
def config(file: Path | None) -> None:
    """Show the effective settings, and the source of each.

    Secrets are masked.
    """
    for row in load_settings(file, {}).describe():
        click.echo(f"{row.key} = {row.value} ({row.source})")
