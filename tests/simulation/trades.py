"""Trades with ids in a simulation: what exchanges send of them, and what must become of it.

Nothing here is taken from the product. The model knows ids one by one: the product keeps ranges.
"""

from __future__ import annotations

import random
from collections import defaultdict, deque
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Final, Literal, NamedTuple

import attrs
import trio

# ---- what exchanges send ----

Kind = Literal["contiguous", "numbers", "texts"]
KINDS: Final[tuple[Kind, ...]] = ("contiguous", "numbers", "texts")
"""Ids of a pair: whole numbers without gaps, with gaps, or texts in no order."""
NEWEST: Final = 50
"""So many trades of a pair are sent again at most, when somebody connects or now and then."""
FIRST_ID: Final = 1_000
"""The ids of all pairs begin here: so those of different pairs are equal."""
SKIPPED: Final = 0.02
"""How often some trades are never sent."""
HELD_BACK: Final = 0.05
"""How often a trade is sent later than those after it."""
HELD_SECONDS: Final = (0.2, 8.0)
"""For so long: some come before they count as missing, and some afterwards."""
REPEATED: Final = 0.1
"""How often an earlier trade is sent again."""
WRONG: Final = 0.02
"""How often a trade with an id has something that is not accepted."""
WRONG_IDS: Final = (
    "-1",
    str(2**63),
    '""',
    '"12:3"',
    '"two words"',
    f'"{"9" * 65}"',
    "1.5",
    "null",
    "true",
)
SNAPSHOTS: Final = ("nothing", "last", "newest", "newest", "newest first")
"""What an exchange sends of each pair when somebody connects."""
AGES: Final = (1_000, 20_000, 259_200_000)
"""How old (ms) the trades are that were made before everything began: one is drawn for each exchange."""


class Held(NamedTuple):
    """A trade that is sent later."""

    due: float
    """Seconds of Trio's clock."""
    line: bytes


class Numbering:
    """The ids of one exchange's trades, and what it sends again. It draws from a generator of its own."""

    def __init__(self, kind: Kind, rng: random.Random) -> None:
        self.kind = kind
        self._rng = rng
        self._snapshot = rng.choice(SNAPSHOTS)
        self.age = rng.choice(AGES)
        """Of trades that were made before everything began (ms)."""
        self._next: defaultdict[str, int] = defaultdict(lambda: FIRST_ID)
        self._newest: defaultdict[str, deque[bytes]] = defaultdict(lambda: deque(maxlen=NEWEST))
        self._held: list[Held] = []

    def remember(self, symbol: str, text: str) -> None:
        """A trade of a pair that nobody has received. `text`: its line without id and end."""
        self._newest[symbol].append(self._numbered(symbol, text))

    def lines(self, symbol: str, text: str) -> bytes:
        """What is sent now because of a trade of a pair: none or more lines. `text` as in `remember`."""
        rng, now = self._rng, trio.current_time()
        fate = rng.random()
        if fate < SKIPPED:
            self._next[symbol] += rng.randint(1, 3)
        line = self._numbered(symbol, text)
        if rng.random() < WRONG:
            line = f'{text},"id":{rng.choice(WRONG_IDS)}}}\n'.encode()
        else:
            self._newest[symbol].append(line)
        sent = []
        if SKIPPED < fate < SKIPPED + HELD_BACK:
            self._held.append(Held(now + rng.uniform(*HELD_SECONDS), line))
        else:
            sent.append(line)
        if rng.random() < REPEATED and self._newest:
            newest = self._newest[rng.choice(sorted(self._newest))]
            sent.append(newest[-1] if rng.random() < 0.5 else rng.choice(newest))
        sent += [held.line for held in self._held if held.due <= now]
        self._held = [held for held in self._held if held.due > now]
        return b"".join(sent)

    def snapshot(self) -> bytes:
        """What is sent to who connects."""
        if self._snapshot == "nothing":
            return b""
        found: list[bytes] = []
        for lines in self._newest.values():
            some = list(lines)[-1 if self._snapshot == "last" else -self._rng.randint(1, NEWEST) :]
            found += reversed(some) if self._snapshot == "newest first" else some
        return b"".join(found)

    def _numbered(self, symbol: str, text: str) -> bytes:
        number = self._next[symbol]
        self._next[symbol] += 1 if self.kind == "contiguous" else self._rng.randint(1, 50)
        told = f'"{self._rng.getrandbits(48):012x}"' if self.kind == "texts" else number
        return f'{text},"id":{told}}}\n'.encode()


def spelled(symbol: str) -> str:
    """The exchange's own name of a symbol of ours."""
    return f"{symbol[:-4]}-{symbol[-4:]}"


# ---- what must become of it ----

PATIENCE: Final = 5.0
"""Ids that have not come for so long (seconds) are missing."""


class Trade(NamedTuple):
    """A trade whose message can be read."""

    symbol: str
    timestamp: int
    id: int | str
    reason: str | None
    """Why it is not accepted, if its id is not the reason."""
    place: int
    """Which one of those that were received together."""


def is_id(told: object) -> bool:
    """Whether something can be an id."""
    if isinstance(told, str):
        return 0 < len(told) <= 64 and all("!" <= each <= "~" and each != ":" for each in told)
    return type(told) is int and 0 <= told < 2**63


@attrs.define
class Missing:
    """Ids of a pair that are missing, each for itself."""

    greatest: int | None = None
    open: dict[int, float] = attrs.field(factory=dict)
    """Since when (seconds of Trio's clock) each is expected."""
    lost: int = 0

    def came(self, number: int) -> None:
        """A trade has come. It may be wrong in other ways."""
        if self.greatest is not None:
            self.open.update(dict.fromkeys(range(self.greatest + 1, number), trio.current_time()))
        self.greatest = max(number, number if self.greatest is None else self.greatest)
        self.open.pop(number, None)

    def look(self) -> None:
        """Those that have been expected for too long are missing for good."""
        now = trio.current_time()
        over = [number for number, since in self.open.items() if now - since >= PATIENCE]
        self.lost += len(over)
        for number in over:
            del self.open[number]


class Totals(NamedTuple):
    """The counters of an exchange after something was received."""

    received: int
    duplicates: int
    gaps: int


class Sieve:
    """What must become of the trades that one process receives from one exchange."""

    def __init__(self, kind: Kind, known: Mapping[str, Collection[str]]) -> None:
        """`known`: by symbol, the ids that the process could read at its start."""
        self._kind = kind
        self._came = {symbol: set(ids) for symbol, ids in known.items()}
        self._current: set[str] = set()
        """Symbols of which a trade has come that is not old."""
        self._asked_at: int | None = None
        """When the exchange was first asked, by the clock as it is now (Unix ms)."""
        self._missing: defaultdict[str, Missing] = defaultdict(Missing)
        self._totals = [Totals(0, 0, 0)]

    def accepted(
        self, trades: Sequence[Trade], *, malformed: int, asked_at: int, wall: int
    ) -> Sequence[Trade]:
        """Which of the trades that were received together are accepted, in this order."""
        self._asked_at = min(asked_at if self._asked_at is None else self._asked_at, wall)
        trades = in_order(trades)
        accepted = [trade for trade in trades if trade.reason is None and self._is_new(trade)]
        if self._kind == "contiguous":
            self._look_for_missing(trades)
        good = sum(trade.reason is None for trade in trades)
        before = self._totals[-1]
        self._totals.append(
            Totals(
                before.received + len(trades) + malformed,
                before.duplicates + good - len(accepted),
                sum(missing.lost for missing in self._missing.values()),
            )
        )
        return accepted

    def totals(self, received: int) -> Iterator[Totals]:
        """What the counters may be once so much was received."""
        return (each for each in self._totals if each.received == received)

    def _is_new(self, trade: Trade) -> bool:
        """Whether it has not come before, and is not old. It has come from now on."""
        came = self._came.setdefault(trade.symbol, set())
        if str(trade.id) in came:
            return False
        came.add(str(trade.id))
        assert self._asked_at is not None
        if trade.timestamp >= self._asked_at:
            self._current.add(trade.symbol)
        return trade.symbol in self._current

    def _look_for_missing(self, trades: Sequence[Trade]) -> None:
        # The first id is that of a trade that is good but for its id, where there is one.
        for trade in sorted(trades, key=lambda each: each.reason is not None):
            if isinstance(trade.id, int) and trade.reason != "symbol":
                self._missing[trade.symbol].came(trade.id)
        for symbol in {trade.symbol: None for trade in trades}:
            self._missing[symbol].look()


def in_order(trades: Sequence[Trade]) -> Sequence[Trade]:
    """Trades that were received together: by their times, and if all ids are numbers also by these."""
    if all(isinstance(trade.id, int) for trade in trades):
        return sorted(trades, key=lambda trade: (trade.timestamp, trade.id))
    return sorted(trades, key=lambda trade: trade.timestamp)
