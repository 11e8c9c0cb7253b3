"""Shell completion: click's own, and the command that sets it up."""

from __future__ import annotations

import os
from typing import Final

import click
from click.shell_completion import get_completion_class, shell_complete

VARIABLE: Final = "_MARKETFLOW_COMPLETE"
"""Set by the shell when it asks for completions."""

SHELLS: Final = ("bash", "zsh", "fish")
_PROGRAM: Final = "marketflow"


def completed(commands: click.Group) -> int | None:
    """Answer a shell's request for completions; returns the exit code, or None without such a request."""
    instruction = os.environ.get(VARIABLE)
    return shell_complete(commands, {}, _PROGRAM, VARIABLE, instruction) if instruction else None


@click.command()
@click.argument("shell", type=click.Choice(SHELLS))
@click.pass_context
def completion(context: click.Context, /, *, shell: str) -> None:
    """Print the completion script for a shell.

    It completes commands, options, periods, intervals, and the symbols and exchanges of the service.

    \b
    bash: echo 'eval "$(marketflow completion bash)"' >> ~/.bashrc
    zsh:  echo 'eval "$(marketflow completion zsh)"' >> ~/.zshrc
    fish: marketflow completion fish > ~/.config/fish/completions/marketflow.fish
    """  # noqa: D301 - \b is click's mark for a paragraph that is not rewrapped
    kind = get_completion_class(shell)
    commands = context.find_root().command
    if kind is not None:
        click.echo(kind(commands, {}, _PROGRAM, VARIABLE).source())
