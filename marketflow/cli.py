"""The commands, their exit codes, and errors as one clear line each.

Commands import what they run, so that `--help` and a mistake on the command line are answered at once.
"""

from __future__ import annotations

import math
import os
import signal
import sys
import traceback
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import attrs
import click

from marketflow import __version__
from marketflow.failures import WRONG_USAGE, problems_of

if TYPE_CHECKING:
    from marketflow.config import Loaded

CLEAN: Final = 0

Command = TypeVar("Command", bound=Callable[..., None])


@attrs.define
class _Run:
    """What holds for the whole command."""

    log_level: str = "info"
    log_format: str = "text"
    address: tuple[str, str] = ("", "")
    """Host and port that it listens on, for the wording of errors."""


class _ServeByDefault(click.Group):
    """`marketflow --port 80` is `marketflow serve --port 80`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if not args or (args[0].startswith("-") and args[0] not in {"--help", "--version"}):
            args = ["serve", *args]
        return super().parse_args(ctx, args)


class _Finite(click.FloatRange):
    """A number within limits; `nan` and `inf` are none."""

    name = "number"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        number = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value!r} is not a finite number.", param, ctx)
        return number


_AMOUNT: Final = _Finite(min=0)
_FRACTION: Final = _Finite(min=0, max=1)


def main() -> None:
    """Run the command line, and exit."""
    # Until the service listens for both itself. Not by an exception: imports take it for a failure of theirs.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: os._exit(CLEAN))
    code = run(sys.argv[1:])
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except (OSError, ValueError):
        # Nobody reads it any more. At its very end Python would try again, and complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    sys.exit(code)


def run(arguments: Sequence[str]) -> int:
    """Run the command line; returns the exit code, after a line on stderr for each error."""
    this = _Run()
    try:
        with commands.make_context("marketflow", list(arguments), obj=this) as context:
            commands.invoke(context)
    except click.exceptions.Exit as done:
        return done.exit_code
    except click.ClickException as error:
        _complain(_usage_problem(error))
        return WRONG_USAGE
    except BaseException as error:  # noqa: BLE001 - nothing goes further than this
        return _tell(error, this)
    return CLEAN


def _tell(error: BaseException, this: _Run) -> int:
    """Say what happened; returns the exit code. A failure outweighs what is only wrong usage."""
    from marketflow.config.secrets import mask_connection  # noqa: PLC0415

    problems = problems_of(error, this.address)
    if problems and this.log_level == "debug":
        told = "".join(traceback.format_exception(error)).splitlines()
        _to_stderr("\n".join(map(mask_connection, told)))
    for problem in problems:
        _complain(problem)
    return min(problems.values(), default=CLEAN)


def _complain(problem: str) -> None:
    _to_stderr(f"marketflow: {' '.join(problem.split())}")


def _to_stderr(text: str) -> None:
    with suppress(OSError, ValueError):  # there is nobody left to tell
        click.echo(text, err=True)


def _usage_problem(error: click.ClickException) -> str:
    message = error.format_message().rstrip(".")
    context = getattr(error, "ctx", None)
    path = "marketflow" if context is None else context.command_path
    return f"{message[:1].lower()}{message[1:]} (try '{path} --help')"


# ---- commands ----


def _log_options(default: str) -> Callable[[Command], Command]:
    def keep(context: click.Context, option: click.Parameter, value: str) -> None:
        setattr(context.obj, str(option.name), value)

    def decorate(command: Command) -> Command:
        for name, choices in (("format", "text json"), ("level", "debug info warning error")):
            usual, kind = (default if name == "level" else "text"), click.Choice(choices.split())
            option = click.option(
                f"--log-{name}", type=kind, default=usual, expose_value=False, callback=keep
            )
            command = option(command)
        return command

    return decorate


def _load(file: Path | None, flags: Mapping[str, object]) -> Loaded:
    from marketflow.config import load  # noqa: PLC0415

    return load(file, flags, os.environ, Path.cwd())


def _start_logging(this: _Run) -> None:
    from marketflow import logs  # noqa: PLC0415

    logs.configure(this.log_level, this.log_format)


@click.group(cls=_ServeByDefault, context_settings={"max_content_width": 100, "show_default": True})
@click.version_option(__version__, prog_name="marketflow", message="%(prog)s %(version)s")
def commands() -> None:
    """Real-time market data: exchanges in, exact prices and one-minute aggregates out.

    Without a command, `serve` is run.
    """


@commands.command()
@click.option("--config", "file", type=Path, metavar="FILE", help="By default ./config.toml, if it is there.")
@click.option("--host", metavar="H", help="Where to answer HTTP; by default 127.0.0.1.")
@click.option("--port", metavar="N", help="By default 8080; 0: any free one.")
@click.option("--mode", metavar="live|test", help="Begin with the exchanges (live) or with generated prices.")
@click.option("--embedded", is_flag=True, help="Start a Redis and a PostgreSQL of its own.")
@_log_options("info")
@click.pass_obj
def serve(
    this: _Run, /, *, file: Path | None, host: str | None, port: str | None, mode: str | None, embedded: bool
) -> None:
    """Run the service until SIGINT or SIGTERM."""
    _start_logging(this)
    loaded = _load(file, {"http.host": host, "http.port": port, "mode": mode})
    this.address = loaded.settings.http.host, str(loaded.settings.http.port)

    import structlog  # noqa: PLC0415
    import trio  # noqa: PLC0415

    from marketflow.service import run_service  # noqa: PLC0415

    log, rows = structlog.get_logger("marketflow"), loaded.describe()
    log.info("starting", version=__version__, **{row.key: row.value for row in rows if row.value != "none"})
    log.debug("sources of the settings", sources={row.key: row.source for row in rows})
    trio.run(partial(run_service, loaded.settings, embedded=embedded))


@commands.command()
@click.option("--name", default="exchange1")
@click.option("--host", metavar="H", default="127.0.0.1")
@click.option("--port", type=click.IntRange(0, 65_535), default=40101, help="0: any free one.")
@click.option("--rate", type=_AMOUNT, default=10.0, help="Ticks (a line a symbol) a second; 0: no limit.")
@click.option("--seed", type=int, help="For the same prices each time.")
@click.option("--close-every", type=_AMOUNT, default=0.0, help="Seconds after which to hang up.")
@click.option("--garbage", type=_FRACTION, default=0.0, help="The part of the lines that are garbage.")
@click.option("--silence", type=_AMOUNT, default=0.0, help="Seconds to pause for, after as many of traffic.")
@click.option("--half-lines", type=_FRACTION, default=0.0, help="The part of the writes that end in a line.")
@click.option("--skew", type=_Finite(-86_400, 86_400), default=0.0, help="Seconds that its clock is ahead.")
@_log_options("info")
@click.pass_obj
def exchange(
    this: _Run, /, *, name: str, host: str, port: int, rate: float, seed: int | None, **faults: float
) -> None:
    """Run a simulated exchange until SIGINT or SIGTERM.

    Lines and pace are those of the real ones, unless it is given faults.
    """
    _start_logging(this)
    this.address = host, str(port)

    import trio  # noqa: PLC0415

    from marketflow.adapters.exchange.simulator import Faults, simulate  # noqa: PLC0415

    task = partial(simulate, name=name, host=host, port=port, rate=rate, seed=seed, faults=Faults(**faults))
    trio.run(_until_signal, task)


async def _until_signal(task: Callable[[], Awaitable[None]]) -> None:
    import trio  # noqa: PLC0415

    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(task)
            await anext(aiter(signals))
            nursery.cancel_scope.cancel()


@commands.command()
@click.option("--port", metavar="N", help="Where to answer HTTP; by default 8080; 0: any free one.")
@click.option("--duration", type=_AMOUNT, metavar="S", help="Stop by itself after S seconds.")
@_log_options("warning")
@click.pass_obj
def demo(this: _Run, /, *, port: str | None, duration: float | None) -> None:
    """Run three simulated exchanges and the service, with stores of its own."""
    _start_logging(this)
    settings = _load(None, {"http.port": port}).settings
    this.address = settings.http.host, str(settings.http.port)

    import trio  # noqa: PLC0415

    from marketflow.demo import run_demo  # noqa: PLC0415

    trio.run(partial(run_demo, settings, duration=duration))


@commands.command()
@click.option("--config", "file", type=Path, metavar="FILE", help="By default ./config.toml, if it is there.")
def config(file: Path | None) -> None:
    """Show the settings in effect, and where each came from. Secrets are masked."""
    for row in _load(file, {}).describe():
        click.echo(f"{row.key} = {row.value} ({row.source})")
