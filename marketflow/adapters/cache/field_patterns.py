"""Patterns for the fields of a hash of bars that are of a few minutes: Redis can look for them."""

from __future__ import annotations

from typing import Final

from marketflow.domain.periods import SECOND, Span

_HUNDRED: Final = 100 * SECOND


def patterns_of(span: Span) -> list[bytes]:
    """Patterns that match all fields of the span (ms), and few others: one or two for some minutes.

    A pattern cannot name a range. So it leaves the last two digits open, and names those before.
    """
    hundreds = range(span.start // _HUNDRED, -(-span.end // _HUNDRED))
    thousands: dict[int, bytes] = {}
    for hundred in hundreds:
        first, digit = divmod(hundred, 10)
        thousands[first] = thousands.get(first, b"") + b"%d" % digit
    return [b"%d[%b]??:*" % (first, digits) if first else b"*" for first, digits in thousands.items()]
