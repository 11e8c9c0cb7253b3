"""Volumes in a simulation: what exchanges tell, and what must become of it.

Nothing here is taken from the product. Sums are exact (`math.fsum`), and are compared within 1e-9.
"""

from __future__ import annotations

import math
import random
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any, Final, NamedTuple, Protocol

MOST: Final = 1e18
MOST_QUOTE: Final = 1e280
TOLERANCE: Final = 1e-9

# ---- what exchanges tell ----

GOOD: Final = ("0", "0.5", "1.25", "3", "7e-9", "-0.0", "0.1", "250.75")
"""Texts of volumes that count. Few different ones: equal ones are the hard case."""
HUGE: Final = ("1000000000000000000", "1e18", "999999999999999999.9")
"""They count too. They are seldom told, since beside them no other volume can be seen in a sum."""
HUGE_SHARE: Final = 0.01
BAD: Final = (
    "null",
    '"1.5"',
    '"NaN"',
    "true",
    "[1.5]",
    '{"base":1.5}',
    "-1",
    "-1e-9",
    "1000000000000000001000",
    "1.1e18",
    "1e999",
    "9" * 400,
)
"""Texts of volumes that do not count. The lines are as good as others."""
SIDES: Final = ('"buy"', '"sell"', '"buy"', '"sell"', "null", '"BUY"', '""', "1", "[]")
KEYS: Final = ('"volume"', '"volume"', '"volume"', '"\\u0076olume"')
"""A key may be written with escapes."""
MANNERS: Final = ("nothing", "volumes", "volumes and sides", "anything", "anything", "only bad ones")
"""What an exchange tells of a symbol."""


class Telling:
    """What one exchange tells besides prices. It draws from a generator of its own."""

    def __init__(self, symbols: Sequence[str], rng: random.Random) -> None:
        self._rng = rng
        self._manners = {symbol: rng.choice(MANNERS) for symbol in symbols}

    def told(self, symbol: str) -> str:
        """The part of the next line of a symbol that is about its volume, from the comma on."""
        rng, manner = self._rng, self._manners[symbol]
        if manner == "nothing":
            return ""
        huge = rng.random() < HUGE_SHARE
        good = rng.choice(HUGE if huge else (*GOOD, repr(rng.lognormvariate(0.0, 3.0))))
        if manner == "volumes":
            return f',"volume":{good}'
        if manner == "volumes and sides":
            return f',"side":"{rng.choice(("buy", "sell"))}","volume":{good}'
        volume = good if manner == "anything" and rng.random() < 0.6 else rng.choice(BAD)
        fields = [f"{rng.choice(KEYS)}:{volume}"] if rng.random() < 0.8 else []
        fields += [f'"side":{rng.choice(SIDES)}'] if rng.random() < 0.7 else []
        rng.shuffle(fields)
        return "".join(f",{field}" for field in fields)


# ---- what must become of it ----


class Told(NamedTuple):
    """What a line tells, as far as it counts."""

    volume: float | None = None
    side: str | None = None
    ignored: bool = False
    """Whether it tells a volume that does not count."""


def told_by(fields: dict[str, Any], price: float) -> Told:
    """What the fields of an acceptable line tell."""
    if "volume" not in fields:
        return Told()
    volume, side = fields["volume"], fields.get("side")
    if type(volume) not in (int, float) or not 0 <= volume <= MOST or price * float(volume) > MOST_QUOTE:
        return Told(ignored=True)
    return Told(float(volume), side if side in ("buy", "sell") else None)


def no_number(text: str) -> Any:
    """For `json.loads`: NaN and the infinities are not in JSON.

    Raises:
        ValueError
    """
    raise ValueError(text)


class Trading(Protocol):
    """An update, as far as volumes are concerned."""

    @property
    def price(self) -> float:
        """See Update."""

    @property
    def told(self) -> Told:
        """See Update."""


class Volumes(NamedTuple):
    """What some updates have traded."""

    updates: int
    """How many of them told it."""
    volume: float | None
    quote: float | None
    buy: float | None
    sell: float | None


def volumes_of(updates: Iterable[Trading]) -> Volumes:
    """Exact sums; None where no update has a value. If any has a side, `buy` and `sell` are both sums."""
    sums: defaultdict[str, list[float]] = defaultdict(list)
    for update in updates:
        volume, side, _ = update.told
        if volume is not None:
            sums["volume"].append(volume)
            sums["quote"].append(volume * update.price)
            sums[side or "neither"].append(volume)
    told, sided = "volume" in sums, "buy" in sums or "sell" in sums
    return Volumes(
        len(sums["volume"]),
        math.fsum(sums["volume"]) if told else None,
        math.fsum(sums["quote"]) if told else None,
        math.fsum(sums["buy"]) if sided else None,
        math.fsum(sums["sell"]) if sided else None,
    )


def found_in(traded: Any) -> Volumes:
    """What a bar of the product says."""
    if traded is None:
        return Volumes(0, None, None, None, None)
    return Volumes(traded.updates, traded.volume, traded.quote, traded.buy, traded.sell)


def found_answer(answer: Any) -> Volumes:
    """What an answer of the product says."""
    return Volumes(
        answer.volume_updates, answer.volume, answer.quote_volume, answer.buy_volume, answer.sell_volume
    )


def same_volumes(found: Volumes, right: Volumes) -> bool:
    """Whether these are the same, but for rounding."""
    return found.updates == right.updates and all(map(_close, found[1:], right[1:]))


def within_volumes(found: Volumes, most: Volumes) -> bool:
    """Whether some of the updates that have traded `most` can have traded this."""
    return found.updates <= most.updates and all(
        each is None or (bound is not None and 0 <= each <= bound * (1 + TOLERANCE))
        for each, bound in zip(found[1:], most[1:], strict=True)
    )


def right_vwap(answer: Any, lowest: float, highest: float) -> bool:
    """Whether an answer's weighted price fits its volumes, and lies within the prices."""
    if not answer.volume:
        return answer.vwap is None
    if answer.vwap is None or not lowest <= answer.vwap <= highest:
        return False
    clamped = min(max(answer.quote_volume / answer.volume, lowest), highest)
    return _close(answer.vwap, clamped)


def _close(one: float | None, other: float | None) -> bool:
    if one is None or other is None:
        return one is other
    return math.isclose(one, other, rel_tol=TOLERANCE)
