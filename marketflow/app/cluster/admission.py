"""Whether a node may take part under its name: two boots of one name never live at the same time.

```
                        our boot is the one that the database has
 waiting ───────────────────────────────────────────────────────────> admitted
    │  ^                                                                  │
    │  └──────────────────────────────────────────────────────────────────┘
    │                    the database has another boot
    v the other boot was heard of again
 StoreTaken
```
A boot that was killed a moment ago is still in the database, and only delays the start: our heartbeat is
noted once the other one is older than a lease. A boot that is heard of while we wait lives. It is the same
for a node that stood still and was replaced meanwhile. A database that has come back older may show an
earlier boot of ours too, but that one is not heard of again.
"""

from __future__ import annotations

from typing import Final

from marketflow.app.ports import ClusterSight, Node, StoreTaken
from marketflow.domain.modes import Mode

ROUNDED: Final = 10
"""By how much (ms) the time of one heartbeat may seem to differ from look to look."""


class Admission:
    """Decides for one node, from look to look. No I/O."""

    def __init__(self, node: Node, mode: Mode) -> None:
        """Waiting. `mode`: the cluster's, if the node is the first one."""
        self.admitted = False
        self.mode: Final = mode
        self.has_mode = False
        """Whether the cluster was seen to have a mode."""
        self._name = node.name
        self._boot = node.boot
        self._rival: tuple[str, int] | None = None
        """The other boot, and when it was heard of last (Unix ms of the database)."""

    def looked(self, sight: ClusterSight) -> None:
        """Decide after a look.

        Raises:
            StoreTaken: another boot of the name lives.
        """
        self.has_mode = sight.wanted is not None
        seen = sight.nodes.get(self._name)
        self.admitted = seen is not None and seen.node.boot == self._boot
        if seen is None or self.admitted:
            self._rival = None
            return
        boot, heard = seen.node.boot, sight.now - seen.age
        if self._rival is None or self._rival[0] != boot:
            self._rival = boot, heard
        elif heard > self._rival[1] + ROUNDED:
            raise StoreTaken(
                f"another node named {self._name} is running (at {seen.node.url}); each node of a cluster"
                " needs a name of its own: cluster.node"
            )
