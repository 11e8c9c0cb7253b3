"""Collects the counters of all parts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

import attrs

from marketflow.app.figures import Figures
from marketflow.app.interface import HealthQuestions, Measurements


class MeasuredHealth(HealthQuestions, Protocol):
    """What measurements need of health."""

    def feed_bugs(self) -> Mapping[str, int]:
        """By exchange, how many bugs of its source or codec were noticed."""
        ...


@attrs.frozen
class Measuring:
    """Reads the parts' counters, at once and without any calls."""

    _health: MeasuredHealth
    _share: Figures
    _stream_clients: Callable[[], int]
    """Returns the current number of clients of the live stream."""

    def measurements(self) -> Measurements:
        """All counters, read without an await, so that they add up."""
        return Measurements(
            **attrs.asdict(self._share.writers(), recurse=False),
            health=self._health.report(),
            ready=self._health.ready,
            feed_bugs=self._health.feed_bugs(),
            stream_clients=self._stream_clients(),
        )
