"""The two modes of a service."""

from __future__ import annotations

from typing import Final, Literal

Mode = Literal["live", "test"]
"""`live`: the configured exchanges are read. `test`: generated prices are."""

OTHER: Final[dict[Mode, Mode]] = {"live": "test", "test": "live"}
"""By mode the other one."""
