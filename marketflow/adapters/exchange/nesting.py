"""Decodes lines that are nested more deeply than the decoder allows. No I/O.

An unknown field may contain any value, of any depth. The decoder is recursive and has a depth limit that
depends on the version of Python: about 1,000 levels in 3.11 and 3.12, far more in newer ones. A line must be
valid with all versions or with none. So such a line is decoded in parts.
"""

from __future__ import annotations

import re
from typing import Final

import msgspec

LEVELS: Final = 200
"""The levels that are decoded at a time: fewer than the limit of any Python, even in a deep call stack."""

# A string without an end matches up to the end of the text, so that each byte is scanned only once.
_TOKENS: Final = re.compile(rb'"(?:[^"\\]++|\\.)*+"?|[\[\]{}]', re.DOTALL)


class _Anything(msgspec.Struct):
    """Has no fields, so that the decoder checks every value but stores none."""


_ANYTHING: Final = msgspec.json.Decoder(_Anything)


def flattened(line: bytes) -> bytes:
    """The line, with every value deeper than `LEVELS` checked and then replaced by null.

    Raises:
        msgspec.MsgspecError, UnicodeDecodeError: one of these values is not valid JSON.
        ValueError: there is a closing bracket too many.
    """
    depth, copied = 0, 0
    parts: list[list[bytes]] = [[]]
    """The line so far and, nested in it, each value so far that will be replaced."""
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
