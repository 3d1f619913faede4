"""Plans: what fits is chosen, what does not is refused with a way out."""

from __future__ import annotations

import re
from dataclasses import astuple
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

import edgetrain as et
from edgetrain import _native
from edgetrain.errors import BudgetError, ModelError
from edgetrain.models import MODELS
from edgetrain.ops import (
    Add,
    AvgPool,
    BatchNorm,
    Conv2d,
    Flatten,
    GlobalAveragePool,
    Linear,
    MaxPool,
    Or,
    Sign,
    SoftmaxCrossEntropy,
    Xnor,
)
from edgetrain.ops.op import Mode
from edgetrain.planner import LARGEST_BATCH, micro_batches
from edgetrain.step import step_settings


def test_the_largest_micro_batch_that_fits_is_taken() -> None:
    model = et.models.mlp()
    whole = et.plan(model, 100)
    assert whole.micro_batch == 100
    tight = et.plan(model, 100, memory=whole.peak_bytes - 1)
    assert tight.micro_batch == 50
    assert tight.peak_bytes < whole.peak_bytes
    assert et.plan(model, 100, memory=whole.peak_bytes) == whole


def test_nothing_fits_and_the_message_says_what_would() -> None:
    model = et.models.mlp()
    with pytest.raises(BudgetError) as caught:
        et.plan(model, 100, memory="100KiB")
    smallest = int(re.search(r"\((\d+) bytes\)", str(caught.value))[1])  # type: ignore[index]
    assert et.plan(model, 100, memory=smallest).peak_bytes == smallest


def test_micro_batches_halve_down_to_two() -> None:
    assert micro_batches(100) == (100, 50, 25, 13, 7, 4, 2)
    assert micro_batches(1) == (1,)
    for batch in range(2, 200):
        sizes = micro_batches(batch)
        assert sizes[-1] == 2
        assert all(after == -(-before // 2) for before, after in pairwise(sizes))


def test_smaller_choices_never_need_more() -> None:
    model = et.models.mlp(inputs=100, hidden=(64, 32))
    sizes = [et.plan(model, batch).peak_bytes for batch in (64, 32, 16, 8, 4, 2)]
    assert sizes == sorted(sizes, reverse=True)
    assert et.plan(model, 32, threads=2).peak_bytes > et.plan(model, 32).peak_bytes
    assert et.plan(model, 32, "fsb").peak_bytes < et.plan(model, 32, "bnn").peak_bytes
    assert et.plan(model, 32, reuse=False).peak_bytes > et.plan(model, 32).peak_bytes


@pytest.mark.parametrize("mode", ["bnn", "fsb"])
def test_persistent_state_is_a_byte_a_weight_or_a_scale(mode: Any) -> None:
    chosen = et.plan(et.models.mlp(inputs=100, hidden=(64,), classes=10), 8, mode)
    weights = 64 * 25 if mode == "fsb" else 64 * 100
    assert chosen.bytes_of("layer0.scale" if mode == "fsb" else "layer0.latent") == weights
    with pytest.raises(KeyError):
        chosen.offset("layer0.latent" if mode == "fsb" else "layer0.scale")


def test_the_plans_arithmetic_counts_every_product() -> None:
    chosen = et.plan(et.models.mlp(inputs=100, hidden=(64,), classes=10), 8)
    products = 8 * (100 * 64 + 64 * 10)
    assert chosen.arithmetic.forward >= products
    # The gradient of the weights everywhere, that of the input above the first layer.
    assert chosen.arithmetic.backward >= products + 8 * 64 * 10


def test_explain_names_every_tensor_and_the_arena() -> None:
    chosen = et.plan(et.models.mlp(inputs=20, hidden=(8,)), 4)
    text = chosen.explain()
    for placement in chosen.placements:
        assert re.search(rf"^{re.escape(placement.tensor.name)} ", text, re.M)
    assert f"arena {chosen.peak_bytes:,} bytes" in text


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        ({"mode": "float"}, "unknown mode 'float': choose bnn or fsb"),
        ({"batch": 0}, "batch 0 is out of range"),
        ({"batch": LARGEST_BATCH + 1}, "out of range"),
        ({"threads": 0}, "0 threads"),
        ({"gradient": "luq"}, "unknown gradient 'luq': choose one of luq4, luq4_channel"),
        ({"draws": 5}, "5 draws: choose 1 to 4"),
        ({"gradient": "f32", "draws": 2}, "2 draws of 'f32' would all be the same"),
        ({"batch": 8, "micro_batch": 9}, "micro-batch 9 is out of range: choose 1 to 8"),
    ],
)
def test_bad_choices_are_named(choice: Any, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        et.plan(et.models.mlp(), **choice)


def test_every_byte_that_the_engine_uses_is_planned() -> None:
    """Bytes between the planned tensors stay as they were: the engine writes nothing else."""
    model = et.models.mlp(inputs=50, hidden=(40, 33), classes=5)
    for mode in ("bnn", "fsb"):
        chosen = et.plan(model, 7, mode, threads=2, reuse=False)  # type: ignore[arg-type]
        engine = _native.Engine(chosen.program(), 0, "")
        x = np.random.default_rng(0).integers(0, 256, (7, 50)).astype(np.uint8)
        y, rows = np.arange(7, dtype=np.uint8) % 5, np.arange(7, dtype=np.uint32)
        for step in range(3):
            settings = step_settings(chosen, 0.04, step, step + 1)
            engine.train(x, False, y, rows, *astuple(settings))
        arena = engine.read(0, chosen.peak_bytes)
        covered = np.zeros(chosen.peak_bytes, bool)
        for placement in chosen.placements:
            covered[placement.offset : placement.offset + placement.tensor.bytes] = True
        assert not np.frombuffer(arena, np.uint8)[~covered].any()


def image_model(training: Any = "bnn") -> et.Model:
    """Return a model with both kinds of convolution, a pool and a flattening."""
    layers = (
        *(Conv2d(32, 5, training=training), BatchNorm(), Sign()),
        *(Conv2d(64, 3), MaxPool(), BatchNorm(), Sign(), Flatten()),
        *(Linear(3, "int8"), BatchNorm(), SoftmaxCrossEntropy()),
    )
    return et.Model((9, 7, 2), layers)


def residual_model() -> et.Model:
    """Return a model of the same data with every shortcut and both averages."""
    layers = (
        *(Conv2d(32, training="bnn"), BatchNorm(), Sign()),
        *(Conv2d(32), Add(), BatchNorm(), Sign()),
        *(Conv2d(32), BatchNorm(), Sign(), Xnor(2)),
        *(Conv2d(32), BatchNorm(), Sign(), Or(3)),
        *(Conv2d(64), AvgPool(), Add(4), BatchNorm(), Sign(), GlobalAveragePool()),
        *(Linear(3, "int8"), BatchNorm(), SoftmaxCrossEntropy()),
    )
    return et.Model((9, 7, 2), layers)


@pytest.mark.parametrize("model", [image_model(), residual_model()])
@pytest.mark.parametrize("draws", [1, 2])
@pytest.mark.parametrize("gradient", ["luq4", "luq4_channel"])
@pytest.mark.parametrize("mode", ["bnn", "fsb"])
def test_every_byte_of_a_convolution_is_planned(
    mode: Any, gradient: str, draws: int, model: et.Model
) -> None:
    chosen = et.plan(model, 5, mode, gradient=gradient, draws=draws, threads=2, reuse=False)
    engine = _native.Engine(chosen.program(), 0, "")
    x = np.random.default_rng(0).integers(0, 256, (5, 126)).astype(np.uint8)
    y, rows = np.arange(5, dtype=np.uint8) % 3, np.arange(5, dtype=np.uint32)
    for step in range(2):
        engine.train(x, False, y, rows, *astuple(step_settings(chosen, 0.04, step, step + 1)))
    arena = engine.read(0, chosen.peak_bytes)
    covered = np.zeros(chosen.peak_bytes, bool)
    for placement in chosen.placements:
        covered[placement.offset : placement.offset + placement.tensor.bytes] = True
    assert not np.frombuffer(arena, np.uint8)[~covered].any()


def test_tensors_of_a_convolution_are_as_large_as_its_images() -> None:
    chosen = et.plan(image_model(), 4)
    assert chosen.bytes_of("input") == 4 * 63 * 64  # patches of 5 x 5 x 2, padded
    assert chosen.bytes_of("layer0.sign") == 4 * 63 * 32 // 8
    assert chosen.bytes_of("layer0.output_gradient") == 4 * 63 * 32 * 4
    assert chosen.bytes_of("layer1.argument") == 2 * 4 * 12 * 64 // 8
    assert chosen.bytes_of("layer1.codes") == 4 * 12 * 64 // 2
    assert chosen.bytes_of("layer2.latent") == 3 * 12 * 64


def test_a_draw_costs_its_codes_and_a_scale_a_channel_a_byte() -> None:
    def sizes(**choice: Any) -> dict[str, int]:
        placements = et.plan(image_model(), 4, **choice).placements
        return {placement.tensor.name: placement.tensor.bytes for placement in placements}

    plain, channel, drawn = sizes(), sizes(gradient="luq4_channel"), sizes(draws=3)
    # Scales of channels give up the lookup that stands in for a product.
    shifts = {f"layer{index}.channel_shifts": size for index, size in enumerate((32, 64, 32))}
    kept = {name: size for name, size in plain.items() if "sign_index" not in name}
    assert channel == kept | shifts
    # Of a convolution in 4 bits; of a dense layer also as the bytes of its product.
    more = {name for name in plain if drawn[name] > plain[name]}
    assert more == {*(f"layer{index}.codes" for index in range(3)), "layer2.code_columns"}
    assert all(drawn[name] == 3 * plain[name] for name in more)


def test_more_draws_take_fewer_pixels_and_more_products() -> None:
    layers = (Conv2d(32, 1, training="int8"), MaxPool(), BatchNorm(), Sign(), Flatten())
    model = et.Model((64, 64, 1), (*layers, Linear(2, "int8"), BatchNorm(), SoftmaxCrossEntropy()))
    with pytest.raises(ModelError, match="too many pixels: choose 1 to 31"):
        et.plan(model, 64, micro_batch=32, draws=2)
    one, two = et.plan(model, 8).arithmetic, et.plan(model, 8, draws=2).arithmetic
    products = 8 * (64 * 64 * 32 + 32 * 32 * 32 * 2)
    assert two.backward - one.backward == products
    assert two.forward == one.forward


def test_a_program_of_a_format_for_study_names_the_engine_that_runs_it() -> None:
    chosen = et.plan(et.models.mlp(), 10, gradient="radix4_tpr")
    with pytest.raises(ModelError, match=r"does not run gradient 'radix4_tpr'.*--engine reference"):
        chosen.program()


def test_fixed_signs_over_data_are_refused() -> None:
    with pytest.raises(ModelError, match="conv2d of int8 data cannot be trained as fsb"):
        et.plan(image_model("auto"), 4, "fsb")
    assert et.plan(image_model("auto"), 4, "bnn")


def test_a_micro_batch_of_too_many_pixels_is_passed_over_or_refused() -> None:
    layers = (Conv2d(32, 1, training="int8"), MaxPool(), BatchNorm(), Sign(), Flatten())
    model = et.Model((64, 64, 1), (*layers, Linear(2, "int8"), BatchNorm(), SoftmaxCrossEntropy()))
    # 2^31 / (64 x 128) pixels, less one, of 4096 an example.
    with pytest.raises(ModelError, match="too many pixels: choose 1 to 63"):
        et.plan(model, 64, micro_batch=64)
    assert et.plan(model, 64).micro_batch == 32


@pytest.mark.parametrize("mode", ["bnn", "fsb"])
@pytest.mark.parametrize("name", ["cnv", "binarynet", "har_cnn"])
def test_recomputing_leaves_nothing_that_could_go_at_the_peak(name: str, mode: Mode) -> None:
    whole = et.plan(MODELS[name](), mode=mode, recompute="never")
    lean = et.plan(MODELS[name](), mode=mode, recompute="always")
    assert not whole.recomputed
    assert lean.remade
    assert lean.peak_bytes < whole.peak_bytes
    assert lean.arithmetic.backward > whole.arithmetic.backward


def test_gradients_are_made_twice_before_the_micro_batch_shrinks() -> None:
    whole = et.plan(MODELS["cnv"]())
    assert not whole.remade
    fitting = et.plan(MODELS["cnv"](), memory=whole.peak_bytes - 1)
    assert fitting.remade
    assert fitting.micro_batch == whole.micro_batch
    smaller = et.plan(MODELS["cnv"](), memory=whole.peak_bytes - 1, recompute="never")
    assert smaller.micro_batch < whole.micro_batch
