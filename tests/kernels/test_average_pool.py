"""Averages: the oracle by differences, and the engine by the oracle."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgetrain import _native
from edgetrain.errors import ModelError
from edgetrain.model import Model
from edgetrain.ops import (
    AvgPool,
    BatchNorm,
    Conv1d,
    Conv2d,
    GlobalAveragePool,
    Linear,
    Op,
    Or,
    Sign,
    Signal,
    SoftmaxCrossEntropy,
)
from edgetrain.ops.weights import Training
from edgetrain.reference.average_pool import spread, spread_windows, sum_pixels, sum_windows
from tests.kernels.test_engine_equals_reference import assert_same_state, data, decode, run_both

ISAS = _native.supported_isas()
CLASSES = 5


def test_a_window_is_summed_and_every_place_of_it_gets_the_gradient() -> None:
    y = np.arange(15).reshape(1, 3, 5, 1)
    sums = sum_windows(y, (2, 2))
    np.testing.assert_array_equal(sums[0, :, :, 0], [[0 + 1 + 5 + 6, 2 + 3 + 7 + 8]])
    back = spread_windows(np.array([[3, -4]])[None, :, :, None], (2, 2), y.shape[1:])
    expected = [[3, 3, -4, -4, 0], [3, 3, -4, -4, 0], [0, 0, 0, 0, 0]]
    np.testing.assert_array_equal(back[0, :, :, 0], expected)


@pytest.mark.parametrize("window", [(2, 2), (1, 2)])
def test_gradients_of_sums_are_finite_differences(window: tuple[int, int]) -> None:
    draws = np.random.default_rng(3)
    y = draws.integers(-50, 50, (2, 5, 7, 3))
    demand = draws.integers(-9, 9, sum_windows(y, window).shape)
    gradient = spread_windows(demand, window, y.shape[1:])
    before = (demand * sum_windows(y, window)).sum()
    whole = draws.integers(-9, 9, (2, 1, 1, 3))
    share = spread(whole, y.shape[1:])
    for flat in range(0, y.size, 7):
        at = np.unravel_index(flat, y.shape)
        y[at] += 1
        assert (demand * sum_windows(y, window)).sum() - before == gradient[at]
        y[at] -= 1
        change = np.zeros_like(y)
        change[at] = 1
        assert (whole * (sum_pixels(y + change) - sum_pixels(y))).sum() == share[at]


def model_of(
    shape: tuple[int, ...], first: Op, second: Op, *ends: Op, last: Training = "int8"
) -> Model:
    """Return a model of two convolutions with a pool after each, summed over its pixels."""
    opening = (first, AvgPool(), BatchNorm(), Sign())
    closing = (second, AvgPool(), BatchNorm(), Sign(), *ends, GlobalAveragePool())
    end = (Linear(CLASSES, last), BatchNorm(), SoftmaxCrossEntropy())
    return Model(shape, (*opening, *closing, *end))


def compare(model: Model, mode: str, count: int, **choices: int) -> Any:
    """Train engine and oracle, and compare all that they have learnt."""
    x, y = data(count, model.input_features, CLASSES)
    trainer, network = run_both(model, mode, x, y, **choices)
    assert_same_state(trainer, network)
    for index, trace in enumerate(network.traces if choices["batch"] == count else ()):
        codes = decode(trainer.tensor(f"layer{index}.codes"), *trace.signs.shape)
        np.testing.assert_array_equal(codes, trace.codes, err_msg=str(index))
    return trainer


@pytest.fixture(params=ISAS)
def isa(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Force each instruction set in turn."""
    monkeypatch.setenv("EDGETRAIN_ISA", request.param)
    return str(request.param)


@pytest.mark.parametrize("mode", ["bnn", "fsb"])
@pytest.mark.parametrize("last", ["int8", "bnn", "auto"])
def test_a_step_of_images_is_the_oracles(isa: str, mode: str, last: Training) -> None:
    model = model_of((13, 10, 3), Conv2d(32, training="bnn"), Conv2d(64), last=last)
    assert compare(model, mode, 6, batch=6).isa == isa


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_a_run_of_sequences_is_the_oracles(isa: str, threads: int) -> None:
    model = model_of((41, 4), Conv1d(32, 5, training="int8"), Conv1d(37, 4))
    trainer = compare(model, "bnn", 9, batch=4, epochs=2, threads=threads)
    assert trainer.isa == isa


def test_sums_over_joined_bits_are_the_oracles(isa: str) -> None:
    second = (Conv2d(32, 3), BatchNorm(), Sign(), Or())
    third = (Conv2d(32, 3), BatchNorm(), Sign(), Or(2), GlobalAveragePool())
    end = (Linear(CLASSES, "int8"), BatchNorm(), SoftmaxCrossEntropy())
    first = (Conv2d(32, training="bnn"), BatchNorm(), Sign())
    model = Model((6, 5, 2), (*first, *second, *third, *end))
    assert compare(model, "bnn", 7, batch=7).isa == isa


def test_dense_layers_before_and_after_a_sum_are_the_oracles(isa: str) -> None:
    """The sum over a single pixel is its bits, as bytes."""
    rows = (Linear(33), BatchNorm(), Sign(), GlobalAveragePool())
    model = Model(
        20,
        (*rows, Linear(9), BatchNorm(), Sign(), *(Linear(5), BatchNorm(), SoftmaxCrossEntropy())),
    )
    assert compare(model, "bnn", 9, batch=9).isa == isa


@settings(max_examples=25)
@given(
    height=st.integers(4, 11),
    width=st.integers(4, 11),
    kernel=st.integers(1, 4),
    mode=st.sampled_from(("bnn", "fsb")),
    batch=st.integers(1, 5),
    threads=st.integers(1, 3),
)
def test_any_image_is_the_oracles(
    height: int, width: int, kernel: int, mode: str, batch: int, threads: int
) -> None:
    model = model_of((height, width, 2), Conv2d(32, kernel, training="bnn"), Conv2d(32, kernel))
    compare(model, mode, 6, batch=batch, threads=threads)


def test_an_average_has_a_window_of_two_and_an_image_that_fits_a_byte() -> None:
    with pytest.raises(ModelError, match="avg_pool has windows of size 3: choose 2"):
        AvgPool(3)
    with pytest.raises(ModelError, match=r"12 x 11 pixels, but their sum fits an int8 up to 127"):
        GlobalAveragePool().flow(Signal(12, 11, 32, "bits"))
    assert GlobalAveragePool().flow(Signal(1, 127, 40, "bits")) == Signal(1, 1, 40, "int8")
    pooled = (Conv2d(32, training="int8"), BatchNorm(), Sign(), GlobalAveragePool())
    with pytest.raises(ModelError, match="conv2d cannot follow global_average_pool"):
        Model((4, 4, 1), (*pooled, Conv2d(32, 1), BatchNorm(), Sign()))
