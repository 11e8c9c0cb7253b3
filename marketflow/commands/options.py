"""Shared parts of the commands: the state of a run, and types of options."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Final, TypeVar

import attrs
import click

Command = TypeVar("Command", bound=Callable[..., None])


@attrs.define
class Run:
    """State of one run of the command line."""

    log_level: str = "info"
    log_format: str = "text"
    address: tuple[str, str] = ("", "")
    """Host and port that the command listens on, for error messages."""


class Finite(click.FloatRange):
    """A number within limits; `nan` and `inf` are refused."""

    name = "number"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Convert and check the number."""
        number = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value!r} is not a finite number.", param, ctx)
        return number


AMOUNT: Final = Finite(min=0)
FRACTION: Final = Finite(min=0, max=1)


def log_options(default: str) -> Callable[[Command], Command]:
    """`--log-level`, by default `default`, and `--log-format`; both are kept in the Run."""

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
