"""Kinds of latents: the engine gives the oracle's bits, and each kind does what its paper says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import edgetrain as et
from edgetrain import _native
from edgetrain.freeze import freeze, frozen_state
from edgetrain.model import Model
from edgetrain.models import har_cnn, mlp
from edgetrain.models.stack import classifier, stage
from edgetrain.ops import Conv2d
from edgetrain.ops.weights import LATENTS
from edgetrain.planner import plan
from edgetrain.reference import ReferenceNetwork
from edgetrain.reference.latents import Adam16, Bop, Int4
from edgetrain.reference.random import Purpose, derive, shuffled
from edgetrain.schema import moment_schema, state_schema
from edgetrain.step import StepSettings, batch_bounds, step_settings
from edgetrain.train import Trainer
from tests.kernels.test_engine_equals_reference import data

ISAS = _native.supported_isas()
KINDS = tuple(latent for latent in LATENTS if latent != "int8")
TYPES = {
    "I8": np.int8,
    "U8": np.uint8,
    "U32": np.uint32,
    "F16": np.float16,
    "F32": np.float32,
}
IMAGES = Model(
    (7, 6, 3),
    (
        *stage(Conv2d(32, 3, training="bnn")),
        *stage(Conv2d(64, 3), pool=True),
        *stage(Conv2d(64, 3, groups=64)),
        *stage(Conv2d(32, 2, stride=2)),
        *classifier((40,), 5, "auto"),
    ),
)


def run_both(
    model: Model, latent: Any, x: Any, y: Any, *, batch: int, epochs: int = 1, threads: int = 1
) -> tuple[Trainer, ReferenceNetwork]:
    """Train the engine and the oracle alike."""
    chosen = plan(model, batch, latent=latent, threads=threads)
    trainer = Trainer(chosen, seed=5, stream=9, flip_threshold=0.02)
    trainer.fit(x, y, epochs=epochs)
    network = ReferenceNetwork(model, "bnn", seed=5, latent=latent)
    step = 0
    for epoch in range(epochs):
        order = shuffled(len(x), 5, 9 << 32 | epoch)
        for begin, end in batch_bounds(len(x), batch):
            taken = step_settings(chosen, trainer.learning_rate, 9 << 32 | step, step + 1, 0.02)
            network.train(x[order[begin:end]], y[order[begin:end]], taken)
            step += 1
    return trainer, network


def assert_same(trainer: Trainer, network: ReferenceNetwork) -> None:
    """Compare states and moments exactly."""
    kinds = (trainer.plan.model, "bnn", trainer.plan.latent)
    ours = state_schema(*kinds) | moment_schema(*kinds)
    for index, weights in enumerate(network.weights):
        for name, value in weights.tensors().items():
            dtype, shape = ours[f"layer{index}.{name}"]
            stored = np.frombuffer(trainer.tensor(f"layer{index}.{name}"), TYPES[dtype])
            np.testing.assert_array_equal(stored.reshape(shape), value, err_msg=name)
    for index, channels in enumerate(network.channels):
        names = ("shift", "mean", "deviation", "moment1", "moment2")
        for name in (name for name in names if f"layer{index}.{name}" in ours):
            stored = np.frombuffer(trainer.tensor(f"layer{index}.{name}"), np.float32)
            np.testing.assert_array_equal(stored, getattr(channels, name), err_msg=name)


@pytest.fixture(params=ISAS)
def isa(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Force each instruction set in turn."""
    monkeypatch.setenv("EDGETRAIN_ISA", request.param)
    return str(request.param)


@pytest.mark.parametrize("latent", KINDS)
@pytest.mark.parametrize("last", ["auto", "int8"])
@pytest.mark.parametrize("threads", [1, 3])
def test_whole_runs_are_the_oracles(isa: str, latent: str, last: Any, threads: int) -> None:
    model = mlp(70, 4, (65, 33), last=last)
    x, y = data(50, 70, 4, signed=True)
    trainer, network = run_both(model, latent, x, y, batch=16, epochs=3, threads=threads)
    assert trainer.isa == isa
    assert_same(trainer, network)
    assert trainer.evaluate(x, y).accuracy == network.evaluate(x, y)[1] / 50


@pytest.mark.parametrize("latent", KINDS)
def test_convolutions_are_the_oracles(isa: str, latent: str) -> None:
    x, y = data(20, IMAGES.input_features, 5)
    trainer, network = run_both(IMAGES, latent, x, y, batch=10, epochs=2)
    assert trainer.isa == isa
    assert_same(trainer, network)


@pytest.mark.parametrize("latent", KINDS)
def test_a_ready_made_model_and_a_frozen_layer_are_the_oracles(latent: str) -> None:
    for model in (har_cnn(classes=5), freeze(IMAGES, 1)):
        x, y = data(12, model.input_features, 5)
        assert_same(*run_both(model, latent, x, y, batch=6))


@settings(max_examples=40)
@given(
    features=st.integers(1, 70),
    hidden=st.integers(2, 70),
    batch=st.integers(1, 9),
    latent=st.sampled_from(KINDS),
)
def test_any_shape_is_the_oracles(features: int, hidden: int, batch: int, latent: str) -> None:
    x, y = data(9, features, 3)
    model = mlp(features, 3, (hidden,), last="auto")
    assert_same(*run_both(model, latent, x, y, batch=batch, epochs=2))


@pytest.mark.parametrize("latent", KINDS)
def test_a_stopped_run_goes_on_bit_for_bit(tmp_path: Path, latent: Any) -> None:
    x, y = data(47, 30, 3)
    model = mlp(30, 3, (33,), last="auto")
    chosen = plan(model, 10, latent=latent)
    whole = Trainer(chosen, seed=2, flip_threshold=0.02)
    whole.fit(x, y, epochs=3, schedule="linear", schedule_epochs=3)
    whole.save(tmp_path / "whole")
    part = Trainer(chosen, seed=2, flip_threshold=0.02)
    asked = iter(range(7))
    part.fit(
        x,
        y,
        epochs=3,
        schedule="linear",
        schedule_epochs=3,
        should_stop=lambda: next(asked, None) is None,
    )
    part.save(tmp_path / "part")
    again = et.load(tmp_path / "part")
    again.fit(x, y, epochs=2, schedule="linear", schedule_epochs=3)
    again.save(tmp_path / "again")
    assert (tmp_path / "again").read_bytes() == (tmp_path / "whole").read_bytes()


@pytest.mark.parametrize("latent", KINDS)
def test_a_loaded_state_forgets_moments_and_judges_alike(latent: Any) -> None:
    x, y = data(40, 30, 3)
    chosen = plan(mlp(30, 3, (33,), last="auto"), 10, latent=latent)
    trained, heir = Trainer(chosen, seed=2), Trainer(chosen, seed=3)
    trained.fit(x, y, epochs=2)
    heir.fit(x, y)
    heir.load_state(trained.state())
    assert heir.evaluate(x, y) == trained.evaluate(x, y)
    for name in moment_schema(chosen.model, "bnn", latent):
        assert not any(heir.tensor(name))


def test_signs_that_bop_learnt_can_be_frozen() -> None:
    x, y = data(40, 30, 3)
    model = mlp(30, 3, (33,))
    trained = Trainer(plan(model, 10, latent="bop"), seed=2, flip_threshold=0.02)
    trained.fit(x, y, epochs=2)
    still = freeze(model, 1)
    heir = Trainer(plan(still, 10), seed=4)
    heir.load_state(frozen_state(trained.state(), model, "bnn", still))
    assert heir.evaluate(x, y) == trained.evaluate(x, y)


def step_of(**fields: Any) -> StepSettings:
    """Return the settings of a step, mostly nothing."""
    zeros = dict.fromkeys(StepSettings.__annotations__, 0)
    return StepSettings(**{**zeros, "correction1": 1.0, "correction2": 1.0, **fields})


def test_an_int4_step_is_unbiased() -> None:
    rows, columns = 200, 500
    weights = Int4(rows, columns, 0, 0)
    weights.levels[:] = 0
    gradient = np.full((rows, columns), 3)
    weights.update(gradient, derive(0, 1, 0, Purpose.WEIGHT_UPDATE), step_of(held_step=72))
    # Five standard errors of the mean of 10^5 draws that are 1 in 72 of 256 cases.
    share = 72 / 256
    error = np.sqrt(share * (1 - share) / weights.levels.size)
    assert abs(weights.levels.mean() + share) < 5 * error


def test_bop_flips_a_sign_that_agrees_with_a_large_average_and_no_other() -> None:
    weights = Bop(2, 3, 0, 0)
    weights._signs = np.array([[1, 1, 1], [-1, -1, -1]])
    weights.average = np.array([[40, 39, -100], [40, -40, -39]])
    weights.update(np.zeros((2, 3), int), derive(0, 0, 0, 0), step_of(threshold=39))  # type: ignore[arg-type]
    np.testing.assert_array_equal(weights.signs, [[-1, 1, 1], [-1, 1, -1]])


def test_bops_average_is_unbiased_and_stays_in_its_range() -> None:
    weights = Bop(300, 300, 0, 0)
    gradient = np.ones((300, 300), int)
    expected = 0.0
    for step in range(400):
        key = derive(0, step, 0, Purpose.WEIGHT_UPDATE)
        weights.update(gradient, key, step_of(held_step=655, threshold=127))
        expected += 655 / 65536 * (127 - expected)
    assert weights.average.max() <= 127
    # A rounding has a variance of 1/4 at most, and the average forgets: 1/4 / (2 x 0.01) each.
    assert abs(weights.average.mean() - expected) < 5 * np.sqrt(12.5 / weights.average.size)


def test_adam_walks_at_its_rate_and_stops_at_one() -> None:
    weights = Adam16(1, 4, 0, 0, fan_in=64)
    weights.latent[:] = np.array([0.5, -0.5, 0.25, 0.999], np.float16)
    gradient = np.array([[5, -1, 0, -900]])
    before = weights.latent.astype(np.float64)
    for step in range(1, 11):
        taken = step_of(
            shift_learning_rate=1e-2, correction1=1 - 0.9**step, correction2=1 - 0.999**step
        )
        weights.update(gradient, derive(0, 0, 0, Purpose.WEIGHT_UPDATE), taken)
    moved = weights.latent.astype(np.float64) - before
    # Under a constant gradient Adam's step is its rate, whatever the size; halves are coarse.
    np.testing.assert_allclose(moved[0, :3], [-0.1, 0.1, 0], atol=4e-3)
    assert weights.latent[0, 3] == 1


@pytest.mark.parametrize("latent", KINDS)
def test_each_kind_learns(latent: Any) -> None:
    draws = np.random.default_rng(1)
    centres = draws.integers(40, 216, (4, 64))
    y = draws.integers(0, 4, 600).astype(np.uint8)
    x = np.clip(centres[y] + draws.normal(0, 40, (600, 64)), 0, 255).astype(np.uint8)
    # A hundred steps are few for an average of two hundred.
    rate = 0.1 if latent == "bop" else 0.04
    chosen = plan(mlp(64, 4, (64,), last="auto"), 30, latent=latent)
    trainer = Trainer(chosen, learning_rate=rate)
    trainer.fit(x[:400], y[:400], epochs=8)
    # Chance is a quarter; the classes lie many deviations apart.
    assert trainer.evaluate(x[400:], y[400:]).accuracy > 0.9
