from __future__ import annotations

import math

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from marketflow.app.share.outbox import Outbox, ReceivedOutbox

ABSENT, WAITING, TAKEN, CHANGED = "absent", "waiting", "taken", "changed while taken"
STATES = [ABSENT, WAITING, TAKEN, CHANGED]
KEY = "key"


def outbox_in(state):
    """An outbox with one key in this state, and the version that was taken (0: none)."""
    outbox = Outbox()
    version = 0
    if state != ABSENT:
        outbox.add(KEY)
    if state in {TAKEN, CHANGED}:
        version = outbox.take([KEY])
    if state == CHANGED:
        outbox.add(KEY)
    return outbox, version


def take_it(outbox, _):
    outbox.take(list(outbox.waiting))


EVENTS = {
    "add": lambda outbox, _: outbox.add(KEY),
    "take": take_it,
    "acknowledge": lambda outbox, version: outbox.acknowledge([KEY], version),
    "acknowledge another version": lambda outbox, version: outbox.acknowledge([KEY], version + 1),
    "put back": lambda outbox, _: outbox.put_back(),
    "forget": lambda outbox, _: outbox.forget([KEY]),
}

TABLE = {
    #          absent, waiting, taken, changed while taken
    "add": (WAITING, WAITING, CHANGED, CHANGED),
    "take": (ABSENT, TAKEN, TAKEN, TAKEN),
    "acknowledge": (ABSENT, WAITING, ABSENT, WAITING),
    "acknowledge another version": (ABSENT, WAITING, TAKEN, CHANGED),
    "put back": (ABSENT, WAITING, WAITING, WAITING),
    "forget": (ABSENT, ABSENT, ABSENT, ABSENT),
}


def check(outbox, version, state):
    """Check the visible behaviour of a key in that state; `version` is the one that was taken."""
    assert (KEY in outbox) == (state != ABSENT)
    assert list(outbox) == ([] if state == ABSENT else [KEY])
    assert (KEY in outbox.waiting) == (state in {WAITING, CHANGED})
    assert outbox.is_current(KEY, version) == (state == TAKEN)
    # A taken key is put back before all waiting ones: this distinguishes WAITING and CHANGED.
    outbox.add("other")
    outbox.take(["other"])
    outbox.put_back()
    assert (next(iter(outbox.waiting)) == KEY) == (state in {TAKEN, CHANGED})


@pytest.mark.parametrize("event", EVENTS)
@pytest.mark.parametrize("state", STATES)
def test_every_event_in_every_state(event, state):
    outbox, version = outbox_in(state)
    EVENTS[event](outbox, version)
    taken = version + 1 if event == "take" and state in {WAITING, CHANGED} else version
    check(outbox, taken, TABLE[event][STATES.index(state)])


def test_what_changes_while_it_waits_keeps_its_place():
    """Otherwise a bar that changes all the time would never be taken."""
    outbox = Outbox()
    for key in "abac":
        outbox.add(key)
    assert list(outbox.waiting) == ["a", "b", "c"]


def test_the_caller_chooses_what_to_take():
    """PostgreSQL gets the oldest intervals first, independent of the order of changes."""
    outbox = Outbox()
    for end in (3, 1, 2):
        outbox.add(end)
    version = outbox.take(end for end in sorted(outbox.waiting) if end < 3)
    assert list(outbox.waiting) == [3]
    assert outbox.is_current(1, version)
    assert outbox.is_current(2, version)


def test_of_two_versions_on_their_way_the_newer_counts():
    """If the newer one is lost, the store may keep the older one for good."""
    outbox, first = outbox_in(CHANGED)
    second = outbox.take([KEY])
    outbox.acknowledge([KEY], first)
    assert KEY in outbox
    outbox.put_back()
    assert list(outbox.waiting) == [KEY]
    third = outbox.take([KEY])
    outbox.acknowledge([KEY], second)
    assert KEY in outbox
    outbox.acknowledge([KEY], third)
    assert KEY not in outbox


def test_what_is_put_back_is_taken_first():
    """It has waited longest."""
    outbox = Outbox()
    for key in "abc":
        outbox.add(key)
    outbox.take("ab")
    outbox.add("b")
    outbox.put_back()
    assert list(outbox.waiting) == ["a", "b", "c"]


def test_what_is_forgotten_far_behind_moves_no_place():
    """A place is reached when all keys before it were taken, not when that many are gone."""
    outbox = Outbox()
    for key in "abc":
        outbox.add(key)
    place = outbox.changes
    for key in "de":
        outbox.add(key)
    outbox.forget("de")
    outbox.take("ab")
    assert outbox.taken_to < place
    outbox.take("c")
    assert outbox.taken_to >= place


def naive(log, key):
    """Whether a key waits, and the version that was taken (0: none), from its whole history."""
    waits, taken = False, 0
    for event, version in [(event, version) for event, about, version in log if about in {key, "all"}]:
        match event:
            case "add":
                waits = True
            case "take":
                waits, taken = False, version
            case "acknowledge" if version == taken:
                taken = 0
            case "put back":
                waits, taken = waits or taken > 0, 0
            case "forget":
                waits, taken = False, 0
    return waits, taken


class OutboxMachine(RuleBasedStateMachine):
    """Any order of events, including acknowledgements that are late, repeated, or after a put-back."""

    KEYS = "abcd"

    def __init__(self):
        super().__init__()
        self.outbox = Outbox()
        self.log = []
        self.takes = []
        """The keys and the version of each take."""
        self.places = []
        """For each place that was requested, the keys that waited then."""

    @rule(key=st.sampled_from(KEYS))
    def add(self, key):
        self.outbox.add(key)
        self.log.append(("add", key, 0))

    @precondition(lambda self: self.outbox.waiting)
    @rule(data=st.data())
    def take(self, data):
        waiting = list(self.outbox.waiting)
        keys = data.draw(st.lists(st.sampled_from(waiting), unique=True))
        version = self.outbox.take(keys)
        assert version not in {earlier for _, earlier in self.takes}
        self.takes.append((keys, version))
        self.log += [("take", key, version) for key in keys]
        self._gone(keys)

    @precondition(lambda self: self.takes)
    @rule(data=st.data())
    def acknowledge(self, data):
        keys, version = data.draw(st.sampled_from(self.takes))
        self.outbox.acknowledge(keys, version)
        self.log += [("acknowledge", key, version) for key in keys]

    @rule()
    def put_back(self):
        back = [key for key in self.KEYS if naive(self.log, key)[1]]
        self.outbox.put_back()
        self.log.append(("put back", "all", 0))
        assert set(list(self.outbox.waiting)[: len(back)]) == set(back)
        for _, keys in self.places:
            keys.update(back)

    @rule(keys=st.sets(st.sampled_from(KEYS)))
    def forget(self, keys):
        self.outbox.forget(keys)
        self.log += [("forget", key, 0) for key in keys]
        self._gone(keys)

    @rule()
    def ask_for_the_place(self):
        self.places.append((self.outbox.changes, set(self.outbox.waiting)))

    def _gone(self, keys):
        for _, waited in self.places:
            waited.difference_update(keys)

    @invariant()
    def every_key_is_in_the_state_that_the_log_tells(self):
        for key in self.KEYS:
            waits, version = naive(self.log, key)
            assert (key in self.outbox.waiting) == waits
            assert (key in self.outbox) == (waits or version > 0)
            for _, taken in self.takes:
                assert self.outbox.is_current(key, taken) == (taken == version and not waits)
        assert sorted(self.outbox) == [key for key in self.KEYS if key in self.outbox]

    @invariant()
    def a_place_is_reached_when_nothing_that_waited_then_waits_still(self):
        for place, waited in self.places:
            assert (self.outbox.taken_to >= place) == (not waited)


OutboxMachine.TestCase.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
TestOutbox = OutboxMachine.TestCase


def test_the_time_of_receipt_is_known_until_the_store_has_it():
    outbox = ReceivedOutbox()
    outbox.add("adopted")
    outbox.add_received(KEY, 1.0)
    assert (outbox.received_at(KEY), outbox.received_at("adopted")) == (1.0, -math.inf)
    version = outbox.take([KEY])
    outbox.add_received(KEY, 2.0)
    outbox.acknowledge([KEY], version)
    assert outbox.received_at(KEY) == 2.0
    version = outbox.take([KEY])
    outbox.acknowledge([KEY], version - 1)
    outbox.put_back()
    assert outbox.received_at(KEY) == 2.0
    outbox.acknowledge([KEY], outbox.take([KEY]))
    assert outbox.received_at(KEY) == -math.inf
    outbox.add_received(KEY, 3.0)
    outbox.forget([KEY])
    assert outbox.received_at(KEY) == -math.inf
