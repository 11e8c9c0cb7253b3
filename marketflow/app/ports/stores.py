"""What all stores have in common: how they fail, and which part of them belongs to a share."""

from __future__ import annotations

from typing import Final

import attrs


class StoreAway(Exception):
    """A store failed, or did not answer within its time limit. Whether a write took effect is unknown."""


class StoreRefuses(StoreAway):
    """A store answers, but refused a reading, or a part of a write. The rest of the write took effect."""


class StoreTaken(Exception):
    """Another marketflow has the lease or lock of a store. The message, if any, says how that shows."""


class Fenced(StoreTaken):
    """In a cluster: another term has the exchange. That is final, since no term ever comes back."""

    def __init__(self, message: str, epoch: int) -> None:
        """`epoch`: of the other term, as far as it is known; at least 0."""
        super().__init__(message)
        self.epoch = epoch


class RowsRefused(Exception):
    """The store answers but refuses these rows: none of them was written. The message says why."""


class StoreUnfit(Exception):
    """The store answers but cannot be used, and waiting would not help. The message says why."""


class IntervalMismatch(StoreUnfit):
    """The database holds aggregates of another interval (ms) than the configured one."""

    def __init__(self, stored: int, configured: int) -> None:
        super().__init__(f"the database holds aggregates of {stored} ms, not of {configured} ms")
        self.stored = stored
        self.configured = configured


@attrs.frozen
class Scope:
    """The part of the stores that belongs to one share: some exchanges, or all.

    Each scope has a lease and a spool of its own. Scopes in use at the same time must have no exchange in
    common.
    """

    exchanges: frozenset[str] | None = attrs.field(
        default=None, validator=attrs.validators.optional(attrs.validators.min_len(1))
    )
    """None: all exchanges, configured or not. A scope without any exchange is a ValueError."""

    @property
    def name(self) -> str:
        """A name that is the same for the same exchanges; empty for all."""
        return "+".join(sorted(self.exchanges or ()))

    def __contains__(self, exchange: str) -> bool:
        return self.exchanges is None or exchange in self.exchanges


ALL: Final = Scope()
"""The scope of a service that is alone on its stores."""
