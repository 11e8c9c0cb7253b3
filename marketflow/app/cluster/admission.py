"""Whether a node may take part: no other boot of its name lives.

```
            no other boot is fresh
 waiting ────────────────────────────> admitted
    │                                     │ another boot has the name: we stood still for long
    └── another one says that it lives ───┴──> StoreTaken
```
A boot that was killed a moment ago looks fresh, but says nothing any more: it only delays the start.
"""

from __future__ import annotations

from marketflow.app.ports import ClusterSight, Node, StoreTaken


class Admission:
    """Decides from look to look. No I/O."""

    def __init__(self, node: Node, *, lasts: int) -> None:
        """`lasts`: how long (ms) a node that was heard of counts as alive."""
        self._node = node
        self._lasts = lasts
        self._admitted = False
        self._heard: int | None = None
        """When the other boot was heard of (ms of the database's clock), as it was seen first."""

    def admits(self, sight: ClusterSight) -> bool:
        """Whether it may take part, as far as this look tells.

        Raises:
            StoreTaken: another boot of the same name lives.
        """
        seen = sight.nodes.get(self._node.name)
        if seen is None or seen.node.boot == self._node.boot or seen.age >= self._lasts:
            self._admitted = self._admitted or (seen is not None and seen.node.boot == self._node.boot)
            return self._admitted
        heard = sight.now - seen.age
        self._heard = heard if self._heard is None else self._heard
        if self._admitted or heard > self._heard:
            raise StoreTaken(
                f"another node of this cluster is named {self._node.name}, at {seen.node.url}:"
                " give each its own name (cluster.node)"
            )
        return False
