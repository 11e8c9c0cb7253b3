"""The ports through which the use cases use the outside world. Adapters implement them, and so do tests.

| module | port | what it is for |
|---|---|---|
| `exchanges` | `Source`, `Intake`, `Decode` | reading an exchange, up to batches of updates |
| `window` | `Window` | the updates of the last minute and the bars of the last hour (Redis) |
| `rows` | `AggregateStore` | the rows of closed minutes (PostgreSQL) |
| `stores` | | how stores fail, and which part of them belongs to a share |
| `machine` | `Clock`, `Entropy` | time and randomness |

Everything can be imported from here.
"""

from marketflow.app.ports.exchanges import (
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
from marketflow.app.ports.machine import (
    Clock,
    Entropy,
)
from marketflow.app.ports.rows import (
    Aggregate,
    AggregateStore,
    RowBars,
)
from marketflow.app.ports.stores import (
    ALL,
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
    Written,
)

__all__ = [
    "ALL",
    "BARS_KEPT",
    "Aggregate",
    "AggregateStore",
    "AnyPayload",
    "Batch",
    "Chunk",
    "Clock",
    "Decode",
    "Decoded",
    "Edge",
    "EncodedFlush",
    "Entropy",
    "Field",
    "FieldBars",
    "Flush",
    "Identity",
    "Intake",
    "IntervalMismatch",
    "Payload",
    "Payload_contra",
    "Result",
    "RowBars",
    "RowsRefused",
    "Scope",
    "Sight",
    "Source",
    "StoreAway",
    "StoreRefuses",
    "StoreTaken",
    "StoreUnfit",
    "StoredBars",
    "Updates",
    "VenueSource",
    "Window",
    "Written",
]
