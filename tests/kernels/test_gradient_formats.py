"""Formats of the gradient: what each promises of its values, and that the engine gives its bits."""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgetrain import _native
from edgetrain.errors import DataError, ModelError
from edgetrain.gradient import GRADIENT_FORMATS, MOST_DRAWS, Gradient, gradient_of
from edgetrain.model import Model
from edgetrain.models import mlp
from edgetrain.ops import (
    Add,
    BatchNorm,
    Conv2d,
    Flatten,
    Linear,
    MaxPool,
    Sign,
    Signal,
    SoftmaxCrossEntropy,
    Xnor,
)
from edgetrain.ops.weights import LARGEST_GRADIENT
from edgetrain.planner import plan
from edgetrain.reference.gradient import Quantised, halvings, quantise
from edgetrain.reference.radix4 import radix4_codes
from edgetrain.reference.random import Purpose, derive
from edgetrain.train import Trainer, load
from tests.kernels.test_engine_equals_reference import assert_same_state, data, decode, run_both

ISAS = _native.supported_isas()
NATIVE = [name for name, form in GRADIENT_FORMATS.items() if "native" in form.engines]
RANDOM = [name for name, form in GRADIENT_FORMATS.items() if form.random]
SPAN = GRADIENT_FORMATS["luq4_channel"].span

DRAWS = 2000
# A standard normal exceeds this once in 1.7 million draws; the largest of some 2000 stays below.
LARGEST_Z = 5.0
# The standard error of a standard deviation over so many elements is some 0.02.
SPREAD_TOLERANCE = 0.1
# Of a ratio of two variances, each from DRAWS samples of thousands of sums: its standard error is
# below 2 %, since sums of one tensor share its draws.
VARIANCE_TOLERANCE = 0.08
# What 2^20 log-uniform magnitudes may stray from the integrals over one octave pair.
RADIX4_TOLERANCE = 0.002


def channels_apart(rows: int = 40, channels: int = 30) -> Any:
    """Return float32 gradients whose channels' sizes differ by up to 2^10."""
    draws = np.random.default_rng(3)
    return (draws.standard_normal((rows, channels)) * 2 ** draws.uniform(-10, 0, channels)).astype(
        np.float32
    )


def keys(number: int, first: int = 0) -> list[tuple[int, int]]:
    """Return the keys of so many draws, others for every first."""
    return [derive(first, 0, draw << 32, Purpose.GRADIENT_CODES) for draw in range(number)]


def quantised(x: Any, gradient: Gradient, seed: int = 0) -> Quantised:
    """Return what stands for x in a format."""
    form = gradient.format
    return quantise(x, form, form.span, keys(gradient.draws, seed))


def test_every_format_says_how_many_bits_it_takes() -> None:
    x = channels_apart()
    for name, form in GRADIENT_FORMATS.items():
        codes = quantised(x, gradient_of(name)).codes
        if form.bits < 32:
            assert all(len(np.unique(draw)) <= 2**form.bits for draw in codes)
        assert gradient_of(name).code_bytes(100) == 100 * form.bits // 8


def test_the_scales_of_channels_are_the_tensors_halved() -> None:
    x = channels_apart()
    x[:, 4] = 0
    halved = halvings(x, SPAN)
    largest = np.abs(x).max(0)
    tensor = largest.max()
    np.testing.assert_array_equal(halved[largest == tensor], 0)
    assert halved[4] == SPAN
    others = largest > 0
    expected = np.clip(np.floor(np.log2(tensor / largest[others])), 0, SPAN)
    np.testing.assert_array_equal(halved[others], expected)
    given = quantised(x, gradient_of("luq4_channel"))
    assert np.abs(given.codes).max() == 64
    # A channel within the span fills more than half of the codes' range.
    near = others & (largest * 2.0**SPAN > tensor)
    assert np.abs(given.codes[0]).max(0)[near].min() >= 32
    np.testing.assert_array_equal(given.below, given.codes[0] * 2 ** (SPAN - halved))


@pytest.mark.parametrize("name", RANDOM)
def test_the_expectation_of_a_drawn_format_is_the_value(name: str) -> None:
    assert GRADIENT_FORMATS[name].unbiased
    x, gradient = channels_apart(), gradient_of(name)
    samples = np.zeros((2, *x.shape))
    for seed in range(DRAWS):
        given = quantised(x, gradient, seed)
        value = given.below * np.float64(given.unit)
        samples += value, value**2
    mean = samples[0] / DRAWS
    # Magnitudes between two codes, from the closed form of the variance: (x - low) (high - x).
    unit = np.float64(np.abs(x).max() / 64) * 0.5 ** halvings(x, gradient.format.span)
    scaled = np.abs(x) / unit
    low = np.where(scaled < 1, 0, 2.0 ** np.floor(np.log2(np.maximum(scaled, 1))))
    spread = unit * np.sqrt((scaled - low) * (np.where(scaled < 1, 1, 2 * low) - scaled) / DRAWS)
    # An element that is rounded away from its likely code once in all draws is not normal yet.
    rare = np.minimum(scaled - low, 1) * DRAWS < 20
    z = ((mean - x) / np.where(spread > 0, spread, 1))[(spread > 0) & ~rare]
    assert np.abs(z).max() < LARGEST_Z
    assert z.std() == pytest.approx(1, abs=SPREAD_TOLERANCE)


def test_a_scale_a_channel_keeps_what_a_scale_a_tensor_drowns() -> None:
    x = channels_apart(400)
    errors = []
    for name in ("luq4", "luq4_channel"):
        given = quantised(x, gradient_of(name))
        error = (given.below * np.float64(given.unit) - x) ** 2
        errors.append(error.sum(0) / (x.astype(np.float64) ** 2).sum(0))
    # Small channels, of which half the elements and more fall below the tensor's smallest code.
    small = np.abs(x).max(0) * 32 < np.abs(x).max()
    assert small.any()
    assert np.all(errors[1][small] * 4 < errors[0][small])


@pytest.mark.parametrize("draws", [2, 3, MOST_DRAWS])
def test_the_sum_of_draws_divides_the_variance_of_the_weight_gradient(draws: int) -> None:
    rng = np.random.default_rng(7)
    x, signs = channels_apart(), rng.choice([-1, 1], (40, 50))
    variance = {}
    for number in (1, draws):
        sums = np.zeros((2, x.shape[1], 50))
        for seed in range(DRAWS):
            given = quantised(x, Gradient(GRADIENT_FORMATS["luq4"], number), seed)
            mean = given.moves.T @ signs / number
            sums += mean, mean**2
        variance[number] = (sums[1] / DRAWS - (sums[0] / DRAWS) ** 2).sum()
    assert variance[1] / variance[draws] == pytest.approx(draws, rel=VARIANCE_TOLERANCE)


def test_the_phases_of_radix_4_are_its_published_grids() -> None:
    x = np.random.default_rng(2).standard_normal((100, 40)).astype(np.float32)
    even, odd, unit = radix4_codes(x)
    assert set(np.unique(np.abs(even))) <= {0} | {2 * 4**n for n in range(7)}
    assert set(np.unique(np.abs(odd))) <= {0} | {4**n for n in range(7)}
    assert np.abs(even).max() * np.float64(unit) == pytest.approx(np.abs(x).max(), rel=1e-6)
    # The boundary between 4^(n-1) and 4^n is 4^n / 1.6.
    grid = np.float32(2) * 4 ** np.arange(7, dtype=np.float32)
    for n in range(1, 7):
        edge = grid[n] / np.float32(1.6)
        near = np.array([[edge * 0.999, edge * 1.001, grid[6]]], np.float32)
        np.testing.assert_array_equal(radix4_codes(near)[0], [[grid[n - 1], grid[n], grid[6]]])


def test_radix_4_errs_as_published_and_its_phases_cancel_in_part() -> None:
    # Log-uniform over six factors of four, inside both grids.
    magnitude = 4.0 ** np.random.default_rng(4).uniform(0.5, 5.5, 2**20)
    x = np.append(magnitude, 2.0 * 4**6).astype(np.float32)[None]
    even, odd, unit = radix4_codes(x)
    errors = np.stack([(code * np.float64(unit) / x - 1)[0, :-1] for code in (even, odd)])
    whole = (magnitude > 4) & (magnitude < 4**5)
    errors = errors[:, whole]
    shrinks = 1.2 / np.log(4) - 1
    np.testing.assert_allclose(errors.mean(1), shrinks, atol=RADIX4_TOLERANCE)
    assert np.corrcoef(errors)[0, 1] == pytest.approx(-0.49, abs=0.01)
    assert np.sqrt((errors**2).mean(1)) == pytest.approx([0.367] * 2, abs=0.002)
    assert np.sqrt((errors.mean(0) ** 2).mean()) == pytest.approx(0.219, abs=0.002)


def images(training: Any, outputs: int = 64) -> Model:
    """Return a model with a pool, a stride, a border and a flattening."""
    layers = (
        *(Conv2d(32, 3, training="bnn"), BatchNorm(), Sign()),
        *(Conv2d(outputs, 3, 2, training=training), BatchNorm(), Sign()),
        *(Conv2d(32, 3, training=training), MaxPool(), BatchNorm(), Sign(), Flatten()),
        *(Linear(5, "int8"), BatchNorm(), SoftmaxCrossEntropy()),
    )
    return Model((9, 8, 3), layers)


def joined() -> Model:
    """Return a model of shortcuts, which send codes of gradients on, and a depthwise layer."""
    layers = (
        *(Conv2d(32, 3, training="bnn"), BatchNorm(), Sign()),
        *(Conv2d(32, 3), Add(1), BatchNorm(), Sign()),
        *(Conv2d(32, 3), BatchNorm(), Sign(), Xnor(1)),
        *(Conv2d(32, 3, groups=32), BatchNorm(), Sign(), Flatten()),
        *(Linear(5, "int8"), BatchNorm(), SoftmaxCrossEntropy()),
    )
    return Model((6, 5, 3), layers)


MODELS: dict[str, tuple[Model, str]] = {
    "linear_bnn": (mlp(70, 5, (65, 33)), "bnn"),
    "linear_fsb": (mlp(70, 5, (65, 33), group=8), "fsb"),
    "linear_int8": (mlp(40, 4, (64, 40), first="int8"), "bnn"),
    "images_bnn": (images("auto"), "bnn"),
    "images_int8": (images("int8"), "bnn"),
    "images_fsb": (images("auto"), "fsb"),
    "joined_bnn": (joined(), "bnn"),
}
CHOICES = [
    (name, draws) for name, draws in product(NATIVE, (1, 2, 3)) if (name, draws) != ("luq4", 1)
]


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize(("name", "draws"), CHOICES)
def test_the_engine_gives_the_oracles_bits(
    monkeypatch: pytest.MonkeyPatch, isa: str, model: str, name: str, draws: int
) -> None:
    monkeypatch.setenv("EDGETRAIN_ISA", isa)
    built, mode = MODELS[model]
    x, y = data(10, built.input_features, built.classes)
    gradient = gradient_of(name, draws)
    threads = 1 + draws % 2
    trainer, network = run_both(
        built, mode, x, y, batch=5, epochs=2, threads=threads, gradient=gradient
    )
    assert trainer.isa == isa
    for index, trace in enumerate(network.traces):
        assert trace.gradient is not None
        expected = trace.gradient.codes
        drawn, rows, channels = expected.shape
        packed = trainer.tensor(f"layer{index}.codes")
        size = len(packed) // drawn
        for draw in range(drawn):
            codes = decode(packed[draw * size : (draw + 1) * size], rows, channels)
            np.testing.assert_array_equal(codes, expected[draw])
    assert_same_state(trainer, network)


@pytest.mark.parametrize("name", ["radix4_tpr", "f32"])
def test_a_format_for_study_trains_in_the_oracle_alone(name: str) -> None:
    draws = np.random.default_rng(1)
    y = draws.integers(0, 3, 300).astype(np.uint8)
    x = (draws.normal(size=(300, 20)) + 2 * np.eye(3, 20)[y]).astype(np.float32)
    chosen = plan(mlp(20, 3, (32, 32)), 30, gradient=name)
    with pytest.raises(ModelError, match="choose --engine reference"):
        Trainer(chosen)
    trainer = Trainer(chosen, engine="reference")
    trainer.fit(x, y, epochs=5)
    # Chance is a third; three classes two deviations apart are told apart by most examples.
    assert trainer.evaluate(x, y).accuracy > 0.6


@pytest.mark.parametrize("mode", ["bnn", "fsb"])
def test_the_reference_engine_is_the_native_one_to_a_trainer(tmp_path: Path, mode: Any) -> None:
    model, (x, y) = mlp(20, 3, (32, 32)), data(60, 20, 3)
    chosen = plan(model, 12, mode, gradient="luq4_channel", draws=2)
    native, reference = Trainer(chosen, 3), Trainer(chosen, 3, engine="reference")
    assert native.fit(x, y, epochs=2).accuracy == reference.fit(x, y, epochs=2).accuracy
    assert native.state() == reference.state()
    reference.save(tmp_path / "saved")
    resumed = load(tmp_path / "saved")
    assert resumed.engine == "reference"
    assert resumed.plan.gradient == gradient_of("luq4_channel", 2)
    native.fit(x, y)
    resumed.fit(x, y)
    assert native.state() == resumed.state()
    with pytest.raises(DataError, match=r"label \d is out of range"):
        resumed.fit(x, y + 7)


def test_channels_of_a_trained_net_take_different_scales() -> None:
    model, mode = MODELS["images_bnn"]
    x, y = data(10, model.input_features, model.classes)
    _, network = run_both(model, mode, x, y, batch=5, gradient=gradient_of("luq4_channel"))
    shifts = set[int]()
    for trace in network.traces:
        assert trace.gradient is not None
        for below, codes in zip(trace.gradient.below.T, trace.gradient.codes[0].T, strict=True):
            shifts |= set((below[codes != 0] // codes[codes != 0]).tolist())
    assert len(shifts) > 2


@pytest.mark.parametrize("training", ["bnn", "int8", "fsb"])
@pytest.mark.parametrize("outputs", [10, 500, 3000, 7000])
def test_every_sum_of_the_gradient_of_the_input_fits_32_bits(training: Any, outputs: int) -> None:
    gradient, largest = gradient_of("luq4_channel"), {"bnn": 1, "int8": 127, "fsb": 255}[training]
    dense, image = Signal(1, 1, 64, "bits"), Signal(8, 8, 64, "bits")
    for op, source, taps in ((Linear(outputs, training), dense, 1), (Conv2d(outputs), image, 9)):
        weight = largest if isinstance(op, Linear) else 255
        span = op.gradient_span(source, "fsb", gradient)
        assert 64 * weight * taps * outputs * 2**span <= LARGEST_GRADIENT < 2**31
        assert (
            span == SPAN or 64 * (weight + 1) * taps * outputs * 2 ** (span + 1) > LARGEST_GRADIENT
        )
