"""The codec of JSON lines, which exchanges over TCP send. No I/O."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

import attrs
import msgspec

from marketflow.adapters.exchange.nesting import flattened
from marketflow.domain.prices import MALFORMED, OVERSIZED

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from marketflow.adapters.exchange.checks import Checks
    from marketflow.adapters.exchange.lines import Lines
    from marketflow.app.ports import Decoded
    from marketflow.domain.columns import Side


class _Line(msgspec.Struct, gc=False):
    """A well-formed line; it need not be acceptable."""

    symbol: str
    price: float
    timestamp: int
    volume: Any = msgspec.UNSET
    """Any JSON value: no line is rejected for it."""
    side: Any = None


class _RawLine(msgspec.Struct, gc=False):
    """A line whose volume or side is a number that is out of any range."""

    symbol: str
    price: float
    timestamp: int
    volume: msgspec.Raw = msgspec.Raw()
    side: msgspec.Raw = msgspec.Raw()


_LINES: Final = msgspec.json.Decoder(_Line)
_RAW_LINES: Final = msgspec.json.Decoder(_RawLine)
_BLANK: Final = b" \t\r"

LinesDecoder: TypeAlias = "msgspec.json.Decoder[_Line]"


def _decoder_of(symbols: Iterable[str]) -> LinesDecoder:
    """A decoder that accepts only these symbols. Equal symbols then are the same string object."""
    known = Literal[tuple(sorted(symbols))]  # type: ignore[valid-type]
    line = msgspec.defstruct("_KnownLine", [("symbol", known)], bases=(_Line,), gc=False)
    return msgspec.json.Decoder(line)


def encode_line(symbol: str, price: float, timestamp: int, told: str = "") -> bytes:
    """The line of an update, in the form that exchanges send; `timestamp` in Unix ms.

    `told`: what `encode_told` gives, for an exchange that tells volumes.
    """
    return f'{{"symbol":"{symbol}","price":{price!r},"timestamp":{timestamp}{told}}}\n'.encode()


def encode_told(volume: float, side: Side | None = None) -> str:
    """The part of a line with the volume, and with the taker's side."""
    return f',"volume":{volume!r}' if side is None else f',"volume":{volume!r},"side":"{side}"'


@attrs.frozen
class Decoder:
    """Implements the port `Decode` for lines. The hot path: good lines are decoded all at once."""

    checks: Checks
    _known: LinesDecoder = attrs.field(init=False, eq=False, repr=False)

    @_known.default
    def _decoder_of_symbols(self) -> LinesDecoder:
        return _decoder_of(self.checks.symbols)

    def __call__(self, payload: Lines, /) -> Decoded:
        """Every line of the payload, accepted or rejected with a reason. Raises nothing."""
        quotes, malformed = decode_lines(payload.lines, self._known)
        rejected: dict[str, int] = {}
        if payload.oversized:
            rejected[OVERSIZED] = payload.oversized
        if malformed:
            rejected[MALFORMED] = malformed
        # Most exchanges tell no volumes; then nobody looks for them. A key may be written with escapes.
        told = b'"volume"' in payload.lines or b"\\u" in payload.lines
        return self.checks.decoded(quotes, rejected, payload.received_at, told=told)


def decode_lines(data: bytes, decoder: LinesDecoder = _LINES) -> tuple[Sequence[_Line], int]:
    """The well-formed lines, in order, and the number of malformed ones. Blank lines count as neither.

    `decoder` is tried first; it may accept only some symbols.
    """
    if b"\r" in data:
        data = data.replace(b"\r\n", b"\n")
    count = data.count(b"\n")
    # msgspec treats any white space as a separator, not only newlines. If each line begins and ends with a
    # brace, no object can span two lines: within a value JSON never has a closing brace, white space and an
    # opening brace, and a string never has a newline. So as many objects as lines means one in each line.
    # ASCII only, because msgspec does not check the UTF-8 of fields that it skips.
    if (
        data.startswith(b"{")
        and data.endswith(b"}\n")
        and data.count(b"}\n{") == count - 1
        and data.isascii()
    ):
        for each in (decoder, _LINES):
            try:
                lines = each.decode_lines(data)
            except Exception:  # noqa: BLE001, S112 - the line that it was is found below
                continue
            if len(lines) == count:
                return lines, 0
    return _decode_each(data.split(b"\n"))


def _decode_each(raw_lines: Iterable[bytes]) -> tuple[Sequence[_Line], int]:
    lines: list[_Line] = []
    malformed = 0
    for raw in raw_lines:
        try:
            line = _decode_one(raw)
            if not raw.isascii():
                raw.decode()
        except Exception:  # noqa: BLE001 - any error costs that line only
            # Only here are blank lines checked for, so good lines need no check.
            malformed += bool(raw.strip(_BLANK))
        else:
            lines.append(line)
    return lines, malformed


def _decode_one(raw: bytes) -> _Line:
    try:
        return _LINES.decode(raw)
    except RecursionError:
        return _decode_loosely(flattened(raw))
    except msgspec.DecodeError:
        try:
            return _decode_loosely(raw)
        except RecursionError:
            return _decode_loosely(flattened(raw))


def _decode_loosely(raw: bytes) -> _Line:
    """A line with any values of volume and side."""
    line = _RAW_LINES.decode(raw)
    return _Line(line.symbol, line.price, line.timestamp, _value_of(line.volume), _value_of(line.side))


def _value_of(told: msgspec.Raw) -> object:
    """A value of a line; None if it cannot be decoded."""
    if not bytes(told):
        return msgspec.UNSET
    try:
        return msgspec.json.decode(told)
    except (msgspec.DecodeError, RecursionError):
        return None
