"""The command line: exit codes, and errors as one clear line each. The commands are in `commands`."""

from __future__ import annotations

import os
import signal
import sys
import traceback
from collections.abc import Sequence
from typing import Final

import click

from marketflow import __version__
from marketflow.commands import asking, cluster, completion, running, venue, venues, watching
from marketflow.commands.options import Run
from marketflow.failures import WRONG_USAGE, problems_of
from marketflow.signals import stop_signals
from marketflow.writing import open_writer

CLEAN: Final = 0


class _ServeByDefault(click.Group):
    """`marketflow --port 80` is `marketflow serve --port 80`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        # Not during shell completion, which then has to suggest commands.
        asks = ctx.resilient_parsing and not args
        if not asks and (not args or (args[0].startswith("-") and args[0] not in {"--help", "--version"})):
            args = ["serve", *args]
        return super().parse_args(ctx, args)


@click.group(cls=_ServeByDefault, context_settings={"max_content_width": 100, "show_default": True})
@click.version_option(__version__, prog_name="marketflow", message="%(prog)s %(version)s")
def commands() -> None:
    """Collect real-time prices from exchanges; serve exact prices and one-minute aggregates.

    Without a command, `serve` runs.
    """


for command in (
    running.serve,
    running.exchange,
    venue.venue,
    running.demo,
    running.config,
    cluster.cluster,
    venues.venues,
    venues.check_exchange,
    asking.prices,
    asking.candles,
    asking.symbols,
    asking.exchanges,
    asking.mode,
    asking.health,
    watching.watch,
    completion.completion,
):
    commands.add_command(command)


def main() -> None:
    """Run the command line, and exit."""
    # Until the command handles signals itself. An exception raised here could be caught by an import.
    for number in stop_signals():
        signal.signal(number, lambda *_: os._exit(CLEAN))
    _open_standard_streams()
    code = completion.completed(commands)
    if code is None:
        code = run(sys.argv[1:])
    for stream, descriptor in ((sys.stdout, 1), (sys.stderr, 2)):
        try:
            if stream is not None:
                stream.flush()
        except (OSError, ValueError):
            # The reader has closed it. Without this Python would flush again at exit, and exit with 120.
            os.dup2(os.open(os.devnull, os.O_WRONLY), descriptor)
    sys.exit(code)


def _open_standard_streams() -> None:
    """Open /dev/null in place of a closed stdin, stdout or stderr.

    Otherwise the next opened file or socket would get that descriptor, and the output meant for it.
    """
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest number that is free: this one
            os.set_inheritable(descriptor, True)  # noqa: FBT003


def run(arguments: Sequence[str]) -> int:
    """Run the command line; returns the exit code, after a line on stderr for each error."""
    this = Run()
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


def _tell(error: BaseException, this: Run) -> int:
    """Print the errors; returns the exit code. A failure takes precedence over wrong usage."""
    from marketflow.config.secrets import mask_connection  # noqa: PLC0415

    problems = problems_of(error, this.address)
    if problems and this.log_level == "debug":
        told = "".join(traceback.format_exception(error)).splitlines()
        _to_stderr("\n".join(map(mask_connection, told)))
    for problem in problems:
        _complain(problem)
    return min(problems.values(), default=CLEAN)


def _complain(problem: str) -> None:
    from marketflow.client.words import plain  # noqa: PLC0415

    _to_stderr(f"marketflow: {plain(' '.join(problem.split()))}")


def _to_stderr(text: str) -> None:
    """Write the text after all log lines; a blocked stderr does not delay the exit."""
    import logging  # noqa: PLC0415

    for handler in logging.getLogger().handlers:
        handler.flush()
    writer = open_writer(sys.stderr)
    writer.write(f"{text}\n")
    writer.flush()


def _usage_problem(error: click.ClickException) -> str:
    message = error.format_message().rstrip(".")
    context = getattr(error, "ctx", None)
    path = "marketflow" if context is None else context.command_path
    return f"{message[:1].lower()}{message[1:]} (try '{path} --help')"
