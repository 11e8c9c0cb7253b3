"""The port for the changes of bars, as the owners of exchanges write them: other nodes keep up by them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Final, Protocol

import attrs

from marketflow.app.ports.window import Field
from marketflow.domain.bars import Bar
from marketflow.domain.prices import Pair

START: Final = "0-0"
"""The place before all changes."""


@attrs.frozen
class Change:
    """One write of the node that has the exchange."""

    place: str
    """Its place in the stream."""
    term: str
    """Id of the term."""
    number: int
    """Counts the changes of a term. A hole shows that one is missing: removed, lost, or not readable."""
    bars: Sequence[tuple[Pair, Field, Bar]]
    """Absolute values."""


class Changes(Protocol):
    """The changes of all exchanges, in stores that may be away. Old ones are removed.

    Exchanges whose store failed or did not answer in time are left out of the answers. If that is so for all
    that were asked for, both methods raise StoreAway. Both are bounded.
    """

    async def ends(self, exchanges: Collection[str]) -> Mapping[str, str]:
        """The place of the last change of each; `START` without any."""
        ...

    async def after(self, places: Mapping[str, str]) -> Mapping[str, Sequence[Change]]:
        """By exchange, what was appended since that place, oldest first. It never waits for new ones.

        What cannot be read is left out. If the store was emptied and a term of an earlier epoch has begun,
        its changes are returned from the first one on.
        """
        ...
