"""How long a feed pauses before it connects again."""

from __future__ import annotations

from marketflow.app.ports import Entropy


class Backoff:
    """Full jitter: each pause is a random part of a limit, which doubles from pause to pause.

    All times are in seconds.
    """

    def __init__(self, least: float, most: float, entropy: Entropy) -> None:
        """The limit begins at `least` and doubles up to `most`."""
        self._least = least
        self._most = most
        self._entropy = entropy
        self._limit = least

    def next(self) -> float:
        """The next pause."""
        pause = self._entropy.uniform(0, self._limit)
        self._limit = min(self._limit * 2, self._most)
        return pause

    def reset(self) -> None:
        """Begin with the shortest limit again."""
        self._limit = self._least
