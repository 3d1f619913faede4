"""Frozen layers: the oracle's bits, signs that never move, and no gradient where none is needed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgetrain import _native
from edgetrain.freeze import freeze, frozen_state, trained_as
from edgetrain.model import Model
from edgetrain.models import har_cnn, mlp
from edgetrain.models.stack import classifier, stage
from edgetrain.ops import (
    AvgPool,
    BatchNorm,
    Conv2d,
    GlobalAveragePool,
    Linear,
    Or,
    Sign,
    WeightOp,
    Xnor,
)
from edgetrain.planner import plan
from edgetrain.train import Trainer
from tests.kernels.test_engine_equals_reference import assert_same_state, data, run_both

ISAS = _native.supported_isas()
IMAGES = Model(
    (7, 6, 3),
    (
        *stage(Conv2d(32, 3, training="bnn")),
        *stage(Conv2d(64, 3, stride=2), pool=True),
        *stage(Conv2d(32, 2)),
        *classifier((40,), 5, "int8"),
    ),
)
AVERAGED = Model(
    (7, 6, 3),
    (
        *(Conv2d(32, 3, training="bnn"), AvgPool(), BatchNorm(), Sign()),
        *stage(Conv2d(32, 2)),
        *(*stage(Conv2d(64, 2))[:-1], Sign(), GlobalAveragePool()),
        *classifier((40,), 5, "int8")[1:],
    ),
)
JOINED = Model(
    30,
    (
        *stage(Linear(40)),
        *(*stage(Linear(40)), Or(1)),
        *(*stage(Linear(40)), Xnor(2)),
        *(*stage(Linear(40)), Or(3)),
        *classifier((), 5, "int8")[1:],
    ),
)
MODELS = {
    "rows": mlp(70, 5, (65, 33, 40)),
    "images": IMAGES,
    "joined": JOINED,
    "averaged": AVERAGED,
}


def frozen_at(model: Model, places: tuple[int, ...]) -> Model:
    """Return the model with the weight layers of these numbers frozen."""
    ops, number = list(model.layers), -1
    for place, op in enumerate(ops):
        if isinstance(op, WeightOp):
            number += 1
            if number in places:
                ops[place] = trained_as(op, "frozen")
    return Model(model.input_shape, tuple(ops))


@pytest.fixture(params=ISAS)
def isa(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Force each instruction set in turn."""
    monkeypatch.setenv("EDGETRAIN_ISA", request.param)
    return str(request.param)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("mode", ["bnn", "fsb"])
@pytest.mark.parametrize("places", [(0,), (0, 1), (0, 1, 2), (1,), (0, 2), (3,), (1, 2, 3)])
def test_whole_runs_are_the_oracles(
    isa: str, name: str, mode: str, places: tuple[int, ...]
) -> None:
    model = frozen_at(MODELS[name], places)
    x, y = data(21, model.input_features, 5)
    trainer, network = run_both(model, mode, x, y, batch=8, epochs=2)
    assert trainer.isa == isa
    assert_same_state(trainer, network)
    assert trainer.evaluate(x, y).accuracy == network.evaluate(x, y)[1] / 21


@settings(max_examples=30)
@given(
    features=st.integers(1, 70),
    widths=st.tuples(st.integers(2, 70), st.integers(2, 70)),
    places=st.sets(st.integers(0, 2), max_size=2),
    batch=st.integers(1, 9),
    threads=st.integers(1, 3),
)
def test_any_shape_and_number_of_threads_is_the_oracles(
    features: int, widths: tuple[int, int], places: set[int], batch: int, threads: int
) -> None:
    model = frozen_at(mlp(features, 3, widths, last="auto"), tuple(places))
    x, y = data(9, features, 3)
    trainer, network = run_both(model, "bnn", x, y, batch=batch, threads=threads)
    assert_same_state(trainer, network)


def test_lifetimes_share_the_arena_without_changing_a_bit() -> None:
    for model in (
        freeze(model, layers) for model in (IMAGES, JOINED, AVERAGED) for layers in range(4)
    ):
        x, y = data(16, model.input_features, 5)
        states = []
        for reuse in (True, False):
            trainer = Trainer(plan(model, 8, reuse=reuse), seed=2)
            trainer.fit(x, y, epochs=2)
            states.append({name: bytes(t.data) for name, t in trainer.state().items()})
        assert states[0] == states[1]


@pytest.mark.parametrize("model", [freeze(MODELS["rows"], 2), freeze(har_cnn(classes=5), 2)])
def test_below_the_lowest_trained_layer_only_statistics_move(model: Model) -> None:
    trainer = Trainer(plan(model, 10), seed=4)
    before = trainer.state()
    trainer.fit(*data(40, model.input_features, 5), epochs=2)
    moved = {
        name
        for name, tensor in trainer.state().items()
        if bytes(tensor.data) != bytes(before[name].data)
    }
    for layer in (0, 1):
        assert {f"layer{layer}.mean", f"layer{layer}.deviation"} <= moved
        assert not {f"layer{layer}.signs", f"layer{layer}.shift"} & moved
    assert {"layer2.latent", "layer2.shift"} <= moved


def test_a_layer_frozen_after_training_computes_what_it_did() -> None:
    for model in MODELS.values():
        trained = Trainer(plan(model, 10), seed=3)
        x, y = data(40, model.input_features, 5)
        trained.fit(x, y)

        still = freeze(model, 3)
        heir = Trainer(plan(still, 10), seed=8)
        heir.load_state(frozen_state(trained.state(), model, "bnn", still))
        assert heir.evaluate(x, y) == trained.evaluate(x, y)


def test_bits_past_the_last_column_mean_nothing() -> None:
    model = freeze(mlp(40, 3, (8,)), 1)
    trainer = Trainer(plan(model, 4), seed=0)
    x, y = data(12, 40, 3)
    state = trainer.state()
    judged = trainer.evaluate(x, y)
    signs: Any = np.frombuffer(state["layer0.signs"].data, np.uint32).reshape(8, 2) | [
        0,
        0xFFFFFF00,
    ]
    tensor = state["layer0.signs"]
    state["layer0.signs"] = type(tensor)("U32", (8, 2), signs.astype(np.uint32).tobytes())
    trainer.load_state(state)
    assert trainer.evaluate(x, y) == judged
