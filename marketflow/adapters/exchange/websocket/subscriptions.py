"""The subscriptions of a connection: which symbols were asked for, and what was answered. No I/O.

```
               ask               accept
     waiting ───────> asked ───────────────> accepted
        ^               │ │ │ reject            ^
        │ refused as    │ │ └──────> rejected   │
        │ a whole       │ │             ^       │
        └───────────────┘ └──────> unanswered ──┘
                           10 s
```
Symbols are asked for in batches. An exchange may refuse a batch because of one symbol. If it names that
symbol, the others are asked for again. If it names none, both halves of the batch are, each by itself, until
the bad symbol is alone. So one bad symbol never costs the others.

A refusal may not say which request it belongs to. It is kept until as many requests are without an answer as
there are such refusals: these were refused then. If that does not come in time, all of them are asked again,
and from then on only one request at a time is without an answer.

An answer that comes late, or for a symbol that waits again, counts as well; only an accepted symbol stays
accepted. Symbols are in the exchange's spelling. Times are in seconds of one clock.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Final, Literal, NamedTuple

from marketflow.adapters.exchange.venues.venue import Rejected, Subscribed

State = Literal["waiting", "asked", "unanswered", "accepted", "rejected"]

PATIENCE: Final = 10.0
"""Seconds after which a request without an answer counts as unanswered. Its trades may come nevertheless."""

_OPEN: Final = ("asked", "unanswered")
_UNDECIDED: Final = ("waiting", "asked")


class Outcome(NamedTuple):
    """What an answer has changed."""

    accepted: Sequence[str] = ()
    rejected: Mapping[str, str] = MappingProxyType({})
    """With the exchange's reasons."""


class _Request(NamedTuple):
    symbols: tuple[str, ...]
    asked_at: float


class Subscriptions:
    """The state of each symbol. Events are the requests that are sent, their answers, and the time."""

    def __init__(self, symbols: Sequence[str], batch: int, *, rejects_all: bool) -> None:
        """What the rules of the venue say: `batch` symbols in a request at most; see `Rules.rejects_all`."""
        self.states: dict[str, State] = dict.fromkeys(symbols, "waiting")
        self._rejects_all = rejects_all
        self._batches = deque(
            tuple(symbols[first : first + batch]) for first in range(0, len(symbols), batch)
        )
        """Symbols to ask for together, in this order."""
        self._requests: dict[int, _Request] = {}
        """By number, those that were sent; the oldest first."""
        self._one_at_a_time = False
        """Whether a request has to wait for the answer to the one before."""
        self._refusals: list[str] = []
        """The reasons of refusals that may belong to any of the requests without an answer."""

    # ---- what follows from it ----

    @property
    def are_decided(self) -> bool:
        """Whether no answer is awaited any more: each symbol was accepted, rejected or left unanswered."""
        return not any(state in _UNDECIDED for state in self.states.values())

    @property
    def has_accepted(self) -> bool:
        """Whether a symbol was accepted."""
        return "accepted" in self.states.values()

    @property
    def decided(self) -> int:
        """The number of symbols with an answer, or without hope for one."""
        return sum([state not in _UNDECIDED for state in self.states.values()])

    @property
    def may_ask(self) -> bool:
        """Whether a request may be sent now."""
        self._forget_answered()
        return bool(self._batches) and not (self._one_at_a_time and self._awaited())

    @property
    def overdue_at(self) -> float:
        """When the next request becomes unanswered; infinity if none is awaited."""
        return min([request.asked_at + PATIENCE for _, request in self._awaited()], default=math.inf)

    # ---- what happens ----

    def ask(self, number: int, now: float) -> tuple[str, ...]:
        """The symbols of the next request, which is sent now; none if nothing may be asked.

        `number`: of the request, greater than those before.
        """
        if not self.may_ask:
            return ()
        symbols = self._batches.popleft()
        self._requests[number] = _Request(symbols, now)
        self._set(symbols, "asked")
        return symbols

    def accept(self, answer: Subscribed) -> Outcome:
        """The exchange has accepted a request."""
        if answer.symbols:
            accepted = [each for each in answer.symbols if self.states.get(each) not in {None, "accepted"}]
        else:
            number = self._oldest() if answer.request is None else answer.request
            accepted = self._of(number, *_OPEN)
        self._set(accepted, "accepted")
        # Only after an answer that tells something new of the request: it could be repeated for ever.
        if accepted and answer.others_refused and answer.request in self._requests:
            self._ask_again(answer.request, self._of(answer.request, *_OPEN))
        return Outcome(accepted, self._reject_what_is_left())

    def reject(self, answer: Rejected) -> Outcome | None:
        """The exchange has refused a request. An accepted symbol stays accepted.

        None: it concerns no request of ours that is without an answer.
        """
        known = [each for each in answer.symbols if each in self.states]
        named = [each for each in known if self.states[each] != "accepted"]
        if named:
            return Outcome(rejected=self._reject_named(named, answer))
        if known:
            return None
        if answer.request is not None:
            rejected = self._reject_whole(answer.request, answer.reason)
            return None if rejected is None else Outcome(rejected=rejected)
        if self._oldest() is None:
            return None
        self._refusals.append(answer.reason)
        return Outcome(rejected=self._reject_what_is_left())

    def give_up(self, now: float) -> Sequence[str]:
        """The symbols that are unanswered from now on. They are returned once."""
        if now < self.overdue_at:
            return ()
        if self._refusals:
            self._refusals.clear()
            self._one_at_a_time = True
            for number, _ in reversed(self._awaited()):
                self._ask_again(number, self._of(number, *_OPEN))
            return ()
        late = [
            symbol
            for number, request in self._awaited()
            if now >= request.asked_at + PATIENCE
            for symbol in self._of(number, "asked")
        ]
        self._set(late, "unanswered")
        return late

    # ---- rejections ----

    def _reject_named(self, named: Sequence[str], answer: Rejected) -> Mapping[str, str]:
        number = answer.request if answer.request in self._requests else self._last_with(named[0])
        self._set(named, "rejected")
        if self._rejects_all and number is not None:
            self._ask_again(number, self._of(number, *_OPEN))
        return dict.fromkeys(named, answer.reason) | self._reject_what_is_left()

    def _reject_what_is_left(self) -> dict[str, str]:
        """If there are as many refusals as requests without an answer."""
        rejected: dict[str, str] = {}
        awaited = self._awaited()
        if len(awaited) <= len(self._refusals):
            for (number, _), reason in zip(reversed(awaited), reversed(self._refusals), strict=False):
                rejected.update(self._reject_whole(number, reason) or {})
            self._refusals.clear()
        return rejected

    def _reject_whole(self, number: int, reason: str) -> Mapping[str, str] | None:
        symbols = self._of(number, *_OPEN)
        if not symbols:
            return None
        if len(symbols) == 1:
            self._set(symbols, "rejected")
            return {symbols[0]: reason}
        middle = len(symbols) // 2
        self._ask_again(number, symbols[:middle], symbols[middle:])
        return {}

    def _ask_again(self, number: int, *batches: Sequence[str]) -> None:
        """In place of a request. Answers that name it come too late now."""
        del self._requests[number]
        for batch in reversed(batches):
            if batch:
                self._set(batch, "waiting")
                self._batches.appendleft(tuple(batch))

    # ---- requests ----

    def _of(self, number: int | None, *states: State) -> list[str]:
        """The symbols of a request that have one of these states."""
        request = None if number is None else self._requests.get(number)
        return [each for each in request.symbols if self.states[each] in states] if request else []

    def _awaited(self) -> list[tuple[int, _Request]]:
        """The requests whose answers are awaited, the oldest first."""
        return [each for each in self._requests.items() if self._of(each[0], "asked")]

    def _oldest(self) -> int | None:
        return next((number for number, _ in self._awaited()), None)

    def _last_with(self, symbol: str) -> int | None:
        found = [number for number, request in self._requests.items() if symbol in request.symbols]
        return found[-1] if found else None

    def _forget_answered(self) -> None:
        """Remove from the batches what was answered meanwhile."""
        while self._batches:
            left = tuple(each for each in self._batches[0] if self.states[each] == "waiting")
            if left:
                self._batches[0] = left
                return
            self._batches.popleft()

    def _set(self, symbols: Iterable[str], state: State) -> None:
        self.states.update(dict.fromkeys(symbols, state))
