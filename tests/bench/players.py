"""The bench's control of the fake venues, which are a separate process."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from tests.bench.children import child
from tests.bench.messages import our


class Players:
    """Controls the venues. Use `playing`."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process
        self.venues: Mapping[str, tuple[str, Sequence[str]]] = self._answer()
        """By kind the URL, and the symbols as the venue spells them."""

    @property
    def settings(self) -> list[dict[str, Any]]:
        """The exchanges of the configuration that connect the service to them."""
        return [
            {
                "name": kind,
                "kind": kind,
                "url": url,
                "symbols": {our(symbol): symbol for symbol in symbols},
            }
            for kind, (url, symbols) in self.venues.items()
        ]

    def play(self, kind: str, rate: float) -> None:
        """Trade at that rate on one venue."""
        self._tell({kind: rate})

    def rest(self) -> int:
        """Trade no more; returns how many trades all venues have made.

        Raises:
            ValueError: the service has broken a rule of a venue.
        """
        found = self._tell(dict.fromkeys(self.venues, 0.0))
        broken = [rule for each in found.values() for rule in each["violations"]]
        if broken:
            raise ValueError(f"the rules of a venue were broken: {broken}")
        return sum(each["made"] for each in found.values())

    def _tell(self, rates: Mapping[str, float]) -> dict[str, Any]:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(rates).encode() + b"\n")
        self._process.stdin.flush()
        found: dict[str, Any] = self._answer()
        return found

    def _answer(self) -> Any:
        assert self._process.stdout is not None
        return json.loads(self._process.stdout.readline())


@contextmanager
def playing(kinds: Sequence[str]) -> Iterator[Players]:
    """Venues of these kinds, which listen and trade nothing yet."""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    with child("tests.bench.venue_player", ",".join(kinds), **pipes) as process:
        yield Players(process)
