"""The bench's control of the flooding exchanges, which are a separate process."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import attrs

from tests.bench.children import child
from tests.bench.sender import LISTENING, Telling


@attrs.frozen
class Sent:
    """Complete lines that the exchanges have sent."""

    lines: Sequence[int]
    """The number of lines, by exchange."""
    seconds: Sequence[dict[int, int]]
    """The number of lines by exchange, and by the second (Unix) of their timestamp."""

    @property
    def total(self) -> int:
        """The sum over all exchanges."""
        return sum(self.lines)


class Exchanges:
    """Controls the exchanges. Use `sending`."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process
        self.pid = process.pid
        self.ports: list[int] = self._answer()[LISTENING]

    def flood(self, *places: int) -> None:
        """Send as much as is read: all exchanges, or only those at these places."""
        self._tell(rate=None, pacing=False, flooding=places or [*range(len(self.ports))])

    def send(self, rate: float | None) -> None:
        """Send that many lines a second, all exchanges together; None: as much as is read."""
        if rate is None:
            self.flood()
        else:
            self._tell(rate=rate, pacing=False)

    def pace(self) -> None:
        """Send as the provided exchanges do: each a line of each symbol every 100 ms."""
        self._tell(rate=0.0, pacing=True)

    def probe(self, *, probing: bool) -> None:
        """Start or stop a numbered line of the symbol PROBE every 10 ms on the first exchange."""
        self._tell(probing=probing)

    def probes(self) -> list[int]:
        """The times (ns, monotonic) at which probes 1, 2, … were sent."""
        sent: list[int] = self._tell(told_probes=True)["probes"]
        return sent

    def send_each(self, timestamps: Sequence[int]) -> None:
        """Send a line of each symbol at each of these times (ms), on every exchange."""
        self._tell(each_at=list(timestamps))

    def connected(self) -> bool:
        """Whether every exchange has its client."""
        return all(self._tell()["connected"])

    def sent(self) -> int:
        """The complete lines that all exchanges have sent so far."""
        return sum(self._tell()["sent"])

    def finish(self) -> Sent:
        """Send only the rest of what was begun; returns what was sent."""
        said = self._tell(rate=0, pacing=False, probing=False, finish=True)
        seconds = [{int(second): count for second, count in each.items()} for each in said["seconds"]]
        return Sent(said["sent"], seconds)

    def _tell(self, **command: object) -> dict[str, Any]:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(command).encode() + b"\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        answer: dict[str, Any] = json.loads(self._process.stdout.readline())
        return answer


@contextmanager
def sending(exchanges: int, symbols: Sequence[str], telling: Telling = "nothing") -> Iterator[Exchanges]:
    """That many exchanges, which listen and send nothing yet.

    `telling`: which lines have volumes and sides.
    """
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with child("tests.bench.sender", exchanges, ",".join(symbols), telling, **pipes) as process:
        yield Exchanges(process)
