"""The names of the keys in Redis.

| on a single machine | in a cluster |
|---|---|
| `prices:exchange1:BTCUSDT` | `prices:{exchange1}:BTCUSDT` |
| `bars:exchange1:BTCUSDT` | `bars:{exchange1}:BTCUSDT` |
| | `fence:{exchange1}`, `marker:{exchange1}`, `changes:{exchange1}` |

What is in braces is a hash tag: Redis Cluster looks at nothing else to find the slot of a key. So all keys of
an exchange are in one slot and on one server, which one transaction can write. An exchange's name has no
braces itself.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache
from typing import Final

from marketflow.domain.prices import Pair

KEYS_KEPT: Final = 65_536
"""So many keys are kept as they are sent. A few are written again and again, one or two for each pair."""
_SYMBOL: Final = "([A-Z0-9]{2,20})"
_EXCHANGE: Final = "([A-Za-z0-9_-]{1,32})"


class Keys:
    """The keys of exchanges and symbols, with a hash tag or without. Names are made once, and kept."""

    def __init__(self, *, tagged: bool) -> None:
        opening, closing = ("{", "}") if tagged else ("", "")

        def named(kind: str) -> Callable[[Pair], bytes]:
            @lru_cache(KEYS_KEPT)
            def name(pair: Pair) -> bytes:
                exchange, symbol = pair
                return f"{kind}:{opening}{exchange}{closing}:{symbol}".encode()

            return name

        self.window: Final = named("prices")
        """The sorted set of updates of an exchange and symbol."""
        self.bars: Final = named("bars")
        """The hash of its one-second bars."""
        whole = f"bars:{re.escape(opening)}{_EXCHANGE}{re.escape(closing)}:{_SYMBOL}"
        self._bars: Final = re.compile(whole.encode())

    def pair_of_bars(self, key: bytes) -> Pair | None:
        """The exchange and symbol of a hash of bars with this name; None for any other name."""
        match = self._bars.fullmatch(key)
        return (match[1].decode(), match[2].decode()) if match else None


PLAIN: Final = Keys(tagged=False)
"""Those of a single machine."""
TAGGED: Final = Keys(tagged=True)
"""Those of a cluster."""


def fence_key(exchange: str) -> bytes:
    """Has the term that may write. It never expires."""
    return _of_exchange("fence", exchange)


def marker_key(exchange: str) -> bytes:
    """Has the term and the number of the last write."""
    return _of_exchange("marker", exchange)


def changes_key(exchange: str) -> bytes:
    """The stream of changed bars."""
    return _of_exchange("changes", exchange)


def _of_exchange(kind: str, exchange: str) -> bytes:
    return f"{kind}:{{{exchange}}}".encode()
