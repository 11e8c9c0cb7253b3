"""The wire: what exchanges send, to and from bytes. No I/O."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

import attrs
import msgspec

from marketflow.adapters.exchange.nesting import flattened
from marketflow.app.ports import Batch, Chunk, Updates
from marketflow.domain.bars import by_second
from marketflow.domain.prices import MALFORMED, OVERSIZED, SYMBOL, Acceptance

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


class _Line(msgspec.Struct, gc=False):
    """A well-formed line; it need not be acceptable."""

    symbol: str
    price: float
    timestamp: int


_LINES: Final = msgspec.json.Decoder(_Line)
_BLANK: Final = b" \t\r"

LinesDecoder: TypeAlias = "msgspec.json.Decoder[_Line]"


def _decoder_of(symbols: Iterable[str]) -> LinesDecoder:
    """Decodes lines of these symbols only; their texts are then the same objects each time."""
    known = Literal[tuple(sorted(symbols))]  # type: ignore[valid-type]
    line = msgspec.defstruct("_KnownLine", [("symbol", known)], bases=(_Line,), gc=False)
    return msgspec.json.Decoder(line)


def encode_line(symbol: str, price: float, timestamp: int) -> bytes:
    """The line of an update as exchanges send it; `timestamp` in Unix ms."""
    return f'{{"symbol":"{symbol}","price":{price!r},"timestamp":{timestamp}}}\n'.encode()


@attrs.frozen
class Decoder:
    """Fills the port `Decode`: decodes, checks, groups and summarises the lines of a chunk.

    The hot path: everything that can be is done for the whole chunk, or for a whole symbol, at once.
    """

    symbols: frozenset[str]
    interval: int
    """Of the aggregates, ms."""
    lateness: int
    """How long after the end of its interval an update still counts, ms."""
    _known: LinesDecoder = attrs.field(init=False, eq=False, repr=False)

    @_known.default
    def _decoder_of_symbols(self) -> LinesDecoder:
        return _decoder_of(self.symbols)

    def __call__(self, chunk: Chunk) -> Batch:
        """Every line of the chunk, accepted or rejected with a reason. Raises nothing."""
        lines, malformed = decode_lines(chunk.lines, self._known)
        acceptance = Acceptance.at(
            chunk.received_at, symbols=self.symbols, interval=self.interval, lateness=self.lateness
        )
        rejected: defaultdict[str, int] = defaultdict(int)
        if chunk.oversized:
            rejected[OVERSIZED] = chunk.oversized
        if malformed:
            rejected[MALFORMED] = malformed
        return Batch(
            exchange=chunk.exchange,
            number=chunk.number,
            received=chunk.oversized + malformed + len(lines),
            updates=_accept(lines, acceptance, rejected),
            rejected=dict(rejected),
            received_at=chunk.received_at,
            received_monotonic=chunk.received_monotonic,
        )


def decode_lines(data: bytes, decoder: LinesDecoder = _LINES) -> tuple[Sequence[_Line], int]:
    """The well-formed ones of whole lines, in order, and how many are malformed. Blank ones are neither.

    `decoder` is tried first; it may be one that knows less.
    """
    if b"\r" in data:
        data = data.replace(b"\r\n", b"\n")
    count = data.count(b"\n")
    # msgspec takes white space for what separates objects, not newlines. Where each line starts with a
    # brace and ends with one, no object can go over two lines (no JSON has a closing brace, white space and
    # an opening one within a value, nor a newline within a string), so that as many objects as lines means
    # one in each. ASCII only, because msgspec does not check the UTF-8 of fields that it skips.
    if (
        data.startswith(b"{")
        and data.endswith(b"}\n")
        and data.count(b"}\n{") == count - 1
        and data.isascii()
    ):
        for each in (decoder, _LINES):
            try:
                lines = each.decode_lines(data)
            except Exception:  # noqa: BLE001, S112 - whichever line it was, it is found below
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
        except Exception:  # noqa: BLE001 - whatever a line raises costs that line only
            # What is blank is malformed as well, so that good lines need not be looked at for this.
            malformed += bool(raw.strip(_BLANK))
        else:
            lines.append(line)
    return lines, malformed


def _decode_one(raw: bytes) -> _Line:
    try:
        return _LINES.decode(raw)
    except RecursionError:
        return _LINES.decode(flattened(raw))


def _accept(
    lines: Sequence[_Line], acceptance: Acceptance, rejected: defaultdict[str, int]
) -> Sequence[Updates]:
    """The acceptable ones by symbol; the others are counted in `rejected`."""
    by_symbol: defaultdict[str, list[_Line]] = defaultdict(list)
    for line in lines:
        by_symbol[line.symbol].append(line)
    timestamps = [line.timestamp for line in lines]
    # Most often they do, and then so do those of each symbol.
    ascending = timestamps == sorted(timestamps)
    accepted: list[Updates] = []
    for symbol, group in by_symbol.items():
        if symbol not in acceptance.symbols:
            rejected[SYMBOL] += len(group)
            continue
        updates = _updates(symbol, group, ascending=ascending)
        # Most often all are good, and the bars say so.
        for bar in updates.bars.values():
            if not acceptance.takes(bar):
                break
        else:
            accepted.append(updates)
            continue
        if good := _filter(group, acceptance, rejected):
            accepted.append(_updates(symbol, good, ascending=ascending))
    return accepted


def _updates(symbol: str, lines: Sequence[_Line], *, ascending: bool) -> Updates:
    timestamps = [line.timestamp for line in lines]
    prices = [line.price for line in lines]
    return Updates(symbol, timestamps, prices, by_second(timestamps, prices, ascending=ascending))


def _filter(
    lines: Iterable[_Line], acceptance: Acceptance, rejected: defaultdict[str, int]
) -> Sequence[_Line]:
    good: list[_Line] = []
    for line in lines:
        reason = acceptance.reason_against(line.symbol, line.price, line.timestamp)
        if reason is None:
            good.append(line)
        else:
            rejected[reason] += 1
    return good
