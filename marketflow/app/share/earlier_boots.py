"""The one place that keeps the history of earlier boots: parts of a share change it, or wait for changes."""

from __future__ import annotations

from collections.abc import Callable

from trio_util import AsyncValue

from marketflow.app.share.history import History
from marketflow.app.share.trials import Trials
from marketflow.app.share.wake import Wake
from marketflow.domain.periods import Span


class EarlierBoots:
    """Keeps the history of earlier boots. Its states are in `marketflow.app.share.history`."""

    def __init__(self, trials: Trials, wake: Wake) -> None:
        self._trials = trials
        self._wake = wake
        self._history = AsyncValue(History())

    @property
    def history(self) -> History:
        """As it is now."""
        history: History = self._history.value  # trio-util has no types
        return history

    @property
    def reading(self) -> bool:
        """Whether Redis answers, so that the reading that is wanted will be done in a moment."""
        return not self.history.up_to_date and self._trials.link.answers

    async def wait_until(self, condition: Callable[[History], bool]) -> None:
        """Wait until that is so."""
        await self._history.wait_value(condition)

    # ---- events ----

    def newest_read(self, number: int, span: Span) -> None:
        """The reading of that number has read the bars of this time (ms); it goes on with all others."""
        self._history.value = self.history.newest_read(number, span)

    def was_read(self, number: int) -> None:
        """The reading of that number was done."""
        self._history.value = self.history.was_read(number)

    def rows_told(self) -> None:
        """Rows have told what Redis has lost."""
        self._history.value = self.history.rows_told()

    def database_away(self) -> None:
        """Rows cannot tell."""
        self._history.value = self.history.database_away()

    def another_has_database(self) -> None:
        """Rows cannot tell, and another boot may write some."""
        self._history.value = self.history.another_has_database()

    def database_ours(self, *, renewed: bool) -> None:
        """Rows can tell. If the lease was `renewed`, another boot may have added to the bars until now."""
        if renewed:
            self.read_again()
        self._history.value = self.history.database_ours()

    def read_again(self) -> None:
        """Have the bars read (again), also if they are being read at this moment."""
        self._history.value = self.history.read_again()
        self._trials.become(self._trials.link.outdated())
        self._wake.ask()
