"""One history of a cluster: nodes come and go, stores fail, and the checks of what must hold."""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Callable
from itertools import pairwise
from typing import Any, Final

import attrs
import trio

from marketflow.adapters.db.memory_leases import LeaseRow
from marketflow.adapters.exchange.reading import LineReader
from marketflow.app.answers import NothingCanAnswer
from marketflow.app.cluster.holdings import Times
from marketflow.app.cluster.modes import SWITCH_SECONDS
from marketflow.app.ports import Aggregate, Batch, Term
from marketflow.app.share.making import ShareOptions
from marketflow.cluster_assembly import RECORDED_LEASES
from marketflow.config import Settings
from marketflow.domain.modes import OTHER, Mode
from marketflow.domain.periods import HOUR
from marketflow.sources import line_decoder
from tests.cluster_simulation.nodes import SimulatedNode, SimulatedTenure, Surroundings
from tests.cluster_simulation.plan import MODES, SHARED, SYMBOLS, Fault, Plan
from tests.cluster_simulation.servers import ClusterPostgres, Shard, bars_of
from tests.cluster_simulation.shared import SharedExchange
from tests.simulation.exchanges import GoodLine, Rules, SimulatedExchange, judged
from tests.simulation.faults import NETWORK_WAYS, POSTGRES_WAYS
from tests.simulation.model import Model, Update
from tests.simulation.process import SimulatedClock, Wrong, ends_within, true_time
from tests.simulation.scheduling import Steps
from tests.simulation.stores import OwnWay, Server, Way
from tests.simulation.volumes import Told

API: Final = "api1"
"""The name of the node that has no exchanges, but mirrors of all."""
PAUSES: Final = (0.1, 1.0, 4.0)
"""Seconds until a node that has ended is started again: one is drawn."""
WHOLE_SECONDS: Final = 25.0
"""After the last fault every exchange has an owner, and is whole, within this."""
MOST_SECONDS: Final = 400.0
FORGETTING: Final = {"shard emptied", "shard older"}
"""Faults after which nobody can tell what was stored before."""
HARMLESS: Final = {"node stopped"}
"""Faults that cost no update of a shared exchange."""
DEADLY: Final = {"node killed", "node frozen"}
"""The same, with a standby."""
STEPS: Final = (-600.0, -4.0, 4.0, 600.0)
"""By how many seconds the clock of PostgreSQL steps: one is drawn."""
OLDER: Final = 4
"""A store that comes back older has the state of one of so many last snapshots, one each second."""


class World:
    """Everything of one history."""

    def __init__(self, plan: Plan, steps: Steps, coverage: Counter[str]) -> None:
        """`coverage` counts what has happened."""
        self.plan = plan
        self.steps = steps
        self.coverage = coverage
        self.log: list[str] = []
        self.model = Model(plan.interval)
        self.clock = SimulatedClock()
        self.postgres = ClusterPostgres()
        self.shards = {exchange: Shard() for exchange in MODES}
        self.nodes: dict[str, SimulatedNode] = {}
        """Those that run, by boot."""
        self.tenures: list[SimulatedTenure] = []
        """All that there ever were, the oldest first, of nodes that have ended."""
        self._rng = self.generator("world")
        self._orders = 0
        self._boots = 0
        self._switching: list[SimulatedNode] = []
        """Nodes that were asked for another mode, and have not answered yet."""
        self._judged: dict[str, int] = {}
        """By term, how many of its accepted updates count; later ones can have no effect."""
        self._snapshots: list[tuple[Callable[[], None], dict[str, Callable[[], None]]]] = []
        defaults = Settings()
        aggregation = attrs.evolve(
            defaults.aggregation, interval=plan.interval, grace=plan.grace, lateness=plan.lateness
        )
        settings = attrs.evolve(defaults, symbols=SYMBOLS, aggregation=aggregation)
        self.around = Surroundings(
            exchanges={
                name: (SharedExchange if name in SHARED else SimulatedExchange)(
                    name,
                    SYMBOLS,
                    self.generator(name),
                    true_time,
                    plan.tick,
                    interval=plan.interval,
                    lateness=plan.lateness,
                    step=lambda: steps.count,
                )
                for name in MODES
            },
            shards=self.shards,
            postgres=self.postgres,
            options=ShareOptions(
                interval=plan.interval,
                grace=plan.grace,
                lateness=plan.lateness,
                retention=None,
                window_length=plan.window_length,
                replay_memory=64 * 2**20,
                flush_interval=50,
                patience=1_000,
            ),
            symbols=SYMBOLS,
            clock=self.clock,
            decode=line_decoder(settings),
            reader=LineReader(self.clock),
            times=Times(calm=8.0),
            standby=plan.standby,
            failed=steps.fail,
            received=self._received,
            entering=self._entering,
            taken=self._taken,
        )
        self.postgres.latency = self._rng.choice((0.001, 0.02, 0.2))
        self.postgres.written = self._check_write
        for exchange, shard in self.shards.items():
            shard.sealed = self._sealed
            shard.robbed = lambda *_: None
            shard.latency = self._rng.choice((0.001, 0.01))
            shard.exchange = exchange  # type: ignore[attr-defined]

    def generator(self, purpose: str) -> random.Random:
        """A generator of its own, so that what one part draws does not shift what another gets."""
        return random.Random(f"cluster {purpose} {self.plan.seed}")

    def note(self, text: str) -> None:
        """Keep for the log."""
        self.log.append(f"{trio.current_time():8.3f}  {text}")

    # ---- the history ----

    async def run(self) -> None:
        """All of it: faults, calm, and the end.

        Raises:
            Wrong: a promise was broken.
        """
        await ends_within(MOST_SECONDS, self._run)

    async def _run(self) -> None:
        self.steps.after_each = self._check_ledgers
        async with trio.open_nursery() as nursery:
            for exchange in self.around.exchanges.values():
                nursery.start_soon(exchange.run)
            nursery.start_soon(self._take_snapshots)
            async with trio.open_nursery() as living:
                self._living = living
                for number in range(self.plan.nodes):
                    living.start_soon(self._keep_alive, f"n{number + 1}")
                living.start_soon(self._keep_alive, API)
                async with trio.open_nursery() as happening:
                    for fault in self.plan.faults:
                        happening.start_soon(self._inflict, fault)
                    happening.start_soon(trio.sleep, self.plan.seconds)
                await self._calm()
                living.cancel_scope.cancel()
            nursery.cancel_scope.cancel()

    async def _keep_alive(self, name: str) -> None:
        while True:
            await self._live(self._new_node(name))
            await trio.sleep(self._rng.choice(PAUSES))

    def _new_node(self, name: str) -> SimulatedNode:
        self._boots += 1
        boot = f"b{self._boots:03}"
        node = self.nodes[boot] = SimulatedNode(
            name, boot, self.around, self.generator(boot), "api" if name == API else "all"
        )
        self.note(f"{name} starts as {boot}")
        return node

    async def _live(self, node: SimulatedNode) -> None:
        try:
            await node.run()
        finally:
            self.tenures += node.tenures
        self.note(f"{node.name} {node.boot} {'was refused' if node.refused else 'has ended'}")
        self.coverage["refused"] += node.refused
        self.coverage["mirrors compared"] += sum(mirror.checks for mirror in node.mirrors)
        del self.nodes[node.boot]

    async def _take_snapshots(self) -> None:
        while True:
            shards = {exchange: shard.snapshot() for exchange, shard in self.shards.items()}
            self._snapshots.append((self.postgres.snapshot(), shards))
            await trio.sleep(1.0)

    # ---- what comes in ----

    def _received(self, tenure: SimulatedTenure, line: bytes) -> None:
        self._orders += 1
        rules = Rules(SYMBOLS, self.clock.now(), self.plan.interval, self.plan.lateness)
        found = judged(line, rules)
        if isinstance(found, GoodLine):
            term = tenure.term
            symbol, price, timestamp, told = found
            tenure.given.append(
                Update(
                    term.exchange, symbol, price, timestamp, term.id, self._orders, trio.current_time(), told
                )
            )

    def _entering(self, tenure: SimulatedTenure, batch: Batch) -> None:
        term, now = tenure.term, trio.current_time()
        for symbol, columns, _ in batch.updates:
            for timestamp, price in zip(columns.timestamps, columns.prices, strict=True):
                self._orders += 1
                update = Update(term.exchange, symbol, price, timestamp, term.id, self._orders, now, Told())
                tenure.given.append(update)

    # ---- faults ----

    async def _inflict(self, fault: Fault) -> None:
        await trio.sleep_until(fault.at)
        self.note(str(fault))
        self.coverage[fault.kind] += 1
        rng = random.Random(f"{fault.detail}")
        kind, _, what = fault.kind.partition(" ")
        match kind:
            case "node":
                await self._hit_node(what, fault.lasts, rng)
            case "mode":
                self._switch(rng)
            case "network":
                await self._cut(NETWORK_WAYS[what], fault.lasts, rng)
            case "postgres" if what == "older":
                if self._snapshots:
                    rng.choice(self._snapshots[-OLDER:])[0]()
                    self.model.rows_went_back()
            case "postgres" if what == "steps":
                self.postgres.table.stepped += rng.choice(STEPS)
            case "postgres":
                await self._turn(self.postgres, POSTGRES_WAYS[what], fault.lasts)
            case "shard":
                await self._hit_shard(what, fault.lasts, rng)
            case "exchange":
                exchange = self.around.exchanges[rng.choice(self._wanted)]
                exchange.behaviour.down = what == "down"
                exchange.drop(broken=rng.random() < 0.5)
                await trio.sleep(fault.lasts)
                exchange.behaviour.down = False

    async def _hit_node(self, what: str, lasts: float, rng: random.Random) -> None:
        if not self.nodes:
            return
        node = self.nodes[rng.choice(sorted(self.nodes))]
        match what:
            case "killed":
                node.kill()
            case "stopped":
                node.stopping.set()
                await node.ended.wait()
            case "doubled":
                self._living.start_soon(self._live, self._new_node(node.name))
            case "frozen" if not node.frozen:
                node.freeze()
                await trio.sleep(lasts)
                node.thaw()

    @property
    def _mode(self) -> Mode:
        """The wanted one."""
        wanted = self.postgres.table.wanted
        return "live" if wanted is None else wanted.mode

    @property
    def _wanted(self) -> list[str]:
        """The exchanges of the wanted mode."""
        return [exchange for exchange, mode in MODES.items() if mode == self._mode]

    def _switch(self, rng: random.Random) -> None:
        """Have one node, or two at the same time, switch the mode."""
        for boot in rng.sample(sorted(self.nodes), k=min(len(self.nodes), rng.choice((1, 1, 2)))):
            self._switching.append(self.nodes[boot])
            self._living.start_soon(self._ask_to_switch, self.nodes[boot], OTHER[self._mode])

    async def _ask_to_switch(self, node: SimulatedNode, mode: Mode) -> bool:
        answer, changed = "nothing can answer", False
        with trio.move_on_after(2 * SWITCH_SECONDS):
            try:
                changed = await node.modes.switch(mode)
            except NothingCanAnswer:
                pass
            else:
                answer = "switched" if changed else "had it"
                if changed and {fault.kind for fault in self.plan.faults} == {"mode switched"}:
                    # Without other faults nobody has died, and nothing is left to be written.
                    theirs = [exchange for exchange, its_mode in MODES.items() if its_mode != mode]
                    self._check_rows(theirs, self.clock.now() + HOUR)
        self._switching.remove(node)
        self.note(f"{node.name} was asked for {mode}: {answer}")
        self.coverage[f"mode asked for: {answer}"] += 1
        return changed

    async def _cut(self, way: OwnWay, lasts: float, rng: random.Random) -> None:
        """Cut a node off from PostgreSQL, from some shards, or from everything."""
        if not self.nodes:
            return
        node = self.nodes[rng.choice(sorted(self.nodes))]
        links = rng.choice(
            ([node.postgres], [node.shards[rng.choice(self._wanted)]], list(node.shards.values()), node.links)
        )
        for link in links:
            link.turn(way)
        await trio.sleep(lasts)
        for link in links:
            link.turn("up")

    async def _hit_shard(self, what: str, lasts: float, rng: random.Random) -> None:
        exchange = rng.choice(self._wanted)
        shard = self.shards[exchange]
        if what in POSTGRES_WAYS:
            await self._turn(shard, POSTGRES_WAYS[what], lasts)
            return
        if what == "emptied":
            shard.shelf.empty()
        elif self._snapshots:
            last = self._snapshots[-OLDER:]
            place = rng.randrange(len(last))
            restore = last[place][1][exchange]
            restore()
            for _, shards in last[place + 1 :]:
                shards[exchange] = restore  # What came after that state is nowhere any more.
        owner = self._owner(exchange)
        if owner is None or not owner.window.histories_read:
            # Nobody has what earlier terms have left.
            self._count_losses(exchange, None if owner is None else owner.term)

    async def _turn(self, server: Server, way: Way, lasts: float) -> None:
        server.turn(way)
        await trio.sleep(lasts)
        server.turn("up")

    # ---- terms ----

    def _all_tenures(self) -> list[SimulatedTenure]:
        return [*self.tenures, *(each for node in self.nodes.values() for each in node.tenures)]

    def _owner(self, exchange: str) -> SimulatedTenure | None:
        """The tenure whose term is the exchange's last one, if it goes on."""
        row = self.postgres.table.leases.get(exchange)
        return next(
            (each for each in self._all_tenures() if row and each.term == row.term and not each.over), None
        )

    def _taken(self, row: LeaseRow | None, new: LeaseRow) -> None:
        """A node has taken a lease."""
        self._check_modes(new.term.exchange)
        if row is None or row.released or row.boot == new.boot:
            return
        # It was not given back: its owner must have had no way to renew it.
        self.coverage["taken over"] += 1
        owner = self.nodes.get(row.boot)
        if owner is None or owner.frozen or not owner.has(row.term):
            return
        since = max(owner.thawed_at, owner.postgres.whole_since, self.postgres.went_back_at)
        if owner.postgres.own == "up" and trio.current_time() - since > self.around.times.lasts:
            raise Wrong(f"{row.term} was taken, though its owner {row.node} lives and reaches the database")

    def _check_modes(self, exchange: str) -> None:
        """An exchange was taken: of the wanted mode only if no lease of the other one is left."""
        left = [
            row.term.exchange
            for row in self.postgres.table.leases.values()
            if not row.released and MODES[row.term.exchange] != self._mode
        ]
        if MODES[exchange] != self._mode:
            self.coverage["taken to be sealed"] += 1
        elif left and trio.current_time() - self.postgres.went_back_at > 1.0:
            raise Wrong(f"{exchange} was taken, though {left} of the other mode are not given back")

    def _sealed(self, term: Term) -> None:
        """A term is about to seal its exchange: what earlier terms have not stored has no effect any more."""
        self.coverage["sealed"] += 1
        self.note(f"{term.exchange} sealed by epoch {term.epoch} ({term.id})")
        self._count_losses(term.exchange, term)
        market = self.around.exchanges[term.exchange]
        if isinstance(market, SharedExchange) and market.owed_from is None:
            market.owed_from = len(market.lines_sent)

    def _count_losses(self, exchange: str, term: Term | None) -> None:
        for tenure in self._all_tenures():
            own = tenure.term
            if own.exchange == exchange and own != term and own.id not in self._judged:
                self._judged[own.id] = len(tenure.accepted)
                self.model.ended += tenure.accepted
        rows = {
            ((name, symbol), end): row.bar.count for (name, symbol, end), row in self.postgres.rows.items()
        }
        mine = [update for update in self.model.ended if update.exchange == exchange]
        others = [update for update in self.model.ended if update.exchange != exchange]
        self.model.ended = mine
        lost = self.model.lost(bars_of(self.shards[exchange].shelf), rows)
        self.model.ended += others
        self.coverage["updates lost"] += len(lost)

    def _updates(self) -> list[Update]:
        """All accepted updates that count."""
        found: list[Update] = []
        for tenure in self._all_tenures():
            found += tenure.accepted[: self._judged.get(tenure.term.id)]
        return found

    # ---- checks ----

    def _check_ledgers(self) -> None:
        for node in self.nodes.values():
            for tenure in node.tenures:
                ledger = tenure.share.book.ledgers[tenure.term.exchange]
                kept = ledger.cached + ledger.expired + sum(ledger.dropped.values()) + ledger.pending
                if (
                    ledger.accepted != kept
                    or ledger.received != ledger.accepted + sum(ledger.rejected.values())
                    or ledger.accepted > len(tenure.given)
                    or ledger.cached > len(tenure.window.held[tenure.term.exchange])
                ):
                    given, held = len(tenure.given), len(tenure.window.held[tenure.term.exchange])
                    raise Wrong(f"{tenure.term}: {ledger} does not add up: {given} given, {held} held")
                if tenure.returned and ledger.pending:
                    raise Wrong(f"{tenure.term} is over, and {ledger.pending} updates are pending")

    def _apart(self) -> bool:
        """Whether there is a standby again each time that a node dies."""
        deaths = sorted((fault.at, fault.lasts) for fault in self.plan.faults if fault.kind in DEADLY)
        apart = RECORDED_LEASES * self.around.times.lasts
        return all(later[0] - sum(earlier) > apart for earlier, later in pairwise(deaths))

    def _check_write(self, boot: str, row: Aggregate, sent: float) -> None:
        if (term := self.postgres.table.leases[row.exchange].term).id != boot:
            raise Wrong(f"{boot} has written a row of {row.exchange} under {term}")
        del sent

    async def _calm(self) -> None:
        await self._end_mode()
        if len({MODES[tenure.term.exchange] for tenure in self._all_tenures()}) == 1:
            return
        # What a dead node has had of the other mode is made whole when that comes back.
        owner, mode = self._owner(self._wanted[0]), OTHER[self._mode]
        assert owner is not None
        self._switching.append(owner.node)
        if not await self._ask_to_switch(owner.node, mode):
            raise Wrong(f"calm, and {owner.node.name} does not switch to {mode}")
        await self._end_mode()

    async def _end_mode(self) -> None:
        """Wait until all of the present mode is whole, and check it."""
        self.note(f"calm, {self._mode} mode")
        exchanges = await self._until_whole()
        for exchange in exchanges:
            self.around.exchanges[exchange].behaviour.mute = True
        await trio.sleep((self.plan.interval + self.plan.grace) / 1_000 + 4.0)
        await self._until_whole()  # Exchanges may have been moved meanwhile.
        self._check_rows(exchanges, self.clock.now() - self.plan.grace)
        for exchange in exchanges:
            self._check_window(exchange)
            if exchange in SHARED:
                self._check_shared(exchange)
        for node in list(self.nodes.values()):
            for mirror in node.mirrors:
                await mirror.check()
                if not any(fault.kind in {"shard emptied", "shard older"} for fault in self.plan.faults):
                    mirror.check_equal()

    async def _until_whole(self) -> list[str]:
        """Wait until all exchanges of the mode have an owner, and all is up; returns them."""
        began = trio.current_time()
        while wrong := self._not_whole(self._wanted):
            if trio.current_time() - began > WHOLE_SECONDS:
                raise Wrong(f"not whole {WHOLE_SECONDS:.0f} s after the last fault: {wrong[:3]}")
            await trio.sleep(0.25)
        return self._wanted

    def _not_whole(self, exchanges: list[str]) -> list[str]:
        switching = [node.name for node in self._switching if not (node.killed or node.ended.is_set())]
        wrong = [f"{switching} switch the mode"] if switching else []
        for exchange in exchanges:
            owner = self._owner(exchange)
            if owner is None:
                wrong.append(f"{exchange} has no owner")
            elif not owner.feed.connected:
                wrong.append(f"{exchange}: its feed is not connected")
            elif not (owner.share.redis.up and owner.share.postgres.up and owner.share.flusher.up):
                wrong.append(f"{exchange}: a store of its owner is not up")
        names = sorted(node.name for node in self.nodes.values())
        if len(set(names)) < len(names):
            wrong.append(f"two nodes of one name live: {names}")
        if modes := {node.modes.mode for node in self.nodes.values()} - {self._mode}:
            wrong.append(f"nodes are in {modes}, {self._mode} is wanted")
        if not wrong:
            owners = Counter(self.postgres.table.leases[exchange].node for exchange in exchanges)
            numbers = [owners[name] for name in names if name != API]
            if sum(numbers) < len(exchanges) or max(numbers) - min(numbers) > 1:
                wrong.append(f"not balanced: {owners}")
        return wrong

    def _check_rows(self, exchanges: list[str], until: int) -> None:
        rows = {
            ((exchange, symbol), end): row.bar
            for (exchange, symbol, end), row in self.postgres.rows.items()
            if exchange in exchanges
        }
        updates = [update for update in self._updates() if update.exchange in exchanges]
        ended = self.model.ended
        self.model.ended = [update for update in ended if update.exchange in exchanges]
        wrong = self.model.wrong_rows(rows, updates, until, 0)
        self.model.ended = ended
        if wrong:
            raise Wrong(f"{len(wrong)} rows are not right: {wrong[:3]}")
        self.coverage["rows"] += len(rows)

    def _check_window(self, exchange: str) -> None:
        """No update is in the window twice, and all that the owner has accepted is."""
        shelf, owner = self.shards[exchange].shelf, self._owner(exchange)
        held: Counter[Any] = Counter()
        for (_, symbol), members in shelf.members.items():
            for member in members.values():
                held[symbol, member.timestamp, member.price] += 1
        accepted: defaultdict[Any, int] = defaultdict(int)
        for update in self._updates():
            if update.exchange == exchange:
                accepted[update.symbol, update.timestamp, update.price] += 1
        if extra := held - Counter(accepted):
            raise Wrong(f"in the window of {exchange}, but never accepted, or twice: {list(extra)[:3]}")
        assert owner is not None
        since = self.clock.now() - self.plan.window_length
        wanted = Counter(
            (update.symbol, update.timestamp, update.price)
            for update in owner.accepted
            if update.timestamp >= since
        )
        if missing := wanted - held:
            raise Wrong(f"not in the window of {exchange}: {list(missing)[:3]}")

    def _check_shared(self, exchange: str) -> None:
        """Each update that was sent is in the window once, as far as the faults of this history allow."""
        kinds = {fault.kind for fault in self.plan.faults}
        market = self.around.exchanges[exchange]
        assert isinstance(market, SharedExchange)
        since = self.clock.now() - self.plan.window_length
        held: Counter[Any] = Counter()
        for (_, symbol), members in self.shards[exchange].shelf.members.items():
            for member in members.values():
                held[symbol, member.timestamp, member.price] += 1
        sent = Counter(market.lines_sent)
        if (extra := held - sent) and not kinds & FORGETTING:
            raise Wrong(f"more often in the window of {exchange} than it was sent: {list(extra.items())[:3]}")
        if kinds <= (HARMLESS | DEADLY if self.plan.standby and self._apart() else HARMLESS):
            owed = Counter(key for key in market.lines_sent[market.owed_from :] if key[1] >= since)
            missing = owed - held
            if missing:
                raise Wrong(
                    f"sent by {exchange}, and not in its window: {missing.total()}, {list(missing)[:3]}"
                )
            self.coverage["shared exchanges whole"] += 1
