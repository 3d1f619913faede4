"""FSB: a scale's gradient is a true derivative, and the signs never move and never travel."""

from __future__ import annotations

import numpy as np
import pytest

from edgetrain.errors import ModelError
from edgetrain.models import mlp
from edgetrain.ops.linear import GROUPS
from edgetrain.planner import plan
from edgetrain.reference.linear import LinearWeights
from edgetrain.train import Trainer


def layer(inputs: int, outputs: int, group: int, *, seed: int = 3) -> LinearWeights:
    """Return a fixed-sign layer with scales of many sizes."""
    weights = LinearWeights.initial("fsb", inputs, outputs, group=group, seed=seed, layer=0)
    weights.stored = np.random.default_rng(seed).integers(0, 256, weights.stored.shape)
    return weights


@pytest.mark.parametrize("group", GROUPS)
@pytest.mark.parametrize("inputs", [33, 64, 65])
def test_the_gradient_of_a_scale_is_its_finite_difference(group: int, inputs: int) -> None:
    weights = layer(inputs, 5, group)
    draws = np.random.default_rng(0)
    x = draws.choice([-1, 1], (17, inputs))
    demand = draws.integers(-64, 65, (17, 5))
    gradient = weights.weight_gradient(demand, x)
    # y is linear in the scales, so a difference of one whole level is exact.
    for output, j in np.ndindex(*weights.stored.shape):
        before = (demand * weights.forward(x)).sum()
        weights.stored[output, j] += 1
        after = (demand * weights.forward(x)).sum()
        weights.stored[output, j] -= 1
        assert after - before == gradient[output, j]


def test_the_gradient_of_the_input_is_its_finite_difference() -> None:
    weights = layer(20, 6, 4)
    draws = np.random.default_rng(1)
    x, demand = draws.integers(-128, 128, (9, 20)), draws.integers(-64, 65, (9, 6))
    gradient = weights.input_gradient(demand)
    for index in np.ndindex(*x.shape):
        moved = x.copy()
        moved[index] += 1
        difference = (demand * (weights.forward(moved) - weights.forward(x))).sum()
        assert difference == gradient[index]


def test_signs_depend_on_the_seed_alone_and_survive_training() -> None:
    model = mlp(64, 3, (48,), last="auto")
    x = np.random.default_rng(0).integers(0, 256, (40, 64)).astype(np.uint8)
    y = np.arange(40, dtype=np.uint8) % 3
    clients = [Trainer(plan(model, 10, "fsb"), seed=11, stream=stream) for stream in (1, 2)]
    initial = clients[0].state()
    for client in clients:
        client.fit(x, y, epochs=2)
    assert not any("latent" in name or "sign" in name for name in initial)
    different = {
        name
        for name in initial
        if bytes(clients[0].state()[name].data) != bytes(clients[1].state()[name].data)
    }
    assert "layer0.scale" in different, "two clients draw apart"
    # Given one state, clients of one seed judge alike whatever they did before: the same signs.
    for client in clients:
        client.load_state(initial)
    judged = [client.evaluate(x, y) for client in clients]
    assert judged[0] == judged[1]
    stranger = Trainer(plan(model, 10, "fsb"), seed=12)
    stranger.load_state(initial)
    assert stranger.evaluate(x, y) != judged[0]


def test_about_half_of_the_signs_are_positive() -> None:
    signs = layer(1000, 1000, 8).signs()
    # Five standard errors of the mean of a million fair signs.
    assert abs(signs.mean()) < 5 / np.sqrt(signs.size)
    assert abs((signs[:, :-1] * signs[:, 1:]).mean()) < 5 / np.sqrt(signs.size)


def test_one_scale_an_output_is_refused() -> None:
    with pytest.raises(ModelError, match="batch norm cancels"):
        plan(mlp(32, 4, (8,), group=32), 10, "fsb")
