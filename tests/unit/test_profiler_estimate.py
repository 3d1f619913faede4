"""Estimates: every part is one that can be named, and rates scale as physics says."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgetrain.errors import ConfigError
from edgetrain.memory_profiler.device import Device
from edgetrain.memory_profiler.estimate import (
    OVER,
    RATE_ERRORS,
    UNDER,
    Estimate,
    estimate,
    state_bytes,
)
from edgetrain.models import mlp
from edgetrain.ops.op import Mode
from edgetrain.planner import plan
from edgetrain.schema import state_schema
from edgetrain.task import Kind

PAGE = 4096
MODES: tuple[Mode, ...] = ("bnn", "fsb")
KINDS: tuple[Kind, ...] = ("train", "evaluate")
SMALL = mlp(33, 3, (65, 64))
WIDE = mlp(784, 10, (256, 256))
ALL_AUTO = mlp(784, 10, (128,), last="auto")
BASE = 10 * 2**20


def pages(count: int) -> int:
    return math.ceil(count / PAGE) * PAGE


def parts(expected: Estimate) -> dict[str, int]:
    return {part.name: part.bytes for part in expected.parts}


@pytest.mark.parametrize("mode", MODES)
def test_each_part_of_training_is_what_causes_it(mode: Mode) -> None:
    compiled = plan(WIDE, 400, mode)
    found = parts(estimate(compiled, Device(base_bytes=BASE), dataset_bytes=10_000))
    assert found == {
        "worker and its code": BASE,
        "arena": compiled.peak_bytes,
        "thread stacks": 0,
        "dataset, mapped": 3 * PAGE,
        "trained state": pages(state_bytes(compiled)),
    }


def test_where_encoding_takes_more_than_training_the_arena_is_gone_by_then() -> None:
    compiled, device = plan(ALL_AUTO, 1), Device(base_bytes=BASE)
    expected = estimate(compiled, device, dataset_bytes=10_000)
    # The codes of both layers, 4 bits a weight, and the encoder's copy of the larger ones.
    codes = (784 * 128 // 2 + 4, 128 * 10 // 2 + 4)
    state = pages(state_bytes(compiled))
    assert parts(expected) == {
        "worker and its code": BASE,
        "dataset, mapped": 3 * PAGE,
        "task's state, mapped": state,
        "trained state": state,
        "update": pages(2 * codes[0]),
    }
    # Private memory is held to its own worst moment, which is as the arena is read out.
    assert expected.private_bytes == compiled.peak_bytes + state


@pytest.mark.parametrize(("mode", "codec"), [("fsb", "luq4"), ("bnn", "raw8")])
def test_an_update_that_travels_as_it_is_takes_nothing_of_its_own(mode: Mode, codec: str) -> None:
    device = Device(base_bytes=BASE)
    found = estimate(plan(ALL_AUTO, 1, mode), device, codec=codec)
    assert parts(found).get("update", 0) == 0


def test_while_training_the_order_of_many_examples_may_outweigh_a_small_update() -> None:
    examples = 100_000
    compiled = plan(SMALL, 16, micro_batch=2)
    found = parts(estimate(compiled, Device(base_bytes=BASE), dataset_bytes=examples * (33 + 1)))
    assert found["order of the examples"] == pages(4 * examples)
    assert "update" not in found


def test_a_task_that_only_evaluates_holds_its_state_or_its_data_beside_the_arena() -> None:
    compiled, device = plan(WIDE, 16), Device(base_bytes=BASE)
    few, many = (
        estimate(compiled, device, dataset_bytes=size, kind="evaluate")
        for size in (PAGE, 100 * state_bytes(compiled))
    )
    running = ("worker and its code", "arena", "thread stacks")
    assert set(parts(few)) == {*running, "task's state, mapped"}
    assert set(parts(many)) == {*running, "dataset, mapped"}
    assert few.private_bytes == many.private_bytes == compiled.peak_bytes


@pytest.mark.parametrize("mode", ["bnn", "fsb"])
def test_the_state_is_one_byte_a_trained_value_and_twelve_an_output(mode: Mode) -> None:
    compiled = plan(SMALL, 16, mode)
    values = sum(
        math.prod(shape)
        for name, (_, shape) in state_schema(SMALL, mode).items()
        if name.endswith((".latent", ".scale"))
    )
    assert state_bytes(compiled) == values + 12 * (65 + 64 + 3)


def test_an_unknown_codec_is_refused() -> None:
    with pytest.raises(ConfigError, match="luq4"):
        estimate(plan(SMALL, 16), Device(base_bytes=BASE), codec="morse")


def test_memory_is_bounded_as_the_gate_says() -> None:
    expected = estimate(plan(SMALL, 16), Device(base_bytes=BASE))
    assert expected.peak_bytes == sum(parts(expected).values())
    assert expected.peak_bytes == pytest.approx(expected.memory.low * (1 + OVER))
    assert expected.peak_bytes == pytest.approx(expected.memory.high / (1 + UNDER))
    assert expected.peak_bytes in expected.memory


def test_threads_cost_their_stacks() -> None:
    device = Device(base_bytes=BASE, threads=4)
    one, four = (parts(estimate(plan(SMALL, 16, threads=n), device)) for n in (1, 4))
    assert one["thread stacks"] == 0
    assert four["thread stacks"] > 0


def test_what_nobody_knows_is_none() -> None:
    compiled = plan(SMALL, 16)
    blind = estimate(compiled, Device(base_bytes=BASE))
    assert blind.seconds is None
    assert blind.energy is None
    timed = estimate(compiled, Device(base_bytes=BASE, examples_per_second=10))
    assert timed.seconds is not None
    assert timed.energy is None
    assert "unknown" in timed.explain()


@given(st.integers(1, 10**6), st.floats(0.1, 1e6), st.sampled_from(sorted(RATE_ERRORS)))
def test_time_is_examples_over_rate_within_the_error_of_its_source(
    examples: int, rate: float, source: str
) -> None:
    device = Device(base_bytes=BASE, examples_per_second=rate, watts=2.0, source=source)
    expected = estimate(plan(SMALL, 16), device, examples=examples)
    assert expected.seconds is not None
    assert expected.energy is not None
    nominal, error = examples / rate, 1 + RATE_ERRORS[source]
    assert expected.seconds.low == pytest.approx(nominal / error)
    assert expected.seconds.high == pytest.approx(nominal * error)
    assert expected.energy == expected.seconds.scaled(2.0)
    assert expected.source == source


def test_operations_count_for_every_model_and_micro_batch_alike() -> None:
    device = Device(base_bytes=BASE, operations_per_second=1e6, examples_per_second=1.0)
    small, large = (
        estimate(plan(model, 16), device, examples=100).seconds
        for model in (SMALL, mlp(33, 3, (130, 128)))
    )
    halved = estimate(plan(SMALL, 16, micro_batch=8), device, examples=100).seconds
    assert small
    assert large
    assert large.middle > 2 * small.middle
    assert halved == small


def test_idle_cores_widen_the_interval_upwards() -> None:
    device = Device(base_bytes=BASE, examples_per_second=10, threads=4)
    one, four = (estimate(plan(SMALL, 16, threads=n), device).seconds for n in (1, 4))
    assert one
    assert four
    assert one.low == four.low
    assert one.high == pytest.approx(4 * four.high)


def test_one_batch_unless_told_otherwise() -> None:
    assert estimate(plan(SMALL, 16), Device(base_bytes=BASE)).examples == 16


def test_the_table_adds_up_and_names_the_source() -> None:
    device = Device(base_bytes=BASE, examples_per_second=10, watts=1)
    expected = estimate(plan(SMALL, 16), device)
    table = expected.explain()
    for part in expected.parts:
        assert part.name in table
        assert f"{part.bytes:,}" in table
    assert f"{expected.peak_bytes:,}" in table
    assert table.count("modelled") == 2
