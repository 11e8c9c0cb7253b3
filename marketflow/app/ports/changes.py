"""The port for the changes of bars, as the owners of exchanges write them: other nodes keep up by them."""

from __future__ import annotations

from collections.abc import Sequence
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
    """Its place in the stream: `<epoch>-<number>`. A hole in the numbers shows that one is missing: removed,
    not written, or not readable."""
    term: str
    """Id of the term. Two terms have one epoch if both stores have forgotten the first."""
    bars: Sequence[tuple[Pair, Field, Bar]]
    """Absolute values."""


class Changes(Protocol):
    """The changes of each exchange, in a store that may be away. Old ones are removed.

    Both methods raise StoreAway if the store failed or did not answer in time. Both are bounded.
    """

    async def end(self, exchange: str) -> str:
        """The place of the last change; `START` without any."""
        ...

    async def after(self, exchange: str, place: str) -> Sequence[Change]:
        """What was appended since that place, oldest first. It never waits for new ones.

        What cannot be read is left out. If the store was emptied and a term of an earlier epoch has begun,
        its changes are returned from the first one on.
        """
        ...
