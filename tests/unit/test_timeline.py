"""A plan over time: every byte that is alive is counted once, under its layer and purpose."""

from __future__ import annotations

import re

import pytest

import edgetrain as et
from edgetrain.arena import alive_bytes
from edgetrain.freeze import freeze
from edgetrain.lifetime import Steps
from edgetrain.models import MODELS
from edgetrain.planner import Plan, plan
from edgetrain.timeline import PURPOSES, owners, peak, timeline

BATCH = 4


def plans() -> list[Plan]:
    """Return plans of every model, some with gradients made twice, some with frozen layers."""
    return [
        *(plan(make(), BATCH) for make in MODELS.values()),
        plan(MODELS["cnv"](), BATCH, recompute="always"),
        plan(freeze(MODELS["cnv"](), 3), BATCH),
        plan(et.models.mlp(8, 2, (4,)), BATCH, "fsb"),
    ]


@pytest.mark.parametrize("chosen", plans(), ids=str)
def test_what_is_alive_at_a_step_is_what_the_placements_say(chosen: Plan) -> None:
    moments = timeline(chosen)
    tensors = [placement.tensor for placement in chosen.placements]
    assert [moment.bytes for moment in moments] == [
        alive_bytes(tensors, moment.step) for moment in moments
    ]
    assert peak(moments).bytes == chosen.lower_bound_bytes
    layers = {None, *range(sum(1 for _ in chosen.model.blocks()))}
    for moment in moments:
        assert sum(moment.used(purpose) for purpose in PURPOSES) == moment.bytes
        assert sum(moment.held(layer) for layer in layers) == moment.bytes


def test_the_peak_is_the_first_of_equals() -> None:
    moments = timeline(plan(et.models.mlp(), BATCH))
    assert peak([*moments, *moments]).step == peak(moments).step


def test_every_tensor_has_an_owner_and_state_lives_through_all_steps() -> None:
    chosen = plan(MODELS["har_cnn"](), BATCH)
    owner = owners(chosen)
    assert set(owner) == {placement.tensor.name for placement in chosen.placements}
    for placement in chosen.placements:
        tensor = placement.tensor
        lasting = (tensor.first, tensor.last) == (0, Steps.of(chosen.model).last)
        if owner[tensor.name].purpose == "state":
            assert lasting
    assert owner["layer1.latent"].layer == 1
    assert owner["input"].layer is None
    assert owner["layer1.sign"].purpose == "activations"


def test_steps_are_called_by_what_they_do() -> None:
    model = MODELS["cnv"]()
    steps = Steps.of(model)
    assert steps.describe(0) == "loading"
    assert steps.describe(steps.blocks + 1) == "loss"
    for index in range(steps.blocks):
        assert steps.describe(steps.forward(index)) == f"forward, layer {index}"
        assert steps.describe(steps.norm(index)) == f"norm, layer {index}"
        assert steps.describe(steps.products(index)) == f"products, layer {index}"
    assert steps.busy[-1] == steps.last


def test_nothing_is_done_below_the_lowest_layer_that_trains() -> None:
    frozen = timeline(plan(freeze(MODELS["cnv"](), 5), BATCH))
    backward = [moment.name for moment in frozen if re.match("norm|products", moment.name)]
    assert backward[-1] == "products, layer 5"
    assert "layer 4" not in " ".join(backward)
