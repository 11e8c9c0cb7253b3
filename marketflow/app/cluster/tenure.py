"""What a node does with an exchange from taking it to losing it: a share of its own, and a feed into it.

```
 run_tenure
  ├─ ending           cancels all of it when the exchange is lost
  ├─ feeding          sifts what was recorded, enters it, and goes on; ends when the exchange is to be given
  │                   back. Its feed may have begun before the term (`marketflow.app.cluster.feeding`)
  └─ share            flusher, aggregator, spooling, packing; ends when all is stored
```
Taking an exchange over is the same as starting: the share reads what earlier terms have left in the window,
and makes it whole. Giving it back is the same as stopping. Losing it is neither: nothing may be written any
more, so all is cancelled, and what was not written is counted as dropped.

An exchange that is to be given back from the start is only sealed, so that its last owner, who may stand
still, writes nothing any more. Nothing else begins. A node that stops does not wait for a window that is
away: the exchange stays unsealed, and its lease is left to expire, so that another node seals it.
"""

from __future__ import annotations

from typing import Final

import trio
from trio_util import move_on_when

from marketflow.app.cluster.feeding import Feeding
from marketflow.app.cluster.hold import Ended, Ending, Hold
from marketflow.app.ports import NEVER, Clock, Fenced, StoreAway
from marketflow.app.share.share import Share

SEAL_SECONDS: Final = 0.25
"""How often it is tried to seal an exchange whose window is away."""


async def run_tenure(hold: Hold, share: Share, feeding: Feeding, clock: Clock) -> Ended:
    """Have an exchange until it is lost, or to be given back and everything is stored.

    Args:
        hold: tells when.
        share: of this term alone.
        feeding: feeds the share's book.
        clock: the wall clock.
    """
    ended = Ended(Ending.IN_ORDER)
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_cancel_when_lost, hold, nursery.cancel_scope)
            if hold.leaving.is_set():
                ended = Ended(Ending.UNSEALED)
                async with move_on_when(hold.stopping.wait):
                    await _seal(share)
                    ended = Ended(Ending.IN_ORDER)
                nursery.cancel_scope.cancel()
                await trio.lowlevel.checkpoint()
            async with move_on_when(hold.leaving.wait):
                await share.lease()
            async with move_on_when(hold.leaving.wait):
                await share.begin(clock.now(), recorded_from=feeding.keep(clock.now()))
            async with move_on_when(hold.leaving.wait):
                await feeding.sift(share, clock.now())
            nursery.start_soon(_feed, share, feeding, hold)
            await share.run()
            nursery.cancel_scope.cancel()
    except* Fenced as group:
        ended = Ended(Ending.FENCED, _epoch_of(group))
    if ended.how is not Ending.FENCED and hold.lost.is_set():
        ended = Ended(Ending.LOST)
    if ended.how in {Ending.FENCED, Ending.LOST}:
        feeding.cut_off()
        share.give_up()
    return ended


def _epoch_of(error: BaseException) -> int:
    """The greatest epoch that was met."""
    if isinstance(error, BaseExceptionGroup):
        return max(map(_epoch_of, error.exceptions))
    return error.epoch if isinstance(error, Fenced) else NEVER


async def _cancel_when_lost(hold: Hold, everything: trio.CancelScope) -> None:
    await hold.lost.wait()
    everything.cancel()


async def _seal(share: Share) -> None:
    """Seal the exchange once the window answers."""
    while True:
        try:
            await share.leases.window.ensure()
        except StoreAway:
            await trio.sleep(SEAL_SECONDS)
        else:
            return


async def _feed(share: Share, feeding: Feeding, hold: Hold) -> None:
    await feeding.feed(share, hold.leaving)
    share.end(closes=hold.closes)
