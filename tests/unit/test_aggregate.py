"""Aggregation is an exact integer mean: any order, any number of devices, no list, no overflow."""

from __future__ import annotations

import gc
import math
import tracemalloc
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgetrain.coordinator.aggregate import MAXIMUM_EXAMPLES, Accumulator, staleness_weight
from edgetrain.coordinator.global_model import FRACTION_BITS, GlobalModel, array_of
from edgetrain.errors import PayloadError
from edgetrain.models import mlp
from edgetrain.schema import state_schema
from edgetrain.task import Report
from edgetrain.tensorfile import State, Tensor

MODEL = mlp(inputs=5, classes=3, hidden=(4,), group=2)
CODE_VALUES = [0, 1, 2, 4, 8, 16, 32, 64, 0, -1, -2, -4, -8, -16, -32, -64]
ONE = 1 << FRACTION_BITS
MANY_REPORTS = 10_000
ONE_PAGE = 4096
"""Bytes: the running integers may gain a digit. A name a report would be a hundred times it."""


def random_state(mode: str, seed: int) -> State:
    """Return a valid state of MODEL with every kind of tensor filled at random."""
    draw = np.random.default_rng(seed)
    state: State = {}
    for name, (dtype, shape) in state_schema(MODEL, mode).items():
        if dtype == "F32":
            values = np.abs(draw.normal(0, 30, shape)).astype("<f4")
        elif dtype == "U8":
            values = draw.integers(0, 256, shape).astype("u1")
        else:
            values = draw.integers(-127, 128, shape).astype("i1")
        state[name] = Tensor(dtype, shape, values.tobytes())
    return state


def random_update(mode: str, codec: str, seed: int) -> State:
    """Return a valid update of MODEL under a codec."""
    draw = np.random.default_rng(seed)
    update: State = {}
    for name, tensor in random_state(mode, seed).items():
        if name.endswith(".latent") and codec == "luq4":
            codes = draw.integers(0, 256, (tensor.count + 1) // 2).astype("u1")
            maximum = np.array([draw.integers(0, 255)], "<u4")
            update[f"{name}.codes"] = Tensor("U8", codes.shape, codes.tobytes())
            update[f"{name}.maximum"] = Tensor("U32", (1,), maximum.tobytes())
        else:
            update[name] = tensor
    return update


def report(device: str, examples: int, update: State, version: int = 0) -> Report:
    """Return the report of a device that trained on some examples."""
    return Report(
        "trained", version, device, examples=examples, loss=1.0, accuracy=0.5, update=update
    )


def begin(mode: str = "bnn", seed: int = 0, version: int = 0) -> Accumulator:
    """Return an accumulator over a random global model."""
    return Accumulator(GlobalModel.from_state(MODEL, mode, random_state(mode, seed), version))


def half_up(value: Fraction) -> int:
    """Round to the nearest integer, halves upwards."""
    return (value + Fraction(1, 2)).__floor__()


def change(update: State, name: str, sent: np.ndarray) -> list[Fraction]:
    """Return a latent's change by the words of edgetrain.update, one element at a time."""
    if name in update:
        after = array_of(update[name]).ravel().tolist()
        return [Fraction(a - b) for a, b in zip(after, sent.ravel().tolist(), strict=True)]
    packed = bytes(update[f"{name}.codes"].data)
    maximum = update[f"{name}.maximum"].view()[0]
    nibbles = [(packed[i // 2] >> 4 * (i % 2)) & 15 for i in range(sent.size)]
    return [Fraction(CODE_VALUES[nibble] * maximum, 64) for nibble in nibbles]


def weight(lag: int) -> Fraction:
    """Return what a report that lags behind counts for: 1 / sqrt(1 + lag) to 10 bits."""
    return Fraction(round(1024 / math.sqrt(1 + lag)), 1024)


def expected(before: GlobalModel, reports: list[Report], sent: State | None = None) -> GlobalModel:
    """Return the next version in exact fractions: the oracle. Reports in the past began at `sent`.

    Latents move from where they are, scales and statistics from where devices see them.
    """
    now = before.state()
    bases = [now if one.version == before.version else sent or now for one in reports]
    total = sum(one.examples for one in reports)
    factors = [one.examples * weight(before.version - one.version) for one in reports]

    def moved(start: list[Fraction], changes: list[list[Fraction]]) -> list[Fraction]:
        steps = [
            sum(factor * change for factor, change in zip(factors, column, strict=True))
            for column in zip(*changes, strict=True)
        ]
        return [
            Fraction(half_up((at + step / total) * ONE))
            for at, step in zip(start, steps, strict=True)
        ]

    weights, statistics = {}, {}
    for name, fixed in before.weights.items():
        low, high = (-127, 127) if name.endswith(".latent") else (0, 255)
        kept = [Fraction(value, ONE) for value in fixed.ravel().tolist()]
        seen = [Fraction(value) for value in array_of(now[name]).ravel().tolist()]
        changes = [
            change(one.update, name, array_of(base[name]))
            for one, base in zip(reports, bases, strict=True)
        ]
        values = moved(kept if name.endswith(".latent") else seen, changes)
        clipped = [int(min(max(value, low * ONE), high * ONE)) for value in values]
        weights[name] = np.array(clipped, np.int32).reshape(fixed.shape)
    for name in before.statistics:
        changes = [
            [
                Fraction(half_up(Fraction(new) * ONE) - half_up(Fraction(old) * ONE), ONE)
                for new, old in zip(one.update[name].view(), base[name].view(), strict=True)
            ]
            for one, base in zip(reports, bases, strict=True)
        ]
        start = [Fraction(half_up(Fraction(value) * ONE), ONE) for value in now[name].view()]
        values = moved(start, changes)
        if name.endswith(".deviation"):
            values = [max(Fraction(0), value) for value in values]
        statistics[name] = np.array([float(value / ONE) for value in values], np.float32)
    return replace(before, version=before.version + 1, weights=weights, statistics=statistics)


def same(one: GlobalModel, other: GlobalModel) -> bool:
    """Say whether two global models are equal to the bit."""
    return one.version == other.version and all(
        np.array_equal(getattr(one, part)[name], getattr(other, part)[name])
        for part in ("weights", "statistics")
        for name in getattr(one, part)
    )


MODES_AND_CODECS = [("bnn", "luq4"), ("bnn", "raw8"), ("fsb", "luq4"), ("fsb", "raw8")]


@pytest.mark.parametrize(("mode", "codec"), MODES_AND_CODECS)
@given(
    weights=st.lists(st.integers(1, 10_000), min_size=1, max_size=5),
    seed=st.integers(0, 2**31),
)
@settings(max_examples=30, deadline=None)
def test_the_mean_is_exact(mode: str, codec: str, weights: list[int], seed: int) -> None:
    accumulator = begin(mode)
    reports = [
        report(f"device-{i}", examples, random_update(mode, codec, seed + i))
        for i, examples in enumerate(weights)
    ]
    for one in reports:
        accumulator.fold(one)
    assert same(accumulator.apply(), expected(accumulator.model, reports))


@given(
    order=st.permutations(range(6)),
    weights=st.lists(st.integers(1, 2**26), min_size=6, max_size=6),
)
@settings(max_examples=50, deadline=None)
def test_neither_the_order_of_arrival_nor_of_age_matters(
    order: list[int], weights: list[int]
) -> None:
    reports = [
        report(f"d{i}", n, random_update("bnn", "luq4", i), version=5 - i)
        for i, n in enumerate(weights)
    ]
    straight, shuffled = begin(version=5), begin(version=5)
    for i in range(6):
        straight.fold(reports[i], random_state("bnn", 20 + i))
        shuffled.fold(reports[order[i]], random_state("bnn", 20 + order[i]))
    assert same(straight.apply(), shuffled.apply())


@pytest.mark.parametrize(("mode", "codec"), MODES_AND_CODECS)
@given(
    reports=st.lists(st.tuples(st.integers(1, 10_000), st.integers(0, 9)), min_size=1, max_size=5),
    seed=st.integers(0, 2**31),
)
@settings(max_examples=30, deadline=None)
def test_a_late_report_counts_for_less_and_its_change_from_what_was_sent_is_exact(
    mode: str, codec: str, reports: list[tuple[int, int]], seed: int
) -> None:
    accumulator = begin(mode, version=9)
    sent = random_state(mode, seed ^ 1)
    folded = [
        report(f"device-{i}", examples, random_update(mode, codec, seed + i), version=9 - lag)
        for i, (examples, lag) in enumerate(reports)
    ]
    for one, (_, lag) in zip(folded, reports, strict=True):
        accumulator.fold(one, sent if lag else None)
    assert accumulator.stale == sum(lag > 0 for _, lag in reports)
    assert same(accumulator.apply(), expected(accumulator.model, folded, sent))


def test_the_weight_of_a_report_is_the_nearest_integer_to_1024_by_the_root_of_its_age() -> None:
    for lag in range(5000):
        weight = staleness_weight(lag)
        assert (2 * weight - 1) ** 2 * (1 + lag) <= 4 << 20 <= (2 * weight + 1) ** 2 * (1 + lag)
    assert [staleness_weight(lag) for lag in (0, 3, 15)] == [1024, 512, 256]


@pytest.mark.parametrize("nibble", [7, 15])
def test_the_largest_sums_stay_exact(nibble: int) -> None:
    accumulator = begin()
    update = random_update("bnn", "luq4", 1)
    for name in [name for name in update if name.endswith(".codes")]:
        codes = bytes([nibble * 17]) * len(update[name].data)
        update[name] = Tensor("U8", update[name].shape, codes)
        maximum = name.replace(".codes", ".maximum")
        update[maximum] = Tensor("U32", (1,), (254).to_bytes(4, "little"))
    for name in [name for name in update if update[name].dtype == "F32"]:
        huge = np.full(update[name].shape, 2.0**31, "<f4")
        update[name] = Tensor("F32", update[name].shape, huge.tobytes())
    half = MAXIMUM_EXAMPLES // 2
    reports = [report("a", half, update), report("b", MAXIMUM_EXAMPLES - half, update)]
    for one in reports:
        accumulator.fold(one)
    assert same(accumulator.apply(), expected(accumulator.model, reports))


def test_small_changes_add_up_over_rounds() -> None:
    """A tenth of a step in every round moves the byte that is sent after enough rounds."""
    model = GlobalModel.from_state(MODEL, "bnn", random_state("bnn", 0))
    zero = {name: 0 * array for name, array in model.weights.items()}
    model = replace(model, weights=zero)
    update = random_update("bnn", "luq4", 0)
    for name in [name for name in update if name.endswith(".codes")]:
        update[name] = Tensor("U8", update[name].shape, b"\x11" * len(update[name].data))
        update[name.replace(".codes", ".maximum")] = Tensor("U32", (1,), b"\x08\0\0\0")
    sent = []
    for version in range(9):
        accumulator = Accumulator(model)
        accumulator.fold(report("a", 10, update, version))
        model = accumulator.apply()
        sent.append(int(model.sent("layer0.latent").flat[0]))
    assert sent == [0, 0, 0, 1, 1, 1, 1, 1, 1]  # 8/64 a round: 4/8 rounds up to 1


def test_a_round_without_reports_leaves_the_model_alone() -> None:
    accumulator = begin()
    after = accumulator.apply()
    assert after.version == 1
    assert same(replace(after, version=0), accumulator.model)


@pytest.mark.parametrize("mode", ["bnn", "fsb"])
def test_a_state_survives_the_way_through_the_global_model(mode: str) -> None:
    state = random_state(mode, 3)
    model = GlobalModel.from_state(MODEL, mode, state)
    assert model.state() == state
    again = GlobalModel.from_tensors(MODEL, mode, 0, model.to_tensors())
    assert same(again, model)


def test_a_kept_weight_out_of_range_is_refused() -> None:
    tensors = GlobalModel.from_state(MODEL, "bnn", random_state("bnn", 3)).to_tensors()
    shape = tensors["layer0.latent.fixed"].shape
    wild = np.full(shape, 128 << FRACTION_BITS, "<u4").tobytes()
    tensors["layer0.latent.fixed"] = Tensor("U32", shape, wild)
    with pytest.raises(PayloadError, match="outside -127 to 127"):
        GlobalModel.from_tensors(MODEL, "bnn", 0, tensors)


def test_memory_does_not_grow_with_the_number_of_reports() -> None:
    accumulator = begin()
    update = random_update("bnn", "luq4", 1)
    for number in range(100):
        accumulator.fold(report(f"device-{number}", 3, update))
    gc.collect()
    tracemalloc.start()
    try:
        for number in range(MANY_REPORTS):
            accumulator.fold(report(f"device-{number}", 3, update))
        gc.collect()
        grown = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert accumulator.reports == 100 + MANY_REPORTS
    assert grown < ONE_PAGE
