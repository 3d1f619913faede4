"""Convolutions in groups: the oracle is true by brute force, the engine gives the oracle's bits."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgetrain import _native
from edgetrain.errors import ModelError
from edgetrain.gradient import Gradient
from edgetrain.model import Model
from edgetrain.ops import AvgPool, BatchNorm, Context, Conv1d, Conv2d, Op, Sign, Signal
from edgetrain.ops.conv import Conv
from edgetrain.ops.geometry import bundled
from edgetrain.ops.op import Latent
from edgetrain.planner import plan
from edgetrain.reference.convolution import ConvWeights
from tests.kernels import test_latents
from tests.kernels.test_convolution import CLASSES, block, compare, direct, draw, head, weights_of
from tests.kernels.test_engine_equals_reference import assert_same_state, data, run_both
from tests.kernels.test_gradient_formats import gradient_of

GEOMETRIES = tuple(product((1, 2, 3, 5), (1, 2), ("same", "valid")))
MODES = ("bnn", "fsb", "int8", "frozen")
DIVISIONS = (
    # channels, outputs, groups: of whole words, of parts of one, of parts of several.
    (128, 64, 2),
    (64, 192, 2),
    (64, 64, 16),
    (32, 32, 2),
    (64, 32, 4),
    (32, 96, 8),
    (96, 96, 2),
    (96, 32, 16),
    (96, 96, 4),
)


def model(shape: tuple[int, ...], op: Conv, channels: int, *, pool: bool = False) -> Model:
    """Return a model of a convolution over data, one in groups over its signs, and a head."""
    kind = Conv1d if len(shape) == 2 else Conv2d
    return Model(shape, (*block(kind(channels, 3, training="int8")), *block(op, pool), *head()))


@pytest.fixture(params=_native.supported_isas())
def isa(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Force each instruction set in turn."""
    monkeypatch.setenv("EDGETRAIN_ISA", request.param)
    return str(request.param)


@pytest.mark.parametrize(("kernel", "stride", "padding"), GEOMETRIES)
@pytest.mark.parametrize("kind", ["bits", "int8"])
def test_the_oracle_is_a_convolution_of_each_group(
    kernel: int, stride: int, padding: Any, kind: Any
) -> None:
    source = Signal(7, 6, 32 if kind == "bits" else 8, kind)
    op = Conv2d(12, kernel, stride, padding, "int8", groups=4)
    weights, seen = weights_of(op, source, "bnn"), source.channels // 4
    assert weights.stored.shape == (12, kernel, kernel, seen) == op.state_shape(source, "bnn")
    x = draw().choice([-1, 1], (2, 7, 6, source.channels))
    y, out = weights.forward(x), op.flow(source)
    for group in range(4):
        alone = direct(
            x[..., group * seen : (group + 1) * seen],
            weights.stored[3 * group : 3 * group + 3],
            stride,
            op.pads(source),
            (out.height, out.width),
        )
        np.testing.assert_array_equal(y[..., 3 * group : 3 * group + 3], alone)


@pytest.mark.parametrize(("kernel", "stride", "padding"), GEOMETRIES)
@pytest.mark.parametrize("mode", ["int8", "fsb"])
def test_gradients_are_finite_differences(
    kernel: int, stride: int, padding: Any, mode: Any
) -> None:
    source = Signal(7, 8, 32, "bits")
    op = Conv2d(12, kernel, stride, padding, mode, groups=4)
    weights, draws = weights_of(op, source, "bnn"), draw(kernel)
    x = draws.choice([-1, 1], (2, 7, 8, 32))
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


@given(words=st.integers(1, 20), outputs=st.integers(1, 700), data=st.data())
def test_a_bundle_fills_whole_words_or_has_all_groups(words: int, outputs: int, data: Any) -> None:
    channels = 32 * words
    groups = data.draw(
        st.sampled_from([n for n in range(1, 641) if channels % n == outputs % n == 0])
    )
    count = bundled(channels, outputs, groups)
    parts = groups // count
    assert count * parts == groups
    assert parts == 1 or channels // parts % 32 == outputs // parts % 32 == 0
    smaller = [n for n in range(1, count) if groups % n == 0]
    wholes = [(n * channels // groups % 32, n * outputs // groups % 32) for n in smaller]
    assert (0, 0) not in wholes


@pytest.mark.parametrize(("channels", "outputs", "groups"), DIVISIONS)
@pytest.mark.parametrize("mode", MODES)
def test_every_division_is_the_oracles(
    isa: str, mode: Any, channels: int, outputs: int, groups: int
) -> None:
    op = Conv2d(outputs, 3, training=mode, groups=groups)
    threads = 1 + groups % 3
    trainer, _ = compare(model((5, 6, 2), op, channels), "bnn", 5, batch=3, threads=threads)
    assert trainer.isa == isa


@pytest.mark.parametrize(("kernel", "stride", "padding"), GEOMETRIES)
def test_every_geometry_is_the_oracles(isa: str, kernel: int, stride: int, padding: Any) -> None:
    groups = 2 if (kernel > 2) == (stride == 1) else 8
    op = Conv2d(64, kernel, stride, padding, MODES[(kernel + stride) % 3], groups)
    trainer, _ = compare(model((8, 9, 2), op, 64, pool=kernel == 3), "bnn", 4, batch=3)
    assert trainer.isa == isa


@pytest.mark.parametrize(("kernel", "stride", "padding"), GEOMETRIES)
def test_every_sequence_is_the_oracles(isa: str, kernel: int, stride: int, padding: Any) -> None:
    groups = 4 if (kernel > 2) == (stride == 1) else 2
    op = Conv1d(64, kernel, stride, padding, MODES[(kernel + stride + 1) % 3], groups)
    trainer, _ = compare(model((27, 3), op, 64, pool=True), "bnn", 7, batch=3, threads=2)
    assert trainer.isa == isa


@pytest.mark.parametrize("training", ["bnn", "int8"])
@pytest.mark.parametrize(("channels", "groups"), [(6, 2), (6, 6), (64, 2)])
@pytest.mark.parametrize("kernel", [1, 3])
def test_groups_of_data_are_the_oracles(
    isa: str, training: Any, channels: int, groups: int, kernel: int
) -> None:
    op = Conv2d(6 if groups == channels else 32, kernel, 2, training=training, groups=groups)
    layers = (op, BatchNorm(), Sign())
    if op.outputs == 6:
        shape, layers = (1, 2, channels), (*layers, *head()[1:])
    else:
        shape, layers = (7, 6, channels), (*layers, *block(Conv2d(32, 3, groups=2)), *head())
    trainer, _ = compare(Model(shape, layers), "bnn", 7, batch=3, threads=2)
    assert trainer.isa == isa


def test_outputs_need_not_fill_words(isa: str) -> None:
    op = Conv2d(42, 5, padding="valid", groups=2)
    for mode in ("bnn", "fsb"):
        trainer, _ = compare(model((5, 5, 1), op, 32), mode, 12, batch=6)
        assert trainer.isa == isa


@pytest.mark.parametrize("mode", ["bnn", "fsb"])
@pytest.mark.parametrize(("threads", "batch"), [(1, 4), (2, 7), (3, 1)])
def test_whole_runs_are_the_oracles(isa: str, mode: str, threads: int, batch: int) -> None:
    averaged = (Conv2d(64, 3, groups=4), AvgPool(), BatchNorm(), Sign())
    layers: tuple[Op, ...] = (
        *block(Conv2d(64, 3, training="int8")),
        *block(Conv2d(96, 3, groups=2)),
        *averaged,
        *block(Conv2d(64, 2, groups=2)),
        *head(),
    )
    whole = Model((6, 7, 3), layers)
    trainer, network = compare(whole, mode, 9, batch=batch, threads=threads)
    assert trainer.isa == isa
    assert Model.from_json(whole.to_json()) == whole
    x, y = data(9, whole.input_features, CLASSES)
    assert trainer.evaluate(x, y).accuracy == network.evaluate(x, y)[1] / 9


@pytest.mark.parametrize("latent", test_latents.KINDS)
@pytest.mark.parametrize(("channels", "groups"), [(64, 2), (64, 8), (96, 2), (96, 32)])
def test_kinds_of_latents_are_the_oracles(
    isa: str, latent: Latent, channels: int, groups: int
) -> None:
    grouped = model((6, 5, 2), Conv2d(channels, 3, groups=groups), channels)
    x, y = data(9, grouped.input_features, CLASSES)
    trainer, network = test_latents.run_both(grouped, latent, x, y, batch=4, threads=2)
    test_latents.assert_same(trainer, network)
    assert trainer.isa == isa


@pytest.mark.parametrize("name", ["luq4", "luq4_channel"])
@pytest.mark.parametrize(("groups", "mode"), [(2, "bnn"), (2, "fsb"), (8, "bnn"), (8, "fsb")])
def test_formats_of_gradients_are_the_oracles(isa: str, name: Any, groups: int, mode: str) -> None:
    gradient: Gradient = gradient_of(name, 2)
    grouped = model((6, 5, 2), Conv2d(64, 3, groups=groups), 64, pool=True)
    x, y = data(9, grouped.input_features, CLASSES)
    trainer, network = run_both(grouped, mode, x, y, batch=4, threads=2, gradient=gradient)
    assert_same_state(trainer, network)
    assert trainer.isa == isa


@settings(max_examples=20)
@given(
    height=st.integers(1, 8),
    width=st.integers(2, 9),
    words=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    kernel=st.integers(1, 7),
    stride=st.integers(1, 2),
    pool=st.booleans(),
    mode=st.sampled_from(MODES),
    batch=st.integers(1, 5),
    threads=st.integers(1, 3),
    choices=st.data(),
)
def test_any_image_is_the_oracles(
    height: int,
    width: int,
    words: tuple[int, int],
    kernel: int,
    stride: int,
    pool: bool,
    mode: Any,
    batch: int,
    threads: int,
    choices: Any,
) -> None:
    channels, outputs = 32 * words[0], 32 * words[1]
    groups = choices.draw(
        st.sampled_from([n for n in range(1, channels) if channels % n == outputs % n == 0])
    )
    op = Conv2d(outputs, kernel, stride, "same", mode, groups)
    out = op.flow(Signal(height, width, channels, "bits"))
    whole = model((height, width, 1), op, channels, pool=pool and out.width > 1)
    compare(whole, "bnn", 6, batch=batch, threads=threads)


def test_one_channel_an_output_has_no_scale() -> None:
    spread = model((6, 6, 1), Conv2d(64, 3, groups=32), 32)
    with pytest.raises(ModelError, match="one scale an output trains nothing, because batch norm"):
        plan(spread, 4, "fsb")
    compare(spread, "bnn", 4, batch=2)


@pytest.mark.parametrize("groups", [1, 2, 4])
def test_state_and_arithmetic_are_divided_by_the_groups(groups: int) -> None:
    op, source = Conv2d(128, 3, groups=groups), Signal(8, 8, 128, "bits")
    context = Context(1, source, "bnn", 4, 1, False, 64)
    assert op.arithmetic(context).forward == 4 * 64 * 9 * 128 * 128 // groups
    assert op.arithmetic(context).backward == 2 * op.arithmetic(context).forward
    chosen = plan(model((8, 8, 3), op, 128), 4)
    assert chosen.bytes_of("layer1.latent") == 9 * 128 * 128 // groups
    whole = plan(model((8, 8, 3), Conv2d(128, 3), 128), 4)
    for scratch in ("forward_tile", "backward_tile", "sign_index"):
        name = f"layer1.{scratch}"
        assert (chosen.bytes_of(name) < whole.bytes_of(name)) == (groups > 1)


def test_the_weights_of_a_group_are_drawn_as_a_row() -> None:
    """Counters of groups follow one another, however groups are taken."""
    source = Signal(4, 4, 64, "bits")
    for mode in ("bnn", "fsb"):
        whole = ConvWeights.initial(Conv2d(64, 3, groups=2), source, mode, seed=3, layer=1)
        half = Signal(4, 4, 32, "bits")
        first = ConvWeights.initial(Conv2d(32, 3), half, mode, seed=3, layer=1)
        np.testing.assert_array_equal(whole.stored[:32], first.stored)
        assert mode == "bnn" or np.array_equal(whole.signs()[:32], first.signs())
