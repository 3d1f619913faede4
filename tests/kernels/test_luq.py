"""LUQ, both as the gradients take it and as the uplink does: codes, expectation, error."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgetrain import _native
from edgetrain.reference.luq import luq_codes
from edgetrain.reference.random import Purpose, derive

DRAWS = 2000
# A standard normal exceeds this once in 1.7 million draws; the largest of some 5000 stays below.
LARGEST_Z = 5.0
# Mean of z over all elements: its standard error is 1/sqrt(elements), so this is 5 of them.
MEAN_Z = 5.0
# The published figures for a Gaussian and a Laplacian, and what 2^18 elements may stray.
NORMALISED_ERROR = {"gaussian": 0.0816, "laplace": 0.0848}
ERROR_TOLERANCE = 0.001
SLOPE_TOLERANCE = 0.003


def draw(name: str, shape: tuple[int, ...]) -> Any:
    """Return float32 samples of a distribution."""
    generator = np.random.default_rng(1)
    samples = {
        "gaussian": generator.standard_normal,
        "laplace": lambda size: generator.laplace(size=size),
        "lognormal": lambda size: generator.lognormal(size=size) * generator.choice([-1, 1], size),
    }[name](shape)
    return samples.astype(np.float32)


def quantise(x: Any, seed: int) -> Any:
    """Return the values that the codes of x stand for."""
    codes, alpha = luq_codes(x, derive(seed, 0, 0, Purpose.GRADIENT_CODES))
    return codes * np.float64(alpha)


def variance(x: Any) -> Any:
    """Return the closed form of the variance: (x - low)(high - x) between two codes."""
    alpha = np.abs(x).max() / 64
    scaled = np.abs(x).astype(np.float64) / alpha
    low = np.where(scaled < 1, 0, 2.0 ** np.floor(np.log2(np.maximum(scaled, 1))))
    high = np.where(scaled < 1, 1, 2 * low)
    return (scaled - low) * (high - scaled) * alpha**2


@pytest.mark.parametrize("extreme", [-1, 1])
def test_there_are_at_most_fifteen_codes_whichever_sign_is_extreme(extreme: int) -> None:
    x = draw("gaussian", (64, 64))
    x[3, 5] = extreme * 10
    codes, _ = luq_codes(x, (1, 2))
    found = set(np.unique(codes).tolist())
    assert found <= {0} | {sign * 2**n for sign in (-1, 1) for n in range(7)}
    assert codes[3, 5] == extreme * 64


@pytest.mark.parametrize("distribution", ["gaussian", "laplace", "lognormal"])
def test_the_expectation_is_the_value(distribution: str) -> None:
    x = draw(distribution, (50, 40))
    total = np.zeros(x.shape)
    for seed in range(DRAWS):
        total += quantise(x, seed)
    spread = np.sqrt(variance(x) / DRAWS)
    certain = spread == 0
    np.testing.assert_allclose((total / DRAWS)[certain], x[certain], rtol=1e-6)
    z = ((total / DRAWS - x) / np.where(certain, 1, spread))[~certain]
    assert np.abs(z).max() < LARGEST_Z
    assert abs(z.mean()) * np.sqrt(z.size) < MEAN_Z
    assert 0.95 < z.std() < 1.05


@pytest.mark.parametrize("distribution", NORMALISED_ERROR)
def test_the_error_is_the_published_one(distribution: str) -> None:
    x = draw(distribution, (512, 512))
    q = quantise(x, 3)
    error = ((q - x) ** 2).sum() / (x.astype(np.float64) ** 2).sum()
    assert error == pytest.approx(NORMALISED_ERROR[distribution], abs=3 * ERROR_TOLERANCE)
    slope = (q * x).sum() / (x.astype(np.float64) ** 2).sum()
    assert slope == pytest.approx(1, abs=SLOPE_TOLERANCE)


def test_the_mean_of_several_draws_divides_the_error() -> None:
    x = draw("gaussian", (512, 512))
    power = (x.astype(np.float64) ** 2).sum()
    for number, published in ((2, 0.0402), (4, 0.0204)):
        mean = np.mean([quantise(x, seed) for seed in range(number)], axis=0)
        assert ((mean - x) ** 2).sum() / power == pytest.approx(published, abs=2 * ERROR_TOLERANCE)


def test_nothing_becomes_nothing() -> None:
    codes, alpha = luq_codes(np.zeros((3, 4), np.float32), (1, 2))
    assert not codes.any()
    assert alpha == 0


def decode(codes: bytes, maximum: int, count: int) -> Any:
    """Return the differences that an uplink's codes stand for."""
    packed = np.frombuffer(codes, np.uint8)
    nibbles = np.stack([packed & 15, packed >> 4], 1).ravel()[:count].astype(np.int64)
    magnitude = ((1 << (nibbles & 7)) >> 1) * maximum / 64
    return np.where(nibbles & 8, -magnitude, magnitude)


@settings(max_examples=50)
@given(st.lists(st.tuples(st.integers(-127, 127), st.integers(-127, 127)), max_size=70))
def test_uplink_codes_bracket_every_difference(pairs: list[tuple[int, int]]) -> None:
    before = np.array([pair[0] for pair in pairs], np.int8)
    after = np.array([pair[1] for pair in pairs], np.int8)
    codes, maximum = _native.luq4_encode(before.tobytes(), after.tobytes(), 7)
    moved = after.astype(int) - before
    assert maximum == np.abs(moved).max(initial=0)
    value = decode(codes, maximum, len(pairs))
    unit = maximum / 64
    # The code's value is the next power of two units on either side of the difference.
    below = np.abs(moved) < unit
    assert np.all(np.abs(value[below]) <= unit)
    rest = ~below & (moved != 0)
    assert np.all(np.sign(value[rest]) == np.sign(moved[rest]))
    ratio = np.abs(value[rest]) / np.abs(moved[rest])
    assert np.all((ratio > 0.5) & (ratio < 2))


def test_the_expectation_of_an_uplink_code_is_the_difference() -> None:
    generator = np.random.default_rng(2)
    before = generator.integers(-127, 128, 3000).astype(np.int8)
    after = np.clip(before + generator.normal(0, 6, 3000).round(), -127, 127).astype(np.int8)
    moved = (after.astype(int) - before).astype(np.float32)
    total = np.zeros(3000)
    for key in range(DRAWS):
        codes, maximum = _native.luq4_encode(before.tobytes(), after.tobytes(), key << 20 | 5)
        total += decode(codes, maximum, 3000)
    spread = np.sqrt(variance(moved) / DRAWS)
    certain = spread < 1e-9
    np.testing.assert_array_equal((total / DRAWS)[certain], moved[certain])
    z = ((total / DRAWS - moved) / np.where(certain, 1, spread))[~certain]
    assert np.abs(z).max() < LARGEST_Z
    assert 0.95 < z.std() < 1.05
