"""A gradient that is made twice, an example at a time, is the gradient: every bit of the state."""

from __future__ import annotations

import numpy as np
import pytest

from edgetrain import _native
from edgetrain.model import Model
from edgetrain.models.stack import classifier, stage
from edgetrain.ops import AvgPool, BatchNorm, Conv1d, Conv2d, Op, Sign
from edgetrain.ops.op import Mode
from edgetrain.ops.weights import Training
from edgetrain.planner import plan
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
    lean = plan(model, BATCH, mode, threads=threads, recompute="always")
    assert lean.remade
    trainers = [Trainer(chosen, seed=2) for chosen in (whole, lean)]
    metrics = [trainer.fit(x, y, epochs=2) for trainer in trainers]
    assert metrics[0] == metrics[1]
    states = [trainer.state() for trainer in trainers]
    for key, value in states[0].items():
        np.testing.assert_array_equal(states[1][key], value, err_msg=key)
