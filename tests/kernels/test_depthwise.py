"""Depthwise convolutions: the oracle is true by brute force, the engine gives the oracle's bits."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgetrain import _native
from edgetrain.errors import ModelError
from edgetrain.model import Model
from edgetrain.ops import AvgPool, BatchNorm, Conv1d, Conv2d, Sign, Signal
from edgetrain.ops.conv import Conv
from edgetrain.planner import plan
from edgetrain.reference.convolution import ConvWeights
from tests.kernels.test_convolution import block, compare, direct, draw, head

CHANNELS = 32
KERNELS = (1, 2, 3, 7, 15)
GEOMETRIES = tuple(product(KERNELS, (1, 2), ("same", "valid")))


def depthwise(kernel: int, *choices: Any, channels: int = CHANNELS, op: Any = Conv2d) -> Conv:
    """Return a convolution with as many groups as channels; choices are stride, padding, mode."""
    made: Conv = op(channels, kernel, *choices, groups=channels)
    return made


def model(shape: tuple[int, ...], op: Conv, *, pools: tuple[bool, bool] = (False, False)) -> Model:
    """Return a model of a convolution over data, a depthwise one over its signs, and a head."""
    kind = Conv1d if len(shape) == 2 else Conv2d
    opening = kind(op.outputs, 3, training="int8")
    return Model(shape, (*block(opening, pools[0]), *block(op, pools[1]), *head()))


@pytest.fixture(params=_native.supported_isas())
def isa(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Force each instruction set in turn."""
    monkeypatch.setenv("EDGETRAIN_ISA", request.param)
    return str(request.param)


@pytest.mark.parametrize(("kernel", "stride", "padding"), GEOMETRIES)
@pytest.mark.parametrize("mode", ["bnn", "int8"])
def test_the_oracle_is_a_convolution_of_each_channel(
    kernel: int, stride: int, padding: Any, mode: Any
) -> None:
    source = Signal(17, 15, 32, "bits")
    op = depthwise(kernel, stride, padding, mode)
    weights = ConvWeights.initial(op, source, "bnn", seed=3, layer=0)
    assert weights.stored.shape == (kernel, kernel, 32) == op.state_shape(source, "bnn")
    x = draw().choice([-1, 1], (2, 17, 15, 32))
    values = np.where(weights.stored >= 0, 1, -1) if mode == "bnn" else weights.stored
    out = op.flow(source)
    y = weights.forward(x)
    for channel in range(0, 32, 5):
        alone = direct(
            x[..., channel : channel + 1],
            values[None, :, :, channel, None],
            stride,
            op.pads(source),
            (out.height, out.width),
        )
        np.testing.assert_array_equal(y[..., channel], alone[..., 0])


@pytest.mark.parametrize(("kernel", "stride", "padding"), GEOMETRIES)
def test_gradients_are_finite_differences(kernel: int, stride: int, padding: Any) -> None:
    source = Signal(15, 16, 32, "bits")
    op = depthwise(kernel, stride, padding, "int8")
    weights, draws = ConvWeights.initial(op, source, "bnn", seed=3, layer=0), draw(kernel)
    x = draws.choice([-1, 1], (2, 15, 16, 32))
    demand = draws.integers(-64, 65, weights.forward(x).shape)
    before = (demand * weights.forward(x)).sum()
    # y is linear in x and in the state, so a difference of one whole level is exact.
    for values, gradient in (
        (x, weights.input_gradient(demand)),
        (weights.stored, weights.weight_gradient(demand, x)),
    ):
        assert gradient.shape == values.shape
        for flat in draws.choice(values.size, 20, replace=False):
            at = np.unravel_index(flat, values.shape)
            values[at] += 1
            assert (demand * weights.forward(x)).sum() - before == gradient[at]
            values[at] -= 1


@pytest.mark.parametrize(("kernel", "stride", "padding"), GEOMETRIES)
def test_every_geometry_is_the_oracles(isa: str, kernel: int, stride: int, padding: Any) -> None:
    mode = "int8" if (kernel > 2) == (stride == 1) else "bnn"
    size = 16 if padding == "valid" else 6
    op = depthwise(kernel, stride, padding, mode)
    trainer, _ = compare(
        model((size, size + 1, 2), op, pools=(False, kernel == 3)), "bnn", 4, batch=3
    )
    assert trainer.isa == isa


@pytest.mark.parametrize(("kernel", "stride", "padding"), GEOMETRIES)
def test_every_sequence_is_the_oracles(isa: str, kernel: int, stride: int, padding: Any) -> None:
    mode = "bnn" if (kernel > 2) == (stride == 1) else "int8"
    op = depthwise(kernel, stride, padding, mode, channels=64, op=Conv1d)
    trainer, _ = compare(model((41, 3), op, pools=(False, True)), "bnn", 7, batch=3)
    assert trainer.isa == isa


@pytest.mark.parametrize("mode", ["bnn", "fsb"])
@pytest.mark.parametrize(("threads", "batch"), [(1, 4), (2, 7), (3, 1)])
def test_whole_runs_of_separable_convolutions_are_the_oracles(
    isa: str, mode: str, threads: int, batch: int
) -> None:
    layers = (
        *block(Conv2d(96, 3, training="int8")),
        *block(depthwise(3, 1, "same", "bnn", channels=96), pool=True),
        *block(Conv2d(64, 1)),
        *block(depthwise(3, 2, "same", "int8", channels=64)),
        *block(Conv2d(32, 1)),
        *head(),
    )
    separable = Model((7, 8, 3), layers)
    trainer, network = compare(separable, mode, 9, batch=batch, epochs=2, threads=threads)
    assert trainer.isa == isa
    assert len(network.traces) == 6


@pytest.mark.parametrize("first", ["int8", "frozen"])
def test_frozen_signs_are_the_oracles(isa: str, first: Any) -> None:
    layers = (
        *block(Conv2d(64, 3, training=first)),
        *block(depthwise(3, 1, "same", "frozen", channels=64), pool=True),
        *block(depthwise(2, 1, "same", "bnn", channels=64)),
        *head(),
    )
    trainer, _ = compare(Model((7, 8, 2), layers), "bnn", 7, batch=3)
    assert trainer.isa == isa
    signs = trainer.state()["layer1.signs"]
    assert signs.shape == (9, 2)


def test_windows_may_be_summed(isa: str) -> None:
    pooled = (depthwise(3), AvgPool(), BatchNorm(), Sign())
    layers = (*block(Conv2d(CHANNELS, 3, training="int8")), *pooled, *head())
    trainer, _ = compare(Model((7, 8, 2), layers), "bnn", 7, batch=3)
    assert trainer.isa == isa


def test_rows_wider_than_a_block_are_the_oracles(isa: str) -> None:
    """The gradient of the weights is summed in 16 bits by blocks of at most 511 pixels."""
    op = depthwise(3, 1, "same", "bnn", op=Conv1d)
    trainer, _ = compare(model((1100, 1), op), "bnn", 2, batch=2)
    assert trainer.isa == isa
    op = depthwise(3, 1, "same", "bnn")
    trainer, _ = compare(model((25, 24, 1), op), "bnn", 2, batch=2)
    assert trainer.isa == isa


@settings(max_examples=20)
@given(
    height=st.integers(1, 9),
    width=st.integers(2, 12),
    words=st.integers(1, 2),
    kernel=st.integers(1, 15),
    stride=st.integers(1, 2),
    pool=st.booleans(),
    mode=st.sampled_from(("bnn", "int8")),
    batch=st.integers(1, 5),
    threads=st.integers(1, 3),
)
def test_any_image_is_the_oracles(
    height: int,
    width: int,
    words: int,
    kernel: int,
    stride: int,
    pool: bool,
    mode: Any,
    batch: int,
    threads: int,
) -> None:
    op = depthwise(kernel, stride, "same", mode, channels=32 * words)
    out = op.flow(Signal(height, width, op.outputs, "bits"))
    whole = model((height, width, 1), op, pools=(False, pool and out.width > 1))
    compare(whole, "bnn", 6, batch=batch, threads=threads)


def test_one_scale_an_output_is_refused() -> None:
    separable = model((6, 6, 1), depthwise(3))
    with pytest.raises(ModelError, match="one scale an output trains nothing, because batch norm"):
        plan(separable, 4, "fsb")
    assert plan(separable, 4, "bnn")
    assert plan(model((6, 6, 1), depthwise(3, 1, "same", "int8")), 4, "fsb")


def test_a_depthwise_layer_keeps_a_byte_a_tap_and_scratch_of_one_tile() -> None:
    chosen = plan(model((6, 7, 1), depthwise(3), pools=(False, True)), 4, threads=2)
    assert chosen.bytes_of("layer1.latent") == 9 * CHANNELS
    # Weights and image of 32 channels, sums before pooling, and of the pooled pixels of all four.
    forward = 320 + 8 * 9 * 32 + 42 * 128 + 4 * 9 * 128
    assert chosen.bytes_of("layer1.forward_tile") == 2 * forward
    # Weights, an image of signs, that of the codes, and the gradient of the weights.
    assert chosen.bytes_of("layer1.backward_tile") == 2 * (320 + 2 * 8 * 9 * 32 + 9 * 128)
