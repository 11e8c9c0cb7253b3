"""Lines that are nested deeper than the decoder goes. No I/O.

An unknown field may hold anything, so a line is good however deep it is nested in one. The decoder is
recursive, and gives up at a depth that differs between Pythons: at about 1,000 levels in 3.11 and 3.12, far
later in newer ones. What one Python accepts the others must accept too. So such a line is decoded in parts.
"""

from __future__ import annotations

import re
from typing import Final

import msgspec

LEVELS: Final = 200
"""How many levels are decoded at a time: fewer than any Python's limit, even deep in a stack of calls."""

# A string without an end is one up to the end, so that each byte is looked at once.
_TOKENS: Final = re.compile(rb'"(?:[^"\\]++|\\.)*+"?|[\[\]{}]', re.DOTALL)


class _Anything(msgspec.Struct):
    """Has no fields, so that the decoder checks every value, and keeps none."""


_ANYTHING: Final = msgspec.json.Decoder(_Anything)


def flattened(line: bytes) -> bytes:
    """The line with every value deeper than `LEVELS` replaced by null; each of those is checked before.

    Raises:
        msgspec.MsgspecError, UnicodeDecodeError: one of them is no JSON.
        ValueError: there is a closing bracket too many.
    """
    depth, copied = 0, 0
    parts: list[list[bytes]] = [[]]
    """What there is so far of the line, and of each value in it that is to be replaced and has no end yet."""
    for token in _TOKENS.finditer(line):
        match token[0]:
            case b"[" | b"{":
                if depth and depth % LEVELS == 0:
                    parts[-1].append(line[copied : token.start()])
                    parts.append([])
                    copied = token.start()
                depth += 1
            case b"]" | b"}":
                depth -= 1
                if depth < 0:
                    raise ValueError("a closing bracket too many")
                if depth and depth % LEVELS == 0:
                    value = b"".join((*parts.pop(), line[copied : token.end()]))
                    _ANYTHING.decode(b'{"":%b}' % value)
                    parts[-1].append(b"null")
                    copied = token.end()
    return b"".join((*(piece for part in parts for piece in part), line[copied:]))
