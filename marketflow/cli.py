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
from marketflow.commands import asking, completion, running, watching
from marketflow.commands.options import Run
from marketflow.failures import WRONG_USAGE, problems_of
from marketflow.signals import stop_signals
from marketflow.writing import open_writer

CLEAN: Final = 0


class _ServeByDefault(click.Group):
    """`marketflow --port 80` is `marketflow serve --port 80`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        # Not for the shell that asks what could come next: without a command that is a command.
        asks = ctx.resilient_parsing and not args
        if not asks and (not args or (args[0].startswith("-") and args[0] not in {"--help", "--version"})):
            args = ["serve", *args]
        return super().parse_args(ctx, args)


@click.group(cls=_ServeByDefault, context_settings={"max_content_width": 100, "show_default": True})
@click.version_option(__version__, prog_name="marketflow", message="%(prog)s %(version)s")
def commands() -> None:
    """Real-time market data: exchanges in, exact prices and one-minute aggregates out.

    Without a command, `serve` is run.
    """


for command in (
    running.serve,
    running.exchange,
    running.demo,
    running.config,
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
    # Until the command handles them itself. An exception would not do: an import takes it for its own error.
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
            # Nobody reads it any more. Python would try once more at its end, and exit with 120.
            os.dup2(os.open(os.devnull, os.O_WRONLY), descriptor)
    sys.exit(code)


def _open_standard_streams() -> None:
    """Have stdin, stdout and stderr lead to nowhere where they are closed.

    Else the first files that are opened, connections for example, would take their places, and get what is
    meant for them.
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
    from marketflow.client.words import plain  # noqa: PLC0415

    _to_stderr(f"marketflow: {plain(' '.join(problem.split()))}")


def _to_stderr(text: str) -> None:
    """Write it after what was logged; a stderr that takes nothing does not hold up the end."""
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
