"""Estimates: every part is one that can be named, and rates scale as physics says."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

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
from edgetrain.update import update_bytes

PAGE = 4096
SMALL = mlp(33, 3, (65, 64))
BASE = 10 * 2**20


def parts(expected: Estimate) -> dict[str, int]:
    return {part.name: part.bytes for part in expected.parts}


@pytest.mark.parametrize("mode", ["bnn", "fsb"])
def test_each_part_is_what_causes_it(mode: Mode) -> None:
    compiled = plan(SMALL, 16, mode)
    found = parts(estimate(compiled, Device(base_bytes=BASE), dataset_bytes=10_000))
    update = update_bytes(SMALL, mode, "luq4")
    assert found["worker with nothing to do"] == BASE
    assert found["arena"] == compiled.peak_bytes
    assert found["thread stacks"] == 0
    assert found["dataset pages"] == 3 * PAGE
    assert found["task's state"] == math.ceil(state_bytes(compiled) / PAGE) * PAGE
    assert found["update"] == math.ceil(update / PAGE) * PAGE


@pytest.mark.parametrize("mode", ["bnn", "fsb"])
def test_the_state_is_one_byte_a_trained_value_and_twelve_an_output(mode: Mode) -> None:
    compiled = plan(SMALL, 16, mode)
    values = sum(
        math.prod(shape)
        for name, (_, shape) in state_schema(SMALL, mode).items()
        if name.endswith((".latent", ".scale"))
    )
    assert state_bytes(compiled) == values + 12 * (65 + 64 + 3)


def test_a_codec_that_sends_more_needs_more() -> None:
    compiled, device = plan(mlp(784, 10, (64,)), 16), Device(base_bytes=BASE)
    lean, full = (estimate(compiled, device, codec=codec) for codec in ("luq4", "raw8"))
    assert lean.peak_bytes < full.peak_bytes


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
    for name, size in expected.parts:
        assert name in table
        assert f"{size:,}" in table
    assert f"{expected.peak_bytes:,}" in table
    assert table.count("modelled") == 2
