"""Budgets and intervals: what people write is what is meant, and nonsense is refused."""

from __future__ import annotations

import math
from contextlib import suppress
from dataclasses import FrozenInstanceError

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgetrain.errors import ConfigError
from edgetrain.memory_profiler.budget import Budget, Interval, format_joules, format_seconds
from edgetrain.memory_profiler.device import Device


def test_a_budget_reads_units_and_leaves_out_what_is_not_limited() -> None:
    budget = Budget.parse("48MiB", "20J")
    assert budget == Budget(memory=48 * 2**20, energy=20.0, seconds=None)
    assert budget.describe() == "48.0 MiB, 20 J"
    assert Budget().describe() == "no limit"


def test_a_budget_reads_bare_numbers_as_bytes_joules_and_seconds() -> None:
    assert Budget.parse(2**20, 5, 90.0) == Budget(2**20, 5.0, 90.0)
    assert Budget.parse("1MiB", "1.5kJ", "2min") == Budget(2**20, 1500.0, 120.0)


@pytest.mark.parametrize(
    "written",
    [
        {"memory": "plenty"},
        {"memory": 0},
        {"memory": 1.5},
        {"energy": "20 MJ"},
        {"energy": "-3J"},
        {"energy": math.inf},
        {"seconds": ""},
        {"seconds": "nan"},
        {"seconds": True},
    ],
)
def test_what_is_no_quantity_is_refused_by_the_name_of_its_limit(
    written: dict[str, str | float],
) -> None:
    with pytest.raises(ConfigError, match=f"budget's {next(iter(written))} is .*: ."):
        Budget.parse(**written)  # type: ignore[arg-type]


@given(st.text(max_size=12))
def test_any_text_is_a_quantity_or_a_clear_error(text: str) -> None:
    with suppress(ConfigError):
        assert (Budget.parse(memory=text).memory or 0) > 0
    with suppress(ConfigError):
        assert (Budget.parse(energy=text).energy or 0) > 0


@pytest.mark.parametrize("limits", [{"memory": 0}, {"energy": -1.0}, {"seconds": math.nan}])
def test_a_budget_that_allows_nothing_is_refused(limits: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=next(iter(limits))):
        Budget(**limits)  # type: ignore[arg-type]


def test_a_budget_does_not_change() -> None:
    with pytest.raises(FrozenInstanceError):
        Budget().memory = 1  # type: ignore[misc]


@given(st.floats(0, 1e300), st.floats(0, 1e300), st.floats(0, 1e3))
def test_an_interval_holds_its_bounds_and_its_middle(a: float, b: float, factor: float) -> None:
    interval = Interval(min(a, b), max(a, b))
    assert a in interval
    assert b in interval
    assert interval.middle in interval
    assert interval.scaled(factor).low <= interval.scaled(factor).high


@pytest.mark.parametrize("bounds", [(2.0, 1.0), (-1.0, 1.0), (0.0, math.inf), (math.nan, 1.0)])
def test_what_is_no_interval_is_refused(bounds: tuple[float, float]) -> None:
    with pytest.raises(ConfigError, match="interval"):
        Interval(*bounds)


@pytest.mark.parametrize(
    "figures",
    [{"memory": 0}, {"watts": -1.0}, {"threads": 0}, {"examples_per_second": math.inf}],
)
def test_a_device_with_an_impossible_figure_is_refused(figures: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=rf"'pi'.*{next(iter(figures))}"):
        Device("pi", **figures)  # type: ignore[arg-type]


def test_a_device_says_where_its_figures_come_from() -> None:
    assert Device("pi").source == "modelled"
    with pytest.raises(ConfigError, match="guessed"):
        Device("pi", source="guessed")


def test_quantities_are_shown_in_units_people_read() -> None:
    assert [format_joules(j) for j in (0.5, 20, 1500)] == ["0.5 J", "20 J", "1.5 kJ"]
    assert [format_seconds(s) for s in (0.25, 90, 150)] == ["0.25 s", "90 s", "2.5 min"]
