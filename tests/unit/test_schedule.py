"""Schedules: where they start and end, that they fall, and that warm-up rises to them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgetrain.config import TrainingConfig
from edgetrain.errors import ConfigError, ModelError
from edgetrain.schedule import FLOOR, SCHEDULES, check_schedule, decay


@given(
    st.sampled_from(list(SCHEDULES)),
    st.integers(1, 500),
    st.integers(0, 499),
    st.floats(0.001, 1),
)
def test_a_schedule_rises_in_the_warmup_and_falls_after_it(
    schedule: str, span: int, warmup: int, floor: float
) -> None:
    warmup %= span
    factors = [decay(schedule, step, span, warmup=warmup, floor=floor) for step in range(span + 9)]
    assert factors[warmup] == 1.0
    assert factors[:warmup] == sorted(factors[:warmup])
    assert all(0 < factor < 1 for factor in factors[:warmup])
    assert factors[warmup:] == sorted(factors[warmup:], reverse=True)
    assert min(factors[warmup:]) >= min(floor, 1.0)
    ends = 1.0 if schedule == "constant" else floor
    assert factors[span] == pytest.approx(ends)


def test_the_values_are_those_of_the_formulas() -> None:
    assert [decay("linear", step, 4) for step in range(6)] == [1, 0.75, 0.5, 0.25, FLOOR, FLOOR]
    assert [decay("constant", step, 2) for step in range(4)] == [1, 1, 1, 1]
    halves = [decay("cosine", step, 4, floor=0) for step in range(5)]
    assert halves == pytest.approx([1, 0.85355339, 0.5, 0.14644661, 0])
    assert [decay("linear", step, 6, warmup=3) for step in range(3)] == [0.25, 0.5, 0.75]


@pytest.mark.parametrize(
    ("schedule", "span", "warmup", "message"),
    [
        ("lineal", 3, 0, "unknown schedule 'lineal': choose constant, linear or cosine"),
        ("linear", 3, 3, "a warm-up of 3 epochs does not fit a schedule of 3"),
        ("linear", 3, -0.5, "a warm-up of -0.5 epochs"),
        ("linear", 3, float("nan"), "a warm-up of nan epochs"),
    ],
)
def test_what_cannot_run_is_refused(schedule: str, span: int, warmup: float, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        check_schedule(schedule, span, warmup)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_a_fleet_takes_every_schedule_over_its_rounds(schedule: str) -> None:
    fleet = TrainingConfig(rounds=10, learning_rate=0.04, schedule=schedule, warmup=2)
    rates = [fleet.rate(round) for round in range(10)]
    assert rates == [
        0.04 * decay(schedule, round, 10, warmup=2, floor=fleet.final_rate) for round in range(10)
    ]


def test_a_fleet_refuses_an_unknown_schedule_and_a_warmup_past_its_rounds() -> None:
    with pytest.raises(ConfigError, match="constant, linear"):
        TrainingConfig(schedule="steps")
    with pytest.raises(ConfigError, match="warm-up of 10 rounds does not fit a schedule of 10"):
        TrainingConfig(rounds=10, warmup=10)
