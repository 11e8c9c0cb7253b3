"""Volumes on their whole way, from lines to a row, against a sum of their own."""

from __future__ import annotations

import json
import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from marketflow.adapters.exchange.checks import Checks
from marketflow.adapters.exchange.lines import Lines
from marketflow.adapters.exchange.wire import Decoder
from marketflow.app.share.second_bars import SecondBars
from marketflow.domain.bars import Bar, in_seconds, merged
from marketflow.domain.columns import Columns
from marketflow.domain.packed_bars import pack_bar, unpack_bar
from marketflow.domain.periods import Span

START = 1_795_343_340_000
INTERVAL = 60_000
PAIR = "exchange1", "BTCUSDT"
MOST_VOLUME, MOST_QUOTE = 1e18, 1e280

good = st.one_of(
    st.just(0),
    st.integers(0, 10**18),
    st.floats(0, 1e6),
    st.sampled_from([1e18, 5e-324, 1e-300, -0.0, 0.1, 1_000]),
)
bad = st.one_of(
    st.none(),
    st.booleans(),
    st.text(max_size=3),
    st.sampled_from(["1.5", -1, -5e-324, 1e19, 10**400, [1.5], {"base": 1}]),
    st.floats(max_value=-1e-9, allow_infinity=False),
)
sides = st.sampled_from(["buy", "sell", "buy", "sell", None, "BUY", 1, ""])
lines = st.fixed_dictionaries(
    {
        "symbol": st.just("BTCUSDT"),
        "price": st.floats(1e-9, 1e290),
        "timestamp": st.integers(START, START + 5_000),
    },
    optional={"volume": st.one_of(good, good, bad), "side": sides},
)
chunks = st.lists(st.lists(lines, min_size=1, max_size=8), min_size=1, max_size=6)


def told(line) -> float | None:
    """The volume of a line, if it counts."""
    volume = line.get("volume")
    if type(volume) not in (int, float) or not 0 <= volume <= MOST_VOLUME:
        return None
    return float(volume) if line["price"] * volume <= MOST_QUOTE else None


def close(found: float | None, right: list[float] | None) -> bool:
    if found is None or right is None:
        return found is right
    return math.isclose(found, math.fsum(right), rel_tol=1e-9)


def agree(bar: Bar, sent: list[dict]) -> None:
    """What the bar says was traded is what these lines tell, in the order of receipt."""
    counted = [(line, volume) for line in sent if (volume := told(line)) is not None]
    last = max(range(len(sent)), key=lambda place: (sent[place]["timestamp"], place))
    assert bar.count == len(sent)
    assert bar.close_volume == told(sent[last])
    if not counted:
        assert bar.traded is None
        return
    traded = bar.traded
    assert traded is not None
    assert traded.updates == len(counted)
    assert close(traded.volume, [volume for _, volume in counted])
    assert close(traded.quote, [line["price"] * volume for line, volume in counted])
    of = {side: [volume for line, volume in counted if line.get("side") == side] for side in ("buy", "sell")}
    sided = any(of.values())
    assert close(traded.buy, of["buy"] if sided else None)
    assert close(traded.sell, of["sell"] if sided else None)
    vwap = traded.vwap(bar.min, bar.max)
    if traded.volume:
        assert bar.min <= vwap <= bar.max
        assert vwap == pytest.approx(min(max(traded.quote / traded.volume, bar.min), bar.max))
    else:
        assert vwap is None


@given(chunks)
def test_from_lines_to_a_row(sent):
    """Each chunk is a batch; bars grow by batches, are packed and unpacked, and merged into the row."""
    decode = Decoder(Checks(frozenset({"BTCUSDT"}), INTERVAL, 2 * INTERVAL))
    bars = SecondBars(boot="b1", interval=INTERVAL)
    received, ignored = 0, 0
    for chunk in sent:
        data = b"".join(json.dumps(line).encode() + b"\n" for line in chunk)
        decoded = decode(Lines(data, 0, START + 5_000, 0.0))
        assert (decoded.accepted, decoded.rejected) == (len(chunk), {})
        (updates,) = decoded.updates
        for second, bar in updates.bars.items():
            bars.add(PAIR, second, bar, received)
        received += len(chunk)
        ignored += decoded.ignored_volumes
    every = [line for chunk in sent for line in chunk]
    assert ignored == sum("volume" in line and told(line) is None for line in every)

    span = Span(START, START + INTERVAL)
    for (second, _), bar in bars.fields(PAIR, span).items():
        agree(bar, [line for line in every if line["timestamp"] // 1_000 * 1_000 == second])
    agree(bars.bar(PAIR, span), every)
    packed = {second: pack_bar(bar, second) for (second, _), bar in bars.fields(PAIR, span).items()}
    unpacked = [unpack_bar(each, second) for second, each in packed.items()]
    assert unpacked == list(bars.fields(PAIR, span).values())
    agree(merged(unpacked), every)


rows = st.lists(
    st.tuples(
        st.integers(0, 999),
        st.floats(1e-6, 1e6),
        st.one_of(st.none(), st.just(0.0), st.floats(1e-9, 1e9)),
        st.sampled_from(["buy", "sell", None]),
    ),
    min_size=1,
    max_size=30,
)


@given(rows, st.randoms(use_true_random=False))
def test_bars_merge_in_any_order_and_partition(updates, rng: random.Random):
    """In twos, all at once, or some of them packed before."""
    parts: list[Bar] = []
    places = list(range(len(updates)))
    while places:
        size = rng.randint(1, len(places))
        rng.shuffle(places)
        part, places = sorted(places[:size]), places[size:]
        # A bar has consecutive sequences only in itself: each of these starts at the place of its update.
        bars = [
            bar.shifted(place)
            for place in part
            for bar in in_seconds(Columns(*([each] for each in updates[place]))).values()
        ]
        bar = merged(bars)
        assert bar is not None
        parts.append(unpack_bar(pack_bar(bar, 0), 0) if rng.random() < 0.5 else bar)
    sent = [
        {"timestamp": time, "price": price, "volume": volume, "side": side}
        for time, price, volume, side in updates
    ]
    rng.shuffle(parts)
    agree(merged(parts), sent)
    while len(parts) > 1:
        one, other = (parts.pop(rng.randrange(len(parts))) for _ in range(2))
        parts.append(one.merge(other))
    agree(parts[0], sent)
