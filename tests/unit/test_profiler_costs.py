"""Costs of a plan: the published ACE to the unit, and figures that agree with the plan's own."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

import edgetrain as et
from edgetrain.gradient import MOST_DRAWS
from edgetrain.memory_profiler.cli import app
from edgetrain.memory_profiler.costs import costs
from edgetrain.memory_profiler.reference_networks import pokebnn, resnet50
from edgetrain.models import MODELS
from edgetrain.ops import OPS, BatchNorm, Conv2d, Linear, Sign, SoftmaxCrossEntropy, WeightOp
from edgetrain.ops.op import Latent
from edgetrain.ops.products import Products
from edgetrain.ops.weights import LATENTS
from edgetrain.planner import Plan, recomputing

RESNET50_ACE = 1_046_831_169_536
POKEBNN_CONVOLUTIONS_ACE, POKEBNN_DENSE_ACE = 4_091_469_824, 131_072_000
"""The constants that the authors' own code is tested with (google/aqt)."""
RESNET50_PRODUCTS = 4_089_184_256
SCRATCH = (
    *("forward_tile", "backward_tile", "sign_index", "example_gradient", "channel_sums"),
    *("inverse_deviation", "code_rows", "code_columns", "input_bytes"),
)
"""What kernels unpack and repeat, and what they note of a channel: no traffic of an op."""


def compiled(name: str, mode: Any = "bnn", **choices: Any) -> Plan:
    """Plan a model of ours whose first layer trains under either mode."""
    first = {} if name == "mlp" else {"first": "int8"}
    return et.plan(MODELS[name](**first), 8, mode, **choices)


def held_bytes(plan: Plan) -> int:
    """Return the bytes of all tensors but scratch."""
    tensors = [placement.tensor for placement in plan.placements]
    return sum(tensor.bytes for tensor in tensors if not tensor.name.endswith(SCRATCH))


def test_the_published_ace_is_reproduced() -> None:
    network = resnet50()
    assert network.multiply_accumulates == RESNET50_PRODUCTS
    assert network.ace == RESNET50_ACE
    *convolutions, dense = pokebnn().layers
    assert sum(layer.ace for layer in convolutions) == POKEBNN_CONVOLUTIONS_ACE
    assert dense.ace == POKEBNN_DENSE_ACE
    assert pokebnn().ace == POKEBNN_CONVOLUTIONS_ACE + POKEBNN_DENSE_ACE


@pytest.mark.parametrize(
    ("weight_bits", "activation_bits", "ratio"), [(8, 8, 0.25), (4, 4, 0.0625), (4, 2, 0.03125)]
)
def test_ace_scales_with_the_bits_of_both_operands(
    weight_bits: int, activation_bits: int, ratio: float
) -> None:
    assert resnet50(weight_bits, activation_bits).ace == ratio * RESNET50_ACE


@given(
    *(st.integers(1, 64) for _ in range(2)),
    *(st.integers(1, 16) for _ in range(3)),
    *(st.integers(1, 16) for _ in range(2)),
)
def test_groups_divide_what_an_output_sees(
    pixels: int, taps: int, seen: int, outputs: int, groups: int, weight: int, activation: int
) -> None:
    whole = Products(pixels, taps, seen * groups, outputs * groups, 1, weight, activation)
    parts = Products(pixels, taps, seen * groups, outputs * groups, groups, weight, activation)
    assert whole.count == groups * parts.count
    assert parts.count == groups * Products(pixels, taps, seen, outputs).count
    assert parts.ace == parts.count * weight * activation


def test_a_convolution_counts_every_tap_of_every_pixel() -> None:
    layers = (
        *(Conv2d(64, 3, 2, training="int8"), BatchNorm(), Sign()),
        *(Conv2d(64, 5, groups=64), BatchNorm(), Sign()),
        *(Conv2d(32, 1), BatchNorm(), Sign()),
    )
    head = (OPS["flatten"](), Linear(10, "int8"), BatchNorm(), SoftmaxCrossEntropy())
    found = costs(et.plan(et.Model((9, 9, 3), (*layers, *head)), 4)).layers
    products = [25 * 9 * 3 * 64, 25 * 25 * 64, 25 * 64 * 32, 25 * 32 * 10]
    assert [layer.cost.multiply_accumulates for layer in found] == products
    # int8 weights on int8 data, then signs on signs, then int8 weights on signs.
    bits = [8 * 8, 1, 1, 8]
    assert [layer.cost.ace for layer in found] == [
        n * b for n, b in zip(products, bits, strict=True)
    ]


def test_a_scale_and_a_fixed_sign_are_nine_bits() -> None:
    model = et.models.mlp(100, 10, (64,), first="auto", last="auto")
    bnn, fsb = (costs(et.plan(model, 8, mode)).total for mode in ("bnn", "fsb"))
    assert fsb.multiply_accumulates == bnn.multiply_accumulates
    assert fsb.ace == 9 * bnn.ace


@pytest.mark.parametrize("mode", ["bnn", "fsb"])
@pytest.mark.parametrize("name", MODELS)
def test_layers_add_up_to_the_plans_arithmetic(name: str, mode: str) -> None:
    plan = compiled(name, mode)
    found = costs(plan)
    assert found.total.arithmetic == plan.arithmetic
    assert [layer.layer for layer in found.layers] == [b.index for b in plan.model.blocks()]
    for layer in found.layers:
        cost, work = layer.cost, layer.cost.arithmetic
        assert 0 < cost.multiply_accumulates <= cost.ace
        assert cost.multiply_accumulates * plan.micro_batch < work.forward < work.operations
        assert 0 < work.forward_bytes < work.bytes_moved


@pytest.mark.parametrize("mode", ["bnn", "fsb"])
@pytest.mark.parametrize("name", MODELS)
def test_every_tensor_of_the_arena_is_written_and_read(name: str, mode: str) -> None:
    plan = compiled(name, mode, recompute="never")
    assert plan.arithmetic.bytes_moved >= 2 * held_bytes(plan)


@given(
    st.integers(2, 300),
    st.lists(st.integers(1, 300), min_size=1, max_size=4),
    st.integers(2, 64),
    st.sampled_from(LATENTS),
    st.integers(1, MOST_DRAWS),
)
def test_a_dense_network_of_any_width_counts_its_weights(
    inputs: int, widths: list[int], batch: int, latent: Latent, draws: int
) -> None:
    model = et.models.mlp(inputs, 10, tuple(widths))
    plan = et.plan(model, batch, latent=latent, draws=draws, micro_batch=batch)
    total = costs(plan).total
    seen = [inputs, *widths]
    weights = [below * above for below, above in zip(seen, [*widths, 10], strict=True)]
    assert total.multiply_accumulates == sum(weights)
    # int8 weights at the end, signs before; int8 data at the beginning, signs behind.
    assert total.ace == 8 * (weights[0] + weights[-1]) + sum(weights[1:-1])
    assert total.arithmetic.bytes_moved >= 2 * held_bytes(plan)


def test_the_bytes_of_a_dense_layer_are_those_of_its_tensors() -> None:
    last = costs(et.plan(et.models.mlp(100, 10, (64,)), 8)).layers[-1].cost.arithmetic
    # Of 8 examples: signs of 64 inputs, 640 weights, 32-bit sums of 10 outputs, which take 32.
    signs, weights, sums = 8 * 64 // 8, 640, 8 * 32 * 4
    logits, labels, channel = 8 * 10 * 4, 8, 10 * 4
    # The products write the sums, the norm goes over them twice, the loss reads the logits.
    norm = 2 * sums + logits + 5 * channel
    assert last.forward_bytes == signs + weights + sums + norm + logits + labels
    gradient, sign, codes, below = sums, sums // 32, sums // 8, 8 * 64 * 4
    norm = 2 * (gradient + sign) + codes + 6 * channel
    products = (codes + weights + below) + (codes + signs + 2 * weights)
    # The loss writes the gradient.
    assert last.backward_bytes == gradient + norm + products


@pytest.mark.parametrize("name", MODELS)
def test_an_inference_costs_the_same_whatever_the_batch(name: str) -> None:
    small, large = (costs(et.plan(MODELS[name](), size)).total for size in (4, 32))
    assert (small.multiply_accumulates, small.ace) == (large.multiply_accumulates, large.ace)
    # Weights are read once a micro-batch: an example's share of them falls.
    assert large.bytes_per_example < small.bytes_per_example
    assert large.intensity > small.intensity


def test_frozen_layers_have_no_backward_pass() -> None:
    model = et.Model.from_json(MODELS["cnv"]().to_json().replace('"bnn"', '"frozen"'))
    lowest = model.lowest_trained
    assert lowest > 0
    for layer in costs(et.plan(model, 8)).layers:
        arithmetic = layer.cost.arithmetic
        assert (arithmetic.backward > 0) == (layer.layer >= lowest)
        assert (arithmetic.backward_bytes > 0) == (layer.layer >= lowest)


def test_what_is_made_again_costs_more_work_and_traffic() -> None:
    whole = compiled("cnv", recompute="never")
    lean = recomputing(whole, remade={0, 2}, streamed={0, 3})
    for before, after in zip(costs(whole).layers, costs(lean).layers, strict=True):
        once, again = before.cost.arithmetic, after.cost.arithmetic
        forward, backward = after.layer in lean.streamed, after.layer - 1 in lean.remade
        assert (again.forward > once.forward) == forward
        assert (again.forward_bytes > once.forward_bytes) == forward
        assert (again.backward > once.backward) == backward
        assert (again.backward_bytes > once.backward_bytes) == backward


@pytest.mark.parametrize("name", OPS)
def test_only_layers_with_weights_multiply(name: str) -> None:
    overridden = OPS[name].products is not BatchNorm.products
    assert overridden == issubclass(OPS[name], WeightOp)


def test_the_command_prints_json() -> None:
    done = CliRunner().invoke(app, ["costs", "har_cnn", "--classes", "7", "--batch", "8", "--json"])
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    total = found["total"]
    for field in ("multiply_accumulates", "ace", "bytes_moved"):
        assert sum(layer[field] for layer in found["layers"]) == total[field]
    assert total["bytes_per_example"] == total["bytes_moved"] / 8
    assert found["references"]["ResNet-50 w16a16"] == RESNET50_ACE
    plan = et.plan(MODELS["har_cnn"](), 8)
    assert total["ace"] == costs(plan).total.ace


def test_the_command_prints_a_layer_a_row() -> None:
    done = CliRunner().invoke(app, ["costs", "har_cnn", "--classes", "7", "--memory", "1MiB"])
    assert done.exit_code == 0, done.output
    for word in ("conv1d 128", "linear 7", "sum", "100.0%", f"{RESNET50_ACE:,}"):
        assert word in done.stdout
