"""Selection is a draw that the seed and the round decide, and nothing else."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgetrain.coordinator.select import select

NAMES = [f"device-{number}" for number in range(20)]
ROUNDS = 2000
FIVE_DEVIATIONS = 5 * (ROUNDS * 0.25 * 0.75) ** 0.5
"""A fair draw strays further from its mean in one of two million cases."""


@given(st.permutations(NAMES), st.integers(0, 30), st.integers(0, 2**31), st.integers(0, 10**6))
def test_neither_order_nor_repetition_matters(
    names: list[str], count: int, seed: int, round: int
) -> None:
    chosen = select(NAMES, count, seed, round)
    assert select(names + names[:3], count, seed, round) == chosen
    assert len(chosen) == len(set(chosen)) == min(count, 20)
    assert set(chosen) <= set(NAMES)


@pytest.mark.parametrize("change", [{"seed": 1}, {"round": 1}])
def test_another_seed_or_round_draws_anew(change: dict[str, int]) -> None:
    settings = {"seed": 0, "round": 0}
    assert select(NAMES, 10, **settings) != select(NAMES, 10, **{**settings, **change})


def test_everybody_has_the_same_chance() -> None:
    counts = Counter(name for round in range(ROUNDS) for name in select(NAMES, 5, 3, round))
    for name in NAMES:
        assert abs(counts[name] - 0.25 * ROUNDS) < FIVE_DEVIATIONS


def test_a_device_that_joins_takes_at_most_one_place() -> None:
    before, after = select(NAMES, 5, 0, 7), select([*NAMES, "new"], 5, 0, 7)
    assert len(set(before) - set(after)) <= 1


def test_all_of_one_and_of_none() -> None:
    assert select(["only"], 3, 0, 0) == ("only",)
    assert select([], 1, 0, 0) == ()
