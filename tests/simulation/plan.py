"""What a seed decides before anything runs: the settings, and when which fault happens.

A plan is data. So a failing one can be shrunk: faults are left out as long as it still fails. Traffic and the
order of tasks come from generators of their own, which do not depend on the faults that are left.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Final, NamedTuple

import attrs

from marketflow.config import Settings
from marketflow.config.settings import ExchangeSettings
from tests.simulation.trades import KINDS as ID_KINDS

SYMBOLS: Final = ("BTCUSDT", "DOGEUSDT", "ETHUSDT")
LIVE: Final = ("exchange1", "exchange2")
TEST: Final = ("test1",)


class Kind(NamedTuple):
    """A kind of fault."""

    weight: int
    """How often it is drawn; 0: only as part of a situation."""
    lasts: float
    """Seconds at most; 0: it is over at once."""
    shown: str
    """The test, below tests/, that shows it on real servers, processes or disks."""


KINDS: Final = {
    "redis refuses": Kind(3, 8.0, "faults/test_redis_away.py::test_redis_comes_back"),
    "redis hangs": Kind(
        3, 6.0, "integration/test_window_contract.py::test_a_server_that_hangs_is_away_within_the_time_limit"
    ),
    "redis loses replies": Kind(
        3, 3.0, "faults/test_redis_refuses.py::test_connections_to_redis_that_do_not_last"
    ),
    "redis applies half": Kind(
        3, 3.0, "faults/test_redis_refuses.py::test_redis_takes_the_marker_and_refuses_the_rest"
    ),
    "redis slow": Kind(1, 6.0, "faults/test_redis_refuses.py::test_redis_takes_half_a_second_a_call"),
    "redis emptied": Kind(3, 0.0, "faults/test_redis_away.py::test_redis_is_emptied_under_a_live_connection"),
    "redis restarted empty": Kind(2, 3.0, "faults/test_redis_away.py::test_redis_comes_back"),
    "redis older": Kind(
        2, 0.0, "faults/test_redis_away.py::test_redis_comes_back_with_what_it_had_some_time_ago"
    ),
    "postgres refuses": Kind(3, 10.0, "faults/test_postgres_returns.py::test_postgres_comes_back"),
    "postgres hangs": Kind(
        3, 8.0, "faults/test_postgres_away.py::test_a_frozen_server_is_away_within_the_time_limit"
    ),
    "postgres loses replies": Kind(
        2, 4.0, "faults/test_postgres_away.py::test_an_ambiguous_write_may_be_repeated"
    ),
    "postgres refuses rows": Kind(
        2, 8.0, "faults/test_postgres_returns.py::test_a_row_that_postgres_refuses"
    ),
    "postgres breaks connections": Kind(
        2, 0.0, "integration/test_postgres.py::test_the_lock_goes_with_the_connection"
    ),
    "postgres older": Kind(2, 0.0, "faults/test_postgres_returns.py::test_it_comes_back_in_an_older_state"),
    "exchange down": Kind(
        2, 5.0, "e2e/test_exchange_outages.py::test_one_that_was_away_flows_again_within_three_seconds"
    ),
    "exchange breaks": Kind(3, 0.0, "integration/test_tcp_source.py::test_a_reset_is_an_os_error"),
    "exchange closes": Kind(
        2, 0.0, "e2e/test_exchange_outages.py::test_one_that_ends_every_connection_is_not_flooded"
    ),
    "exchange mute": Kind(1, 10.0, "e2e/test_exchange_outages.py::test_one_without_updates_is_stale"),
    "exchange mad": Kind(
        1, 5.0, "e2e/test_bad_lines.py::test_garbage_from_one_exchange_costs_the_others_nothing"
    ),
    "exchange ahead": Kind(1, 6.0, "faults/test_hostile_exchanges.py::test_a_clock_that_is_an_hour_off"),
    "exchange bursts": Kind(2, 3.0, "faults/test_redis_refuses.py::test_a_flood_while_redis_is_slow"),
    "clock ahead": Kind(2, 8.0, "faults/test_clock_steps.py::test_our_clock_alone_steps"),
    "clock behind": Kind(1, 8.0, "faults/test_clock_steps.py::test_our_clock_alone_steps"),
    "mode switched": Kind(4, 0.0, "faults/test_modes_under_load.py::test_switches_under_load"),
    "killed": Kind(4, 0.0, "faults/test_crashes.py::test_killed_again_and_again"),
    "stopped": Kind(3, 0.0, "e2e/test_stops.py::test_a_stop_in_mid_stream_loses_nothing"),
    "signalled twice": Kind(2, 0.0, "e2e/test_stops.py::test_a_second_signal_leaves_at_once"),
    "cancelled": Kind(
        3, 0.0, "faults/test_partitions.py::test_a_service_that_is_cancelled_keeps_what_no_store_has"
    ),
    "frozen": Kind(2, 8.0, "faults/test_stopped_program.py::test_what_was_sent_during_a_standstill_is_read"),
    "network down": Kind(2, 8.0, "faults/test_redis_refuses.py::test_connections_to_redis_that_do_not_last"),
    "network loses requests": Kind(
        2, 8.0, "faults/test_partitions.py::test_the_network_to_redis_loses_one_direction"
    ),
    "network loses answers": Kind(
        2, 8.0, "faults/test_partitions.py::test_the_network_to_redis_loses_one_direction"
    ),
    "network fails": Kind(
        2, 8.0, "faults/test_partitions.py::test_the_network_to_postgres_loses_one_direction"
    ),
    "spool used": Kind(1, 4.0, "faults/test_crashes.py::test_stopped_with_redis_away"),
    "spool disk full": Kind(
        1, 4.0, "integration/test_spool.py::test_a_save_that_fails_leaves_the_old_file_whole"
    ),
    "spool disk hangs": Kind(
        1, 4.0, "faults/test_stop_cut_short.py::test_a_disk_that_hangs_cannot_hold_the_stop"
    ),
    "spool unreadable": Kind(
        1, 4.0, "integration/test_spool.py::test_a_file_that_can_be_read_later_is_brought_in_then"
    ),
    "spool damaged": Kind(
        1, 4.0, "integration/test_spool.py::test_a_file_that_cannot_be_read_does_not_stop_the_start"
    ),
    "spool save killed": Kind(2, 4.0, "integration/test_spool.py::test_killed_in_the_middle_of_a_save"),
    "second service": Kind(1, 12.0, "faults/test_crashes.py::test_a_second_service_on_the_same_stores"),
    "second service, first frozen": Kind(
        1, 15.0, "faults/test_one_writer.py::test_one_that_was_frozen_while_another_took_over_ends"
    ),
    "second service, first killed": Kind(
        1, 12.0, "faults/test_one_writer.py::test_a_start_right_after_a_kill"
    ),
    "second service, first network fails": Kind(
        2, 15.0, "faults/test_partitions.py::test_one_that_no_answer_reached_while_another_took_over_ends"
    ),
    "second service, second frozen": Kind(
        1, 15.0, "faults/test_one_writer.py::test_one_that_was_frozen_while_another_took_over_ends"
    ),
    "second service, second killed": Kind(
        1, 12.0, "faults/test_one_writer.py::test_a_start_right_after_a_kill"
    ),
    "second service, second network fails": Kind(
        2, 15.0, "faults/test_partitions.py::test_one_that_no_answer_reached_while_another_took_over_ends"
    ),
    "both stores away": Kind(2, 6.0, "faults/test_postgres_returns.py::test_both_stores_away"),
    "second service, first network blinks": Kind(
        0, 15.0, "faults/test_partitions.py::test_one_that_no_answer_reached_while_another_took_over_ends"
    ),
    "redis older after a kill": Kind(
        0, 0.0, "faults/test_one_writer.py::test_a_redis_that_comes_back_with_the_hold_of_the_boot_before"
    ),
    "redis late write": Kind(
        0,
        0.0,
        "integration/test_window_contract.py::test_a_write_tells_who_holds_it_and_whose_marker_it_has_found",
    ),
    "clock days ahead": Kind(0, 8.0, "faults/test_clock_steps.py::test_our_clock_alone_steps"),
    "stopped after a send": Kind(0, 0.0, "e2e/test_stops.py::test_a_stop_in_mid_stream_loses_nothing"),
    "restarted without redis": Kind(0, 12.0, "faults/test_crashes.py::test_stopped_with_redis_away"),
    "spool used, then killed": Kind(0, 4.0, "faults/test_crashes.py::test_stopped_with_redis_away"),
}

SITUATIONS: Final = (
    (("clock days ahead", "postgres older"), (0.5, 2.0)),
    (("second service", "both stores away"), (0.5, 3.0)),
    (("clock behind", "restarted without redis"), (0.1, 1.0)),
    (("redis older after a kill",), ()),
    (("second service, first network blinks",), ()),
    (("redis late write",), ()),
    (("stopped after a send",), ()),
    (("restarted without redis",), ()),
    (("spool used, then killed",), ()),
)
"""Faults that seldom meet by chance, and in which bugs have hidden. Where there are two: how many seconds, at
least and at most, the second comes after the first."""
SITUATION: Final = 0.05
"""How many of the plans have one of them."""
VOLUMES: Final = 0.8
"""In how many of the plans exchanges tell volumes."""
VENUES: Final = 0.5
"""How many of the exchanges in live mode are venues: their trades have ids."""


def shown_table() -> str:
    """The kinds of faults as the table of docs/determinism.md."""
    rows = [f"| {name} | `tests/{kind.shown}` |" for name, kind in KINDS.items()]
    return "\n".join(["| fault | seen on the real thing by |", "|---|---|", *rows]) + "\n"


@attrs.frozen(order=True)
class Fault:
    """Something that goes wrong, or is done, at a time."""

    at: float
    """Seconds from the beginning."""
    kind: str
    lasts: float
    """Seconds."""
    detail: int
    """Whatever else the kind needs to know is taken from this number."""

    def __str__(self) -> str:
        lasting = f" for {self.lasts:.1f} s" if self.lasts else ""
        return f"{self.at:6.2f} s  {self.kind}{lasting}  ({self.detail})"


@attrs.frozen
class Plan:
    """All of a history but its traffic and the order of tasks."""

    seed: int
    seconds: float
    """How long faults happen; then there is calm."""
    tick: float
    """Seconds between two sends of an exchange, about."""
    symbols: Sequence[str]
    interval: int
    """Of the aggregates (ms)."""
    grace: int
    lateness: int
    window_length: int
    flush_interval: int
    max_pending: int
    replay_memory: int
    retention: int | None
    """ms"""
    mode: str
    volumes: bool | None
    """Whether exchanges tell volumes. None for plans from before there were any: no question is about them
    either, so that these stay the same histories."""
    ids: Sequence[str] | None
    """Of each exchange in live mode the kind of its trades' ids, or "lines" if it sends lines without ids.
    None for plans from before there were any."""
    faults: tuple[Fault, ...]

    @property
    def kinds(self) -> frozenset[str]:
        """The kinds of its faults."""
        return frozenset(fault.kind for fault in self.faults)

    @classmethod
    def of(cls, seed: int) -> Plan:
        """The plan of a seed."""
        rng = random.Random(f"plan {seed}")
        seconds = rng.choice((8.0, 15.0, 25.0))
        kinds = list(KINDS)
        weights = [KINDS[kind].weight for kind in kinds]
        if rng.random() < 0.5:
            # Few kinds, again and again: so rare ones meet each other.
            chosen = sorted(set(rng.choices(range(len(kinds)), weights, k=5)))
            kinds, weights = [kinds[i] for i in chosen], [weights[i] for i in chosen]
        faults: list[Fault] = []
        for _ in range(rng.choice((0, 1, 2, 3, 4, 6, 9, 12))):
            (kind,) = rng.choices(kinds, weights)
            faults.append(_fault(rng, kind, seconds, faults))
        situation = _situation(seed, seconds)
        if situation and situation[0].detail % 2:
            faults.clear()  # Other faults often excuse what a situation would show.
        return cls(
            seed=seed,
            seconds=seconds,
            tick=rng.choice((0.1, 0.3, 1.0)),
            symbols=SYMBOLS[: rng.randint(1, 3)],
            interval=rng.choice((2_000, 5_000)),
            grace=rng.choice((200, 1_000)),
            lateness=rng.choice((3_000, 8_000, 20_000)),
            window_length=rng.choice((4_000, 10_000, 60_000)),
            flush_interval=rng.choice((50, 200, 400)),
            max_pending=rng.choice((60, 1_000_000, 1_000_000)),
            replay_memory=rng.choice((64 * 2**20, 64 * 2**20, 2_000)),
            retention=rng.choice((None, None, 20_000)),
            mode=rng.choice(("live", "live", "test")),
            volumes=_volumes(seed),
            ids=_ids(seed),
            faults=tuple(sorted([*faults, *situation])),
        )


def _volumes(seed: int) -> bool:
    """Drawn from a generator of its own: all else in the plan of a seed stays as it is."""
    return random.Random(f"volumes {seed}").random() < VOLUMES


def _ids(seed: int) -> Sequence[str]:
    """Drawn from a generator of its own."""
    rng = random.Random(f"ids {seed}")
    return tuple(rng.choice(ID_KINDS) if rng.random() < VENUES else "lines" for _ in LIVE)


def _fault(rng: random.Random, kind: str, seconds: float, before: Sequence[Fault]) -> Fault:
    """A fault of that kind, within so many seconds: at any time, while another lasts, or at the beginning."""
    lasts = round(KINDS[kind].lasts * rng.uniform(0.1, 1.0), 3)
    at, when = rng.uniform(0, seconds), rng.random()
    if before and when < 0.5:
        other = rng.choice(before)
        at = min(max(0.0, other.at + rng.uniform(-0.5, other.lasts + 0.5)), seconds)
    elif kind.startswith("clock") and when > 0.7:
        at = 0.0
    return Fault(round(at, 3), kind, lasts, rng.randrange(1_000_000))


def _situation(seed: int, seconds: float) -> list[Fault]:
    """The faults of a situation, for a few of the seeds.

    They are drawn from a generator of their own: another situation leaves all other plans as they are.
    """
    rng = random.Random(f"situation {seed}")
    if rng.random() >= SITUATION:
        return []
    at = rng.uniform(3.0, seconds - 2.0)
    faults: list[Fault] = []
    kinds, after = rng.choice(SITUATIONS)
    for kind in kinds:
        lasts = round(KINDS[kind].lasts * rng.uniform(0.6, 1.0), 3)
        faults.append(Fault(round(at, 3), kind, lasts, rng.randrange(1_000_000)))
        at += rng.uniform(*after) if after else 0.0
    return faults


def settings_of(plan: Plan) -> Settings:
    """The settings of a plan."""
    settings = Settings()
    return attrs.evolve(
        settings,
        mode=plan.mode,
        symbols=tuple(plan.symbols),
        exchanges=tuple(ExchangeSettings(name, "127.0.0.1", 1) for name in LIVE),
        generator=attrs.evolve(settings.generator, exchanges=TEST),
        pipeline=attrs.evolve(
            settings.pipeline, flush_interval=plan.flush_interval, max_pending_updates=plan.max_pending
        ),
        window=attrs.evolve(settings.window, length=plan.window_length, replay_memory=plan.replay_memory),
        aggregation=attrs.evolve(
            settings.aggregation,
            interval=plan.interval,
            grace=plan.grace,
            lateness=plan.lateness,
            retention=plan.retention,
        ),
    )
