"""Gradients made twice and sums made thrice, in parts, are the same: every bit of the state."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import edgetrain as et
from edgetrain import _native
from edgetrain.errors import ModelError
from edgetrain.model import Model
from edgetrain.models import mlp
from edgetrain.models.stack import classifier, stage
from edgetrain.ops import AvgPool, BatchNorm, Conv1d, Conv2d, Op, Sign
from edgetrain.ops.op import Mode
from edgetrain.ops.weights import Training
from edgetrain.planner import plan, recomputing
from edgetrain.recompute import remakable, streamable
from edgetrain.train import Trainer

ISAS = _native.supported_isas()
BATCH = 7
EXAMPLES = 3 * BATCH - 2
"""The last micro-batch is not whole."""


def images(*layers: Op) -> Model:
    """Return a model of 9 x 8 images whose first and last layers are the same for all."""
    first = stage(Conv2d(64, 3, training="int8"))
    return Model((9, 8, 3), (*first, *layers, *classifier((), 5, "int8")))


def signals(training: Training) -> Model:
    """Return a model of signals with one layer trained in a way of its own."""
    layers = (
        *stage(Conv1d(32, 5, training="bnn")),
        *stage(Conv1d(96, 4, training=training), pool=True),
        *stage(Conv1d(32, 1, padding="valid")),
    )
    return Model((40, 6), (*layers, *classifier((24,), 5, "int8")))


MODELS = {
    "pooled": images(
        *stage(Conv2d(32, 3), pool=True), *stage(Conv2d(64, 2, padding="valid")), *stage(Conv2d(32))
    ),
    "strided": images(*stage(Conv2d(96, 3, stride=2)), *stage(Conv2d(32, 5))),
    "averaged": images(Conv2d(64, 3), AvgPool(), BatchNorm(), Sign(), *stage(Conv2d(32, 3))),
    "grouped": images(*stage(Conv2d(128, 3, groups=2)), *stage(Conv2d(32, 3, groups=16))),
    "signals": signals("auto"),
    "signals_int8": signals("int8"),
}


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize(("mode", "threads"), [("bnn", 1), ("bnn", 3), ("fsb", 2)])
@pytest.mark.parametrize("name", MODELS)
def test_what_is_learnt_is_the_same(
    name: str, mode: Mode, threads: int, isa: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGETRAIN_ISA", isa)
    model = MODELS[name]
    draws = np.random.default_rng(5)
    x = draws.integers(-128, 128, (EXAMPLES, *model.input_shape), np.int8)
    y = draws.integers(0, 5, EXAMPLES)
    whole = plan(model, BATCH, mode, threads=threads, recompute="never")
    lean = recomputing(whole, remakable(model), streamable(model), gathered=True)
    assert lean.recomputed > 1
    trainers = [Trainer(chosen, seed=2) for chosen in (whole, lean)]
    metrics = [trainer.fit(x, y, epochs=2) for trainer in trainers]
    assert metrics[0] == metrics[1]
    assert trainers[0].evaluate(x, y) == trainers[1].evaluate(x, y)
    states = [trainer.state() for trainer in trainers]
    for key, value in states[0].items():
        np.testing.assert_array_equal(states[1][key], value, err_msg=key)


def test_a_checkpoint_goes_on_with_what_is_recomputed(tmp_path: Path) -> None:
    model = MODELS["pooled"]
    lean = recomputing(plan(model, BATCH), {1, 2}, {0, 3}, gathered=True)
    Trainer(lean).save(tmp_path / "lean")
    assert et.load(tmp_path / "lean").plan == lean


def test_what_something_else_asks_for_is_not_recomputed() -> None:
    whole = plan(MODELS["pooled"], BATCH)
    last = max(block.index for block in MODELS["pooled"].blocks())
    with pytest.raises(ModelError, match=f"block {last} cannot be recomputed"):
        recomputing(whole, {last}, ())
    with pytest.raises(ModelError, match=f"block {last} cannot be recomputed"):
        recomputing(whole, (), {last})
    with pytest.raises(ModelError, match="gather none"):
        recomputing(plan(mlp(8, 2, (32,)), BATCH), (), (), gathered=True)
