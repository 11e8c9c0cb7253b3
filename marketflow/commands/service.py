"""Shared parts of the client commands: the service's address, requests and output."""

from __future__ import annotations

import io
from collections.abc import Callable
from contextlib import suppress
from functools import partial, wraps
from pathlib import Path
from typing import Any, Final, TypeVar

import attrs
import click
from click.shell_completion import CompletionItem

from marketflow.client.address import DEFAULT_URL, Address, parse_address
from marketflow.client.requests import EXCHANGES, SYMBOLS, Request
from marketflow.commands.signals import interruptible

T = TypeVar("T")

COMPLETION_SECONDS: Final = 1.0
"""How long shell completion waits for names from the service."""


class _ServiceUrl(click.ParamType[Address]):
    """The address of a service."""

    name = "url"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Address:
        """Parse and check the address."""
        if isinstance(value, Address):
            return value
        try:
            return parse_address(value)
        except ValueError as error:
            from marketflow.config.secrets import mask_value  # noqa: PLC0415 - takes longer than a question

            shown, why = mask_value(value), mask_value(str(error))
            self.fail(f"{shown!r} is no URL like {DEFAULT_URL}: {why}", param, ctx)


def from_dotenv(name: str, otherwise: str | None) -> str | None:
    """A variable from `.env`, which may also contain settings of the service."""
    from dotenv.parser import parse_stream  # noqa: PLC0415

    text = ""
    with suppress(OSError, UnicodeDecodeError):  # missing, a directory, or not text: ignored
        text = Path(".env").read_text("utf-8-sig")
    given = {binding.key: binding.value for binding in parse_stream(io.StringIO(text))}
    return given.get(name) or otherwise


url_option = click.option(
    "--url",
    type=_ServiceUrl(),
    envvar="MARKETFLOW_URL",
    default=partial(from_dotenv, "MARKETFLOW_URL", DEFAULT_URL),
    metavar="URL",
    help="The address of the service.",
    show_envvar=True,
    show_default=DEFAULT_URL,
)


@attrs.frozen
class Service:
    """A running service, and the format of its answers."""

    address: Address
    as_json: bool

    def answer(self, request: Request, kind: type[T], words: Callable[[T], str]) -> T:
        """Send a request, and print the answer as text or unchanged.

        Raises:
            ClientError: there is no answer, or it is an error.
        """
        from marketflow.client.answers import read  # noqa: PLC0415
        from marketflow.client.errors import Refused  # noqa: PLC0415

        try:
            body = self._asked(request)
        except Refused as error:
            if self.as_json and error.body:
                click.echo(error.body)
            raise
        answer = read(str(self.address), body, kind)
        click.echo(body if self.as_json else words(answer))
        return answer

    def read(self, request: Request, kind: type[T]) -> T:
        """Send a request, and print nothing.

        Raises:
            ClientError: there is no answer, or it is an error.
        """
        from marketflow.client.answers import read  # noqa: PLC0415

        return read(str(self.address), self._asked(request), kind)

    def _asked(self, request: Request) -> bytes:
        import trio  # noqa: PLC0415

        from marketflow.client.questions import ask  # noqa: PLC0415

        with interruptible():
            return trio.run(ask, self.address, request)


def asking(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command `--url` and `--json`, and the Service that they describe."""

    @url_option
    @click.option("--json", "as_json", is_flag=True, help="Print the unchanged answer, as JSON.")
    @wraps(command)
    def with_service(*, url: Address, as_json: bool, **others: Any) -> None:
        command(Service(url, as_json), **others)

    return with_service


# ---- names that the shell completes ----


def complete_symbols(context: click.Context, _: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Complete with the symbols of the service."""
    from marketflow.client.answers import Symbols  # noqa: PLC0415

    found = _asked_quietly(context, SYMBOLS, Symbols)
    return _beginning(incomplete, [] if found is None else found.symbols)


def complete_exchanges(context: click.Context, _: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Complete with the exchanges of the service."""
    from marketflow.client.answers import Exchanges  # noqa: PLC0415

    found = _asked_quietly(context, EXCHANGES, Exchanges)
    return _beginning(incomplete, [] if found is None else [each.name for each in found.exchanges])


def complete_pair(context: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Complete with symbols and, for the first of two arguments, also with exchanges."""
    found = complete_symbols(context, param, incomplete)
    given = context.params.get(str(param.name)) or ()
    return found if given else found + complete_exchanges(context, param, incomplete)


def _beginning(incomplete: str, names: list[str]) -> list[CompletionItem]:
    return [CompletionItem(name) for name in names if name.startswith(incomplete)]


def _asked_quietly(context: click.Context, request: Request, kind: type[T]) -> T | None:
    """The answer to a request; None if there is none within `COMPLETION_SECONDS`, or an error."""
    import trio  # noqa: PLC0415

    from marketflow.client.answers import read  # noqa: PLC0415
    from marketflow.client.errors import ClientError  # noqa: PLC0415
    from marketflow.client.questions import ask  # noqa: PLC0415

    address = context.params.get("url")
    if not isinstance(address, Address):
        return None

    async def asked() -> T | None:
        with trio.move_on_after(COMPLETION_SECONDS), suppress(ClientError):
            return read(str(address), await ask(address, request), kind)
        return None

    return trio.run(asked)
