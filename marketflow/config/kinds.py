"""The kinds of values of settings: how each is parsed, strictly, and how it is shown.

A kind reads a value that a TOML or JSON parser returned, or an untyped `Text`.
"""

from __future__ import annotations

import ipaddress
import math
import re
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import attrs

from marketflow.config import postgres_options
from marketflow.config.redis_url import EXAMPLE, expected_of
from marketflow.config.secrets import MASK, mask_connection, mask_value
from marketflow.domain.periods import DAY, HOUR, MINUTE, SECOND

# From the largest to the smallest: a value is shown in the first that divides it.
_DURATIONS: Final = {"d": DAY, "h": HOUR, "m": MINUTE, "s": SECOND, "ms": 1}
_SIZES: Final = {"GiB": 1024**3, "MiB": 1024**2, "KiB": 1024, "B": 1}

# ASCII digits only, and so few that the conversion is never slow.
_INTEGER: Final = re.compile(r"-?[0-9]{1,18}")
_NUMBER: Final = re.compile(r"-?[0-9]{1,12}(?:\.[0-9]{1,12})?")
_DURATION: Final = re.compile(rf"({_NUMBER.pattern}) ?({'|'.join(_DURATIONS)})")
_SIZE: Final = re.compile(rf"([0-9]{{1,15}}) ?({'|'.join(_SIZES)})")
_HOST: Final = re.compile(r"[^\s/@?#\[\]\x00-\x20]{1,253}")

LAST_PORT: Final = 65_535

_LONGEST_SHOWN: Final = 60
_LARGEST_SHOWN: Final = 10**30


class Text(str):
    """An untyped value from the environment, `.env` or a flag; the kind of its key parses it."""

    __slots__ = ()


class UnexpectedError(ValueError):
    """A value is not of its key's kind."""

    def __init__(self, expected: str, value: object) -> None:
        super().__init__(f"expected {expected}, got {_shown(value)}")
        self.expected = expected
        """What was expected. It contains no part of the value."""


@attrs.frozen
class Kind:
    """A kind of setting: how a value is read, and how it is shown."""

    read: Callable[[object], Any]
    """Raises UnexpectedError."""
    takes: str
    """A description of the allowed values, for people."""
    show: Callable[[Any], str] = str
    """Formats a value that `read` returned, for people; masks secrets."""
    secret: bool = False
    """Whether not even a wrong value may be shown."""
    none: Sequence[str] = ()
    """The texts for None, if None is allowed; the last is preferred."""


def _shown(value: object) -> str:
    match value:
        case bool():
            return str(value).lower()
        case str():
            text = mask_value(value)
            return repr(text if len(text) <= _LONGEST_SHOWN else text[:_LONGEST_SHOWN] + "...")
        case dict() | list():
            return "a table" if isinstance(value, dict) else "a list"
        case int() if abs(value) > _LARGEST_SHOWN:
            # Python refuses to format a number with thousands of digits.
            return "a huge number"
        case _:
            return "null" if value is None else str(value)


def optional(kind: Kind, *, none: Sequence[str] = ("",)) -> Kind:
    """The kind, or None, which is written as one of the texts."""
    return attrs.evolve(
        kind,
        read=lambda value: None if isinstance(value, str) and value in none else kind.read(value),
        show=lambda value: "none" if value is None else kind.show(value),
        none=none,
    )


def boolean() -> Kind:
    """True or false."""
    texts = {"true": True, "false": False}

    def read(value: object) -> bool:
        if isinstance(value, Text):
            value = texts.get(value.lower(), value)
        if not isinstance(value, bool):
            raise UnexpectedError("true or false", value)
        return value

    return Kind(read, "true or false", show=_shown)


def integer(low: int, high: int) -> Kind:
    """An integer within [low, high]."""
    wanted = f"an integer from {low} to {high}"

    def read(value: object) -> int:
        if isinstance(value, Text) and _INTEGER.fullmatch(value):
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int):
            raise UnexpectedError("an integer", value)
        if not low <= value <= high:
            raise UnexpectedError(wanted, value)
        return value

    return Kind(read, wanted)


def number(low: float, high: float) -> Kind:
    """A number within [low, high], held as a float."""
    wanted = f"a number from {low:g} to {high:g}"

    def read(value: object) -> float:
        if isinstance(value, Text) and _NUMBER.fullmatch(value):
            value = float(value)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise UnexpectedError("a number", value)
        if not low <= value <= high:
            raise UnexpectedError(wanted, value)
        return float(value)

    return Kind(read, wanted, show=lambda value: f"{value:.15g}")


def duration(low: int, high: int, *, whole: int = 1, divides: int | None = None) -> Kind:
    """Whole ms within [low, high], a multiple of `whole`; written as seconds or as text like `50ms`."""
    wanted = f"a duration from {show_duration(low)} to {show_duration(high)}"
    if whole > 1:
        wanted += f" in whole multiples of {show_duration(whole)}"
    if divides is not None:
        wanted += f" that divides {show_duration(divides)}"

    def read(value: object) -> int:
        ms = _duration(value)
        if ms is None:
            raise UnexpectedError('a duration (seconds, or text like "60s" or "50ms")', value)
        if ms.denominator > 1:
            raise UnexpectedError("a duration in whole milliseconds", value)
        exact = int(ms)
        if not low <= exact <= high or exact % whole or (divides is not None and divides % exact):
            raise UnexpectedError(wanted, value)
        return exact

    return Kind(read, wanted, show=show_duration)


def _duration(value: object) -> Fraction | None:
    match value:
        case bool():
            return None
        case int():
            return Fraction(value) * SECOND
        case float() if math.isfinite(value):
            # The decimal number as written, not its nearest binary fraction: 0.05 is 50 ms.
            return Fraction(repr(value)) * SECOND
        case Text() if _NUMBER.fullmatch(value):
            return Fraction(value) * SECOND
        case str() if match := _DURATION.fullmatch(value):
            return Fraction(match[1]) * _DURATIONS[match[2]]
        case _:
            return None


def show_duration(ms: int) -> str:
    """Format a duration so that `duration` can read it: `50ms`, `60s`, `7d`."""
    # Up to two minutes are written in seconds, as people do.
    units = {"s": SECOND, "ms": 1} if ms <= 2 * MINUTE else _DURATIONS
    return next(f"{ms // size}{unit}" for unit, size in units.items() if ms % size == 0)


def size(low: int, high: int) -> Kind:
    """Whole bytes within [low, high]; written as a number or as text like `64 MiB`."""
    wanted = f"a size from {show_size(low)} to {show_size(high)}"

    def read(value: object) -> int:
        if isinstance(value, Text) and _INTEGER.fullmatch(value):
            value = int(value)
        exact = value
        if isinstance(value, str) and (match := _SIZE.fullmatch(value)):
            exact = int(match[1]) * _SIZES[match[2]]
        if isinstance(exact, bool) or not isinstance(exact, int):
            raise UnexpectedError('a size (bytes, or text like "64 MiB")', value)
        if not low <= exact <= high:
            raise UnexpectedError(wanted, value)
        return exact

    return Kind(read, wanted, show=show_size)


def show_size(size_bytes: int) -> str:
    """Format a size so that `size` can read it: `64 MiB`."""
    return next(f"{size_bytes // size} {unit}" for unit, size in _SIZES.items() if size_bytes % size == 0)


def text(expected: str = "text", matches: Callable[[str], object] = len) -> Kind:
    """Text that `matches` accepts, without NUL and valid as UTF-8, so that every library accepts it."""

    def read(value: object) -> str:
        if not isinstance(value, str) or "\0" in value or not _encodable(value) or not matches(value):
            raise UnexpectedError(expected, value)
        return str(value)

    return Kind(read, expected)


def _encodable(value: str) -> bool:
    # Python decodes an environment that is not UTF-8 to lone surrogates.
    return not any("\ud800" <= character <= "\udfff" for character in value)


def pattern(expected: str, regex: str) -> Kind:
    """Text that matches the pattern as a whole."""
    return text(f"{expected} {regex}", re.compile(regex).fullmatch)


def choice(*allowed: str, also: Sequence[str] = ()) -> Kind:
    """One of the texts. `also`: others that people may choose; then the table is another one."""
    return text(" or ".join((*also, *allowed)), allowed.__contains__)


def mapping(key: Kind, value: Kind) -> Kind:
    """A table of keys and values that are of these kinds."""
    wanted = f"a table of {key.takes} = {value.takes}"

    def read(table: object) -> dict[Any, Any]:
        if not isinstance(table, dict):
            raise UnexpectedError(wanted, table)
        return {key.read(name): value.read(each) for name, each in table.items()}

    return Kind(read, wanted, show=lambda table: ", ".join(f"{name} = {table[name]}" for name in table))


_AUTHORITY: Final = r"[^\s/@?#]+"


def url(*schemes: str) -> Kind:
    """A URL of one of the schemes, without a user and a password."""
    form = re.compile(rf"(?:{'|'.join(schemes)})://{_AUTHORITY}(?:[/?][!-\"$-~]*)?")
    return text(
        f"a URL like {schemes[0]}://host/path", lambda value: form.fullmatch(value) and _has_host(value)
    )


def origin() -> Kind:
    """The origin of pages, as browsers send it, or `*`."""
    form = re.compile(rf"https?://{_AUTHORITY}")
    kind = text(
        "an origin like https://example.com, or *",
        lambda value: value == "*" or (form.fullmatch(value) and _has_host(value)),
    )
    return attrs.evolve(kind, read=lambda value: kind.read(value).lower())


def proxy() -> Kind:
    """The URL of an HTTP proxy. It may have a user and a password, and is never shown with them."""
    form = re.compile(rf"http://(?:[^\s/@?#]*@)?{_AUTHORITY}:[0-9]+/?")
    kind = text(
        "the URL of an HTTP proxy like http://host:port",
        lambda value: form.fullmatch(value) and _has_host(value),
    )
    return secret(kind, lambda address: _USER.sub(f"//{MASK}@", address))


_USER: Final = re.compile("//[^/]*@")
"""Many proxies take a token for a user."""


def _has_host(address: str) -> bool:
    """Whether a URL names a host, and no port that cannot be."""
    try:
        parts = urlsplit(address)
        return bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


def host(*, socket_directory: bool = False) -> Kind:
    """The name or address of a host, or the directory of its Unix socket.

    An IPv6 address may be in brackets, as in URLs; the value has none.
    """
    kind = text(
        "a host name or address",
        lambda value: (
            _HOST.fullmatch(_without_brackets(value)) or (socket_directory and value.startswith("/"))
        ),
    )
    return attrs.evolve(kind, read=lambda value: _without_brackets(kind.read(value)))


def address() -> Kind:
    """A host and a port, as `host:port`; an IPv6 address is in brackets."""
    return text("an address like host:6379", lambda value: _ADDRESS.fullmatch(value) and _is_address(value))


_ADDRESS: Final = re.compile(r"(\[[0-9a-fA-F:.]+\]|[^\s/@?#:\[\]]+):[0-9]{1,5}")


def _is_address(value: str) -> bool:
    host, _, port = value.rpartition(":")
    return 1 <= int(port) <= LAST_PORT and _HOST.fullmatch(_without_brackets(host)) is not None


def host_name() -> Kind:
    """The name or address of a host, without a port."""
    kind = text("a host name or address without a port", _is_host_name)
    return attrs.evolve(kind, read=lambda value: _without_brackets(kind.read(value)))


def _is_host_name(value: str) -> bool:
    bare = _without_brackets(value)
    named = _HOST.fullmatch(bare) is not None and "*" not in bare
    return named and (":" not in bare or _is_ipv6(bare))


def _without_brackets(value: str) -> str:
    """An IPv6 address without the brackets around it; anything else as it is."""
    bare = value[1:-1]
    return bare if value.startswith("[") and value.endswith("]") and _is_ipv6(bare) else value


def _is_ipv6(value: str) -> bool:
    try:
        ipaddress.IPv6Address(value)
    except ValueError:
        return False
    return True


def secret(kind: Kind, show: Callable[[Any], str] = lambda _: MASK) -> Kind:
    """The same kind, but its values are never shown."""
    return attrs.evolve(kind, show=show, secret=True)


def token() -> Kind:
    """A token that is valid in an `Authorization: Bearer` header."""
    return secret(text("visible ASCII characters without blanks", re.compile(r"[!-~]+").fullmatch))


def redis_url() -> Kind:
    """The URL of a Redis."""
    kind = text(EXAMPLE)

    def read(value: object) -> str:
        url: str = kind.read(value)
        if (expected := expected_of(url)) is not None:
            raise UnexpectedError(expected, value)
        return url

    return secret(attrs.evolve(kind, read=read), mask_connection)


def postgres_dsn() -> Kind:
    """A connection string of PostgreSQL, in either of libpq's forms."""
    expected = "a connection string like postgresql://user@127.0.0.1:5432/database"
    kind = text(expected)

    def read(value: object) -> str:
        dsn = kind.read(value)
        try:
            problem = next(postgres_options.problems(dsn), None)
        except ValueError:
            raise UnexpectedError(expected, value) from None
        if problem is not None:
            raise UnexpectedError(f"a connection string {problem}", value)
        return str(dsn)

    return secret(attrs.evolve(kind, read=read), mask_connection)


def directory() -> Kind:
    """A directory, which need not exist yet."""
    # A remaining tilde means that the user's home is unknown.
    kind = text("a directory", lambda value: value and not value.startswith("~"))
    return attrs.evolve(kind, read=lambda value: Path(kind.read(value)))
