"""Readings and integrals: what is unknown stays unknown, and bounds hold what they claim."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgetrain.errors import ConfigError
from edgetrain.memory_profiler.energy.integral import PowerIntegral
from edgetrain.memory_profiler.energy.reading import SOURCES, Reading

TEN = Reading(10.0, 9.0, 12.0, "counter", "package", 1.0, "/sys/a", 3, 0.5)
ROUNDING = 1e-9
"""Share by which sums of a few hundred doubles may differ with their order."""


def test_a_reading_tells_everything_as_json_would() -> None:
    assert TEN.to_fields() == {
        "value": 10.0,
        "low": 9.0,
        "high": 12.0,
        "source": "counter",
        "scope": "package",
        "coverage": 1.0,
        "path": "/sys/a",
        "samples": 3,
        "period_s": 0.5,
        "unit": "J",
    }


def test_unknown_is_none_and_has_no_bounds() -> None:
    unknown = Reading.unknown("package", "/sys/a")
    assert (unknown.value, unknown.low, unknown.high) == (None, None, None)
    assert unknown.source == "none"
    assert unknown.interval is None
    assert unknown.coverage == 0


@pytest.mark.parametrize(
    "change",
    [
        {"value": 0.0, "low": 0.0},
        {"value": None},
        {"low": None},
        {"high": None},
        {"low": 11.0},
        {"high": 9.5},
        {"low": -1.0},
        {"high": math.inf},
        {"value": math.nan},
        {"source": "none"},
        {"source": "guessed"},
        {"scope": ""},
        {"coverage": 1.5},
        {"coverage": -0.1},
        {"coverage": math.nan},
        {"samples": -1},
        {"period_s": 0.0},
        {"period_s": math.inf},
        {"unit": "Wh"},
        {"value": None, "low": None, "high": None},
    ],
)
def test_a_reading_that_contradicts_itself_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="a reading of"):
        replace(TEN, **change)


def test_spans_of_one_scope_add_up() -> None:
    later = Reading(4.0, 3.0, 5.0, "sampled", "package", 0.5, "/sys/b", 9, 0.1)
    both = TEN + later
    assert (both.value, both.low, both.high) == (14.0, 12.0, 17.0)
    assert both.source == "sampled"
    assert both.coverage == 0.5
    assert both.path == "/sys/a, /sys/b"
    assert both.samples == 12
    assert both.period_s == pytest.approx((3 * 0.5 + 9 * 0.1) / 12)
    assert (TEN + TEN).path == "/sys/a"


def test_scopes_are_never_added() -> None:
    with pytest.raises(ConfigError, match="package and board"):
        _ = TEN + replace(TEN, scope="board")


def test_what_is_added_to_the_unknown_is_unknown() -> None:
    unknown = Reading.unknown("package", "/sys/a", 1)
    for total in (TEN + unknown, unknown + TEN):
        assert total.value is None
        assert total.source == "none"
        assert total.samples == 4


@pytest.mark.parametrize("source", [source for source in SOURCES if source != "none"])
def test_a_sum_is_no_better_than_its_weakest_part(source: Any) -> None:
    weak = replace(TEN, source=source)
    assert (TEN + weak).source == (weak + TEN).source == source


# Integrals of power.


def test_the_trapezoid_of_a_ramp_is_exact() -> None:
    integral = PowerIntegral(begun=0.0)
    for tick in range(11):
        integral.add(tick / 10, float(tick))
    low, high = integral.bounds
    assert integral.value == pytest.approx(5.0)
    assert low == pytest.approx(4.5)
    assert high == pytest.approx(5.5)
    assert integral.coverage == pytest.approx(1.0)
    assert integral.period == pytest.approx(0.1)


def test_a_gap_lowers_coverage_and_raises_the_upper_bound_alone() -> None:
    integral = PowerIntegral(begun=0.0, longest_gap=0.25)
    for moment, watts in ((0.0, 2.0), (0.2, 2.0), (0.8, 2.0), (1.0, 4.0)):
        integral.add(moment, watts)
    assert integral.value == pytest.approx(0.4 + 0.6)
    assert integral.coverage == pytest.approx(0.4)
    assert integral.bounds == pytest.approx((0.8, 0.4 + 0.8 + 0.6 * 4.0))


def test_a_sample_that_failed_is_a_gap_if_the_next_comes_late() -> None:
    integral = PowerIntegral(begun=0.0, longest_gap=0.25)
    integral.add(0.0, 2.0)
    integral.add(0.1, None)
    integral.add(0.2, 2.0)
    assert integral.coverage == pytest.approx(1.0)
    integral.add(0.4, None)
    assert integral.samples == 2
    assert integral.coverage == pytest.approx(0.5)


def test_nothing_sampled_is_nothing_known() -> None:
    integral = PowerIntegral(begun=3.0)
    assert integral.coverage == 0
    assert integral.period is None
    integral.add(4.0, None)
    integral.add(5.0, 3.0)
    assert integral.value == 0
    assert integral.coverage == 0


steps = st.lists(
    st.tuples(st.floats(1e-3, 1.0), st.one_of(st.none(), st.floats(0.1, 50.0))),
    min_size=1,
    max_size=40,
)


@given(steps)
def test_bounds_hold_any_power_that_stays_between_its_samples(
    steps: list[tuple[float, float | None]],
) -> None:
    """The power that jumps to the next sample at once, or at the last moment, is inside."""
    integral = PowerIntegral(begun=0.0)
    samples, now = list[tuple[float, float]](), 0.0
    for gap, watts in steps:
        now += gap
        integral.add(now, watts)
        if watts is not None:
            samples.append((now, watts))
    low, high = integral.bounds
    assert low <= integral.value <= high
    assert 0 <= integral.coverage <= 1
    pairs = list(pairwise(samples))
    early = sum((b[0] - a[0]) * b[1] for a, b in pairs)
    late = sum((b[0] - a[0]) * a[1] for a, b in pairs)
    for truth in (early, late):
        assert low <= truth * (1 + ROUNDING)
        assert truth <= high * (1 + ROUNDING)
