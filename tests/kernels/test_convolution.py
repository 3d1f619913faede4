"""Convolutions: the oracle is true by brute force, and the engine gives the oracle's bits."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgetrain import _native
from edgetrain.model import Model
from edgetrain.models import har_cnn
from edgetrain.ops import (
    BatchNorm,
    Conv1d,
    Conv2d,
    Flatten,
    Linear,
    MaxPool,
    Op,
    Sign,
    Signal,
    SoftmaxCrossEntropy,
)
from edgetrain.ops.conv import Conv
from edgetrain.planner import plan
from edgetrain.reference.convolution import ConvWeights
from edgetrain.reference.max_pool import max_pool, unpool
from edgetrain.train import Trainer
from tests.kernels.test_engine_equals_reference import (
    assert_same_state,
    data,
    decode,
    run_both,
    unpack,
)

ISAS = _native.supported_isas()
CLASSES = 5


def draw(seed: int = 0) -> np.random.Generator:
    """Return draws that never change."""
    return np.random.default_rng(seed)


def weights_of(op: Conv, source: Signal, mode: str, seed: int = 3) -> ConvWeights:
    """Return a convolution with a state of many values."""
    weights = ConvWeights.initial(op, source, mode, seed=seed, layer=0)
    if weights.mode == "fsb":
        weights.stored = draw(seed).integers(0, 256, weights.stored.shape)
    return weights


def direct(x: Any, weights: Any, stride: int, pads: tuple[int, int], out: tuple[int, int]) -> Any:
    """Return a convolution number by number, with tests in place of padding."""
    outputs, rows, columns, _ = weights.shape
    y = np.zeros((len(x), *out, outputs), np.int64)
    for i, row, column in np.ndindex(len(x), *out):
        for tap_row, tap_column in np.ndindex(rows, columns):
            at = row * stride + tap_row - pads[0], column * stride + tap_column - pads[1]
            if 0 <= at[0] < x.shape[1] and 0 <= at[1] < x.shape[2]:
                y[i, row, column] += weights[:, tap_row, tap_column] @ x[i, at[0], at[1]]
    return y


GEOMETRIES = tuple(product((1, 2, 3, 5, 7), (1, 2), ("same", "valid")))


@pytest.mark.parametrize(("kernel", "stride", "padding"), GEOMETRIES)
@pytest.mark.parametrize(("height", "width"), [(7, 8), (9, 7)])
def test_the_oracle_is_the_direct_convolution(
    kernel: int, stride: int, padding: Any, height: int, width: int
) -> None:
    source = Signal(height, width, 3, "int8")
    op = Conv2d(4, kernel, stride, padding, "int8")
    weights = weights_of(op, source, "bnn")
    x = draw().integers(-128, 128, (2, height, width, 3))
    # TensorFlow's rule, written once more: the odd zero goes after the image.
    sizes, pads = [], []
    for size in (height, width):
        out = -(-size // stride) if padding == "same" else (size - kernel + stride) // stride
        missing = max((out - 1) * stride + kernel - size, 0) if padding == "same" else 0
        sizes.append(out)
        pads.append(missing // 2)
    expected = direct(x, weights.weights(), stride, (pads[0], pads[1]), (sizes[0], sizes[1]))
    np.testing.assert_array_equal(weights.forward(x), expected)


@pytest.mark.parametrize(("kernel", "stride", "padding"), GEOMETRIES)
@pytest.mark.parametrize(("mode", "kind"), [("int8", "int8"), ("fsb", "bits")])
def test_gradients_are_finite_differences(
    kernel: int, stride: int, padding: Any, mode: Any, kind: Any
) -> None:
    source = Signal(7, 8, 32 if kind == "bits" else 3, kind)
    op = Conv2d(3, kernel, stride, padding, mode)
    weights, draws = weights_of(op, source, "bnn"), draw(kernel)
    x = draws.choice([-1, 1], (2, source.height, source.width, source.channels))
    demand = draws.integers(-64, 65, weights.forward(x).shape)
    before = (demand * weights.forward(x)).sum()
    # y is linear in x and in the state, so a difference of one whole level is exact.
    gradient = weights.input_gradient(demand)
    for flat in draws.choice(x.size, 40, replace=False):
        at = np.unravel_index(flat, x.shape)
        x[at] += 1
        assert (demand * weights.forward(x)).sum() - before == gradient[at]
        x[at] -= 1
    gradient = weights.weight_gradient(demand, x)
    assert gradient.shape == weights.stored.shape
    for flat in draws.choice(weights.stored.size, min(40, weights.stored.size), replace=False):
        at = np.unravel_index(flat, weights.stored.shape)
        weights.stored[at] += 1
        assert (demand * weights.forward(x)).sum() - before == gradient[at]
        weights.stored[at] -= 1


def test_a_pools_gradient_goes_to_the_first_maximum_alone() -> None:
    y = np.array([[1, 5, 2, 2, 9], [5, 0, 2, 2, 9], [7, 7, 7, 7, 7]])[None, :, :, None]
    maxima, places = max_pool(y, (2, 2))
    np.testing.assert_array_equal(maxima[0, :, :, 0], [[5, 2]])
    np.testing.assert_array_equal(places[0, :, :, 0], [[1, 0]])
    back = unpool(np.array([[3, -4]])[None, :, :, None], places, (2, 2), y.shape[1:])
    expected = np.zeros((3, 5), int)
    expected[0, 1], expected[0, 2] = 3, -4
    np.testing.assert_array_equal(back[0, :, :, 0], expected)


def test_a_sequence_is_pooled_in_pairs() -> None:
    y = np.array([4, 4, -3, -2, 8])[None, None, :, None]
    maxima, places = max_pool(y, (1, 2))
    np.testing.assert_array_equal(maxima.ravel(), [4, -2])
    np.testing.assert_array_equal(places.ravel(), [0, 1])
    back = unpool(np.array([1, 2]).reshape(1, 1, 2, 1), places, (1, 2), y.shape[1:])
    np.testing.assert_array_equal(back.ravel(), [1, 0, 0, 2, 0])


def block(weights: Op, pool: bool = False) -> tuple[Op, ...]:
    """Return a hidden block."""
    return (weights, *((MaxPool(),) if pool else ()), BatchNorm(), Sign())


def head() -> tuple[Op, ...]:
    """Return what ends a model."""
    return (Flatten(), Linear(CLASSES, "int8"), BatchNorm(), SoftmaxCrossEntropy())


def convolutional(
    shape: tuple[int, ...], first: Conv, second: Conv, pools: tuple[bool, bool] = (False, False)
) -> Model:
    """Return a model of two convolutions, the second over signs, and a dense layer."""
    return Model(shape, (*block(first, pools[0]), *block(second, pools[1]), *head()))


def compare(
    model: Model, mode: str, count: int, *, batch: int, epochs: int = 1, threads: int = 1
) -> tuple[Trainer, Any]:
    """Train engine and oracle, and compare all that they have learnt."""
    x, y = data(count, model.input_features, CLASSES)
    trainer, network = run_both(model, mode, x, y, batch=batch, epochs=epochs, threads=threads)
    assert_same_state(trainer, network)
    return trainer, network


@pytest.fixture(params=ISAS)
def isa(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Force each instruction set in turn."""
    monkeypatch.setenv("EDGETRAIN_ISA", request.param)
    return str(request.param)


@pytest.mark.parametrize("mode", ["bnn", "fsb"])
@pytest.mark.parametrize("pools", [(False, False), (True, False), (False, True), (True, True)])
def test_every_tensor_of_a_step_is_the_oracles(isa: str, mode: str, pools: Any) -> None:
    model = convolutional((9, 11, 3), Conv2d(32, training="bnn"), Conv2d(64), pools)
    trainer, network = compare(model, mode, 6, batch=6)
    assert trainer.isa == isa
    for index, trace in enumerate(network.traces):
        rows, channels = trace.signs.shape
        signs = unpack(trainer.tensor(f"layer{index}.sign"), rows, channels)
        np.testing.assert_array_equal(signs, trace.signs)
        if trace.mask is not None:
            mask = unpack(trainer.tensor(f"layer{index}.mask"), rows, channels)
            np.testing.assert_array_equal(mask, trace.mask)
        codes = decode(trainer.tensor(f"layer{index}.codes"), rows, channels)
        np.testing.assert_array_equal(codes, trace.codes)
        if trace.places is not None:
            # Two planes of bits: the low and the high bit of a place.
            planes = trainer.tensor(f"layer{index}.argument")
            half = len(planes) // 2
            low, high = unpack(planes[:half], rows, channels), unpack(planes[half:], rows, channels)
            np.testing.assert_array_equal(low + 2 * high, trace.places.reshape(rows, channels))


@pytest.mark.parametrize("mode", ["bnn", "fsb"])
@pytest.mark.parametrize(("kernel", "stride", "padding"), GEOMETRIES)
def test_every_geometry_is_the_oracles(
    isa: str, mode: str, kernel: int, stride: int, padding: Any
) -> None:
    # The same geometry over data and over signs: the flattened signs need whole words.
    over_data = Conv2d(32, kernel, stride, padding, "int8" if kernel % 2 else "bnn")
    size = 22 if padding == "valid" else 6
    model = convolutional(
        (size, size + 1, 2), over_data, Conv2d(32, kernel, stride, padding), (False, kernel == 3)
    )
    trainer, _ = compare(model, mode, 4, batch=3)
    assert trainer.isa == isa


@pytest.mark.parametrize("mode", ["bnn", "fsb"])
@pytest.mark.parametrize(("kernel", "stride", "padding"), GEOMETRIES)
def test_every_sequence_is_the_oracles(
    isa: str, mode: str, kernel: int, stride: int, padding: Any
) -> None:
    model = convolutional(
        (27, 3),
        Conv1d(64, kernel, 1, padding, "bnn"),
        Conv1d(32, kernel, stride, padding),
        (False, True),
    )
    trainer, _ = compare(model, mode, 7, batch=3)
    assert trainer.isa == isa


@pytest.mark.parametrize("mode", ["bnn", "fsb"])
@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("batch", [1, 4, 7])
def test_whole_runs_are_the_oracles(isa: str, mode: str, threads: int, batch: int) -> None:
    layers = (
        *block(Conv2d(64, 3, training="int8")),
        *block(Conv2d(96, 3), pool=True),
        *block(Conv2d(64, 2, 2)),
        *head(),
    )
    model = Model((10, 9, 3), layers)
    trainer, network = compare(model, mode, 9, batch=batch, epochs=2, threads=threads)
    assert trainer.isa == isa
    x, y = data(9, model.input_features, CLASSES)
    ours, (loss, correct) = trainer.evaluate(x, y), network.evaluate(x, y)
    assert ours.accuracy == correct / 9
    assert ours.loss == pytest.approx(loss / 9, rel=1e-12)


def test_images_wider_than_a_chunk_are_the_oracles(isa: str) -> None:
    """A gradient is multiplied by chunks of pixels, and one example may have more than a chunk."""
    model = convolutional((19, 18, 1), Conv2d(32, 5, training="bnn"), Conv2d(32), (False, True))
    trainer, _ = compare(model, "bnn", 3, batch=3)
    assert trainer.isa == isa


def test_outputs_need_not_fill_a_tile_before_a_single_pixel(isa: str) -> None:
    model = convolutional(
        (5, 5, 1), Conv2d(32, training="int8"), Conv2d(37, 5, padding="valid"), (False, False)
    )
    trainer, _ = compare(model, "bnn", 12, batch=6)
    assert trainer.isa == isa


@pytest.mark.parametrize("mode", ["bnn", "fsb"])
def test_a_ready_made_model_is_the_oracles(mode: str) -> None:
    model = har_cnn(classes=CLASSES)
    compare(model, mode, 12, batch=4)


@settings(max_examples=30)
@given(
    height=st.integers(1, 9),
    width=st.integers(2, 12),
    channels=st.integers(1, 9),
    kernels=st.tuples(st.integers(1, 4), st.integers(1, 7)),
    strides=st.tuples(st.integers(1, 2), st.integers(1, 2)),
    pool=st.booleans(),
    mode=st.sampled_from(("bnn", "fsb")),
    batch=st.integers(1, 5),
    threads=st.integers(1, 3),
)
def test_any_image_is_the_oracles(
    height: int,
    width: int,
    channels: int,
    kernels: tuple[int, int],
    strides: tuple[int, int],
    pool: bool,
    mode: str,
    batch: int,
    threads: int,
) -> None:
    first = Conv2d(32, kernels[0], strides[0], training="bnn")
    second = Conv2d(64, kernels[1], strides[1])
    inner = first.flow(Signal(height, width, channels, "int8"))
    outer = second.flow(Signal(inner.height, inner.width, 32, "bits"))
    pools = (False, pool and outer.width > 1)
    model = convolutional((height, width, channels), first, second, pools)
    compare(model, mode, 6, batch=batch, threads=threads)


def test_images_and_flat_rows_train_alike() -> None:
    model = convolutional((6, 7, 3), Conv2d(32, training="int8"), Conv2d(32))
    flat, y = data(8, model.input_features, CLASSES)
    states = []
    for x in (flat, flat.reshape(8, 6, 7, 3)):
        trainer = Trainer(plan(model, 4), seed=1)
        trainer.fit(x, y)
        states.append({name: bytes(tensor.data) for name, tensor in trainer.state().items()})
    assert states[0] == states[1]
