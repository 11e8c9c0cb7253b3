"""Counts which states the service's state machines reach in a history."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any, Final

from marketflow.app.ingest.state import FeedState
from marketflow.app.instruments.stores import StoreState
from marketflow.app.share.window_lease import LeaseMachine

NAMES: Final[dict[type, tuple[str, Callable[[Any, Any], str]]]] = {
    LeaseMachine: ("state", lambda _, state: f"lease {state.value}"),
    FeedState: ("state", lambda _, state: f"feed {state}"),
    StoreState: ("up", lambda store, up: f"{store.name} {'up' if up else 'away'}"),
}
"""Of each class the attribute that tells its state, and the name of a state."""


@contextlib.contextmanager
def counted(coverage: Counter[str]) -> Iterator[None]:
    """Within it each change of a state is counted.

    Only setting attributes becomes slower, and the service does that rarely in these classes.
    """
    with contextlib.ExitStack() as stack:
        for kind, (attribute, name) in NAMES.items():
            stack.enter_context(_watched(kind, attribute, name, coverage))
        yield


@contextlib.contextmanager
def _watched(
    kind: type, attribute: str, name: Callable[[Any, Any], str], coverage: Counter[str]
) -> Iterator[None]:
    def set_attribute(self: Any, key: str, value: Any) -> None:
        if key == attribute and getattr(self, key, None) != value:
            coverage[f"state {name(self, value)}"] += 1
        object.__setattr__(self, key, value)

    kind.__setattr__ = set_attribute  # type: ignore[method-assign, assignment]
    try:
        yield
    finally:
        del kind.__setattr__
