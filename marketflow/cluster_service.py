"""A node of a cluster as a task tree. `service.py` is the tree of a service that is alone on its stores.

```
 run_node                     signals, as in service.py
 └─ serve_node                one nursery owns all that follows
    ├─ front                  the HTTP server; ends with the stop
    ├─ member                 ends when all exchanges were given back
    │  ├─ beating             says that the node lives, renews leases, looks what is free
    │  └─ tenure              for each exchange that the node has: its feed, its pool and its share
    ├─ watch                  keeps mirrors of all exchanges up to date; ends with the member
    ├─ stream                 ends with the stop
    └─ limit_stop             waits for the stop, and limits its time
```
"""

from __future__ import annotations

import attrs
import structlog
import trio

from marketflow.app.instruments.clocks import SystemClock
from marketflow.app.ports import Clock
from marketflow.app.watch.node_health import NodeHealth
from marketflow.cluster_assembly import assemble_node
from marketflow.cluster_outside import real_cluster_outside
from marketflow.config import Settings
from marketflow.service import StopTime, limit_stop, stop_on_signal

log = structlog.get_logger()


async def run_node(settings: Settings) -> None:
    """Run a node until a signal stops it.

    Raises:
        OSError, StoreTaken, StoreUnfit, TimeoutError, BarsLost: as `serve_node`.
    """
    stopping = trio.Event()
    async with trio.open_nursery() as nursery:
        await nursery.start(stop_on_signal, stopping)
        await serve_node(settings, stopping)
        nursery.cancel_scope.cancel()


async def serve_node(
    settings: Settings,
    stopping: trio.Event,
    *,
    clock: Clock | None = None,
    task_status: trio.TaskStatus[str] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Run a node until `stopping` is set and all that it has received is stored.

    Args:
        settings: all of them.
        stopping: set by the caller to stop the node.
        clock: the wall clock; the system's by default.
        task_status: reports the URL, once questions are answered.

    Raises:
        OSError: the node cannot listen, for example because the port is in use.
        TimeoutError: the stop took longer than `shutdown_timeout`.
        BarsLost: bars that no store has taken could not be spooled.
        StoreTaken: a service that is no node uses the database, or a node of the same name lives.
        StoreUnfit: a store answers, and waiting does not make it fit for us.
    """
    async with real_cluster_outside(settings, clock or SystemClock()) as outside:
        parts = assemble_node(settings, outside)
        async with trio.open_nursery() as nursery:
            time = StopTime(settings.shutdown_timeout / 1_000)
            nursery.start_soon(limit_stop, stopping, time, nursery.cancel_scope)
            url = await nursery.start(outside.front, parts.questions, stopping)
            nursery.start_soon(parts.stream.run, stopping)
            parts.health.serving = True
            log.info("serving", url=url, node=outside.node.name, role=outside.node.role)
            task_status.started(url)
            async with trio.open_nursery() as watching:
                watching.start_soon(parts.watch.run)
                watching.start_soon(parts.streamed.run)
                watching.start_soon(unready_at_stop, parts.health, stopping)
                await parts.member.run(stopping)
                watching.cancel_scope.cancel()
        if nursery.cancel_scope.cancelled_caught:
            raise TimeoutError("the stop took too long and was cut short, see the log")
        log.info("stopped", **attrs.asdict(parts.health.report().updates))


async def unready_at_stop(health: NodeHealth, stopping: trio.Event) -> None:
    """Once the stop comes, no more questions are to be sent here."""
    await stopping.wait()
    health.serving = False
