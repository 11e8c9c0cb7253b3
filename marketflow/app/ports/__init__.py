"""The ports through which the use cases use the outside world. Adapters implement them, and so do tests.

| module | port | what it is for |
|---|---|---|
| `exchanges` | `Source`, `Intake`, `Decode` | reading an exchange, up to batches of updates |
| `window` | `Window` | the updates of the last minute and the bars of the last hour (Redis) |
| `changes` | `Changes` | what the owners of exchanges write there, for other nodes (Redis) |
| `rows` | `AggregateStore` | the rows of closed minutes (PostgreSQL) |
| `changes` | `Changes` | what the owners of exchanges write there, for other nodes (Redis) |
| `leases` | `Leases` | the nodes of a cluster and what they have (PostgreSQL) |
| `stores` | | how stores fail, and which part of them belongs to a share |
| `machine` | `Clock`, `Entropy` | time and randomness |

Everything can be imported from here.
"""

from marketflow.app.ports.changes import (
    START,
    Change,
    Changes,
)
from marketflow.app.ports.exchanges import (
    OUTAGES,
    AnyPayload,
    Batch,
    Chunk,
    Decode,
    Decoded,
    Identity,
    Intake,
    Payload,
    Payload_contra,
    Result,
    Source,
    Updates,
    VenueSource,
)
from marketflow.app.ports.leases import (
    FORGOTTEN,
    NEVER,
    ClusterSight,
    Leases,
    Node,
    SeenLease,
    SeenNode,
    Term,
    WantedMode,
)
from marketflow.app.ports.machine import (
    Clock,
    Entropy,
)
from marketflow.app.ports.rows import (
    Aggregate,
    AggregateStore,
    RowBars,
    RowReading,
)
from marketflow.app.ports.stores import (
    ALL,
    Fenced,
    IntervalMismatch,
    RowsRefused,
    Scope,
    StoreAway,
    StoreRefuses,
    StoreTaken,
    StoreUnfit,
)
from marketflow.app.ports.window import (
    BARS_KEPT,
    Edge,
    EncodedFlush,
    Field,
    FieldBars,
    Flush,
    Sight,
    StoredBars,
    Window,
    WindowReading,
    Written,
)

__all__ = [
    "ALL",
    "BARS_KEPT",
    "FORGOTTEN",
    "NEVER",
    "OUTAGES",
    "START",
    "Aggregate",
    "AggregateStore",
    "AnyPayload",
    "Batch",
    "Change",
    "Changes",
    "Chunk",
    "Clock",
    "ClusterSight",
    "Decode",
    "Decoded",
    "Edge",
    "EncodedFlush",
    "Entropy",
    "Fenced",
    "Field",
    "FieldBars",
    "Flush",
    "Identity",
    "Intake",
    "IntervalMismatch",
    "Leases",
    "Node",
    "Payload",
    "Payload_contra",
    "Result",
    "RowBars",
    "RowReading",
    "RowsRefused",
    "Scope",
    "SeenLease",
    "SeenNode",
    "Sight",
    "Source",
    "StoreAway",
    "StoreRefuses",
    "StoreTaken",
    "StoreUnfit",
    "StoredBars",
    "Term",
    "Updates",
    "VenueSource",
    "WantedMode",
    "Window",
    "WindowReading",
    "Written",
]
