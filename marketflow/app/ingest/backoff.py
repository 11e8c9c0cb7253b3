"""How long a feed pauses before it connects again."""

from __future__ import annotations

from marketflow.app.ports import Entropy


class Backoff:
    """Full jitter: each pause is random, between a floor and a limit that doubles from pause to pause.

    All times are in seconds.
    """

    def __init__(self, least: float, most: float, entropy: Entropy, *, floor: float = 0.0) -> None:
        """The limit begins at `least` above the floor and doubles up to `most`."""
        self._least = least
        self._most = most
        self._entropy = entropy
        self._floor = floor
        self._limit = least

    def next(self) -> float:
        """The next pause."""
        pause = min(self._floor + self._entropy.uniform(0, self._limit), max(self._most, self._floor))
        self._limit = min(self._limit * 2, self._most)
        return pause

    def reset(self) -> None:
        """Begin with the shortest limit again."""
        self._limit = self._least
