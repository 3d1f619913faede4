"""Kinds of latents: what they take, where they are refused, and how they are asked for."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import edgetrain as et
from edgetrain.config import ModelConfig
from edgetrain.errors import ConfigError, ModelError, PayloadError
from edgetrain.freeze import freeze, frozen_state
from edgetrain.ops.weights import LATENTS
from edgetrain.schema import check_tensors, state_schema
from edgetrain.step import FLIP_THRESHOLD, step_settings
from edgetrain.tensorfile import Tensor

MODEL = et.models.mlp(inputs=96, classes=4, hidden=(64, 32), last="auto")
WEIGHTS = 96 * 64 + 64 * 32 + 32 * 4
COMMAND = str(Path(sys.executable).parent / "edgetrain")
# Bytes a weight, of a state and what its optimiser keeps: widths are multiples of 32, so no byte
# is padding.
BYTES = {"int8": 1.0, "int4": 0.5, "bop": 1 + 1 / 8, "adam16": 6.0}


def kept(plan: et.Plan) -> int:
    """Return the bytes that a plan keeps for weights from step to step."""
    beside = ("shift", "moment1", "moment2", "mean", "deviation")
    last = max(placement.tensor.last for placement in plan.placements)
    return sum(
        p.tensor.bytes
        for p in plan.placements
        if (p.tensor.first, p.tensor.last) == (0, last)
        and p.tensor.name != "input"
        and p.tensor.name.split(".")[1] not in beside
    )


@pytest.mark.parametrize("latent", LATENTS)
def test_a_plan_keeps_the_bytes_of_its_kind(latent: Any) -> None:
    assert kept(et.plan(MODEL, 8, latent=latent)) == WEIGHTS * BYTES[latent]


@pytest.mark.parametrize("latent", LATENTS)
def test_a_convolution_keeps_the_bytes_of_its_kind(latent: Any) -> None:
    chosen = et.plan(et.models.cnv(last="bnn"), 8, latent=latent)
    names = ("latent", "latent4", "latent16", "signs", "average", "square")
    found = sum(
        p.tensor.bytes for p in chosen.placements if p.tensor.name in {f"layer1.{n}" for n in names}
    )
    assert found == 64 * 9 * 64 * BYTES[latent]


def test_odd_columns_take_whole_bytes_and_words() -> None:
    model = et.models.mlp(inputs=33, classes=3, hidden=(5,), last="auto")
    assert state_schema(model, "bnn", "int4")["layer0.latent4"] == ("U8", (5, 17))
    assert state_schema(model, "bnn", "bop")["layer0.signs"] == ("U32", (5, 2))
    assert state_schema(model, "bnn", "adam16")["layer0.latent16"] == ("F16", (5, 33))


@pytest.mark.parametrize("latent", ["int4", "bop", "adam16"])
def test_int8_layers_keep_their_latents_and_scales_are_refused(latent: Any) -> None:
    mixed = et.models.mlp(inputs=96, classes=4, hidden=(64,), last="int8")
    assert state_schema(mixed, "bnn", latent)["layer1.latent"] == ("I8", (4, 64))
    with pytest.raises(ModelError, match=f"trains scales of fixed signs and has no {latent}"):
        et.plan(mixed, 8, "fsb", latent=latent)
    integers = et.models.mlp(inputs=96, classes=4, hidden=(64,), first="int8", last="int8")
    with pytest.raises(ModelError, match="no layer is trained as bnn"):
        et.plan(integers, 8, latent=latent)


def test_an_unknown_kind_is_named() -> None:
    with pytest.raises(ModelError, match="unknown latents 'int2': choose one of int8, int4, bop"):
        et.plan(MODEL, 8, latent="int2")  # type: ignore[arg-type]


def test_a_fleet_refuses_what_it_cannot_average() -> None:
    assert ModelConfig(latent="int8").latent == "int8"
    with pytest.raises(ConfigError, match="a fleet averages int8 latents alone: write 'int8'"):
        ModelConfig(latent="bop")


def test_a_step_is_the_share_of_a_micro_batch() -> None:
    whole, half = (et.plan(MODEL, 8, latent="int4", micro_batch=size) for size in (8, 4))
    assert step_settings(whole, 0.04, 0, 1).held_step == round(0.04 * 7 * 256)
    assert step_settings(half, 0.04, 0, 1).held_step == round(0.02 * 7 * 256)
    bop = et.plan(MODEL, 8, latent="bop")
    assert step_settings(bop, 0.04, 0, 1).held_step == round(0.04 * 0.125 * 65536)
    assert step_settings(bop, 1000, 0, 1).held_step == 65536, "an average never overshoots"
    assert step_settings(bop, 0.04, 0, 1).threshold == round(FLIP_THRESHOLD * 127)


def test_a_half_that_is_not_finite_is_refused() -> None:
    schema = {"layer0.latent16": ("F16", (1, 2))}
    for bits in (0x7C00, 0xFE01):
        data = (0).to_bytes(2, "little") + bits.to_bytes(2, "little")
        with pytest.raises(PayloadError, match="not finite"):
            check_tensors({"layer0.latent16": Tensor("F16", (1, 2), data)}, schema, "the state")
    data = (0x7BFF).to_bytes(2, "little") * 2
    check_tensors({"layer0.latent16": Tensor("F16", (1, 2), data)}, schema, "the state")


def test_a_state_of_another_kind_is_refused() -> None:
    state = et.Trainer(et.plan(MODEL, 8, latent="int4")).state()
    with pytest.raises(PayloadError, match="lacks tensor"):
        et.Trainer(et.plan(MODEL, 8)).load_state(state)


@pytest.mark.parametrize("latent", LATENTS)
def test_a_layer_of_any_kind_can_be_frozen(latent: Any) -> None:
    state = et.Trainer(et.plan(MODEL, 8, latent=latent)).state()
    still = frozen_state(state, MODEL, "bnn", freeze(MODEL, 1))
    assert still.keys() == state_schema(freeze(MODEL, 1), "bnn", latent).keys()


@pytest.mark.parametrize("latent", LATENTS)
def test_a_command_trains_and_plans_each_kind(tmp_path: Path, latent: str) -> None:
    draws = np.random.default_rng(0)
    np.save(tmp_path / "x.npy", draws.integers(0, 256, (60, 96)).astype(np.uint8))
    np.save(tmp_path / "y.npy", draws.integers(0, 4, 60).astype(np.uint8))
    words = [COMMAND, "train", "mlp", "--hidden", "64", "--data", str(tmp_path), "--epochs", "1"]
    path = tmp_path / "m"
    subprocess.run(
        [*words, "--latent", latent, "--save", str(path)], check=True, capture_output=True
    )
    assert et.load(path).plan.latent == latent
    shown = subprocess.run(
        [COMMAND, "plan", "mlp", "--latent", latent, "--json"],
        check=True,
        capture_output=True,
        text=True,
    )
    assert json.loads(shown.stdout)["latent"] == latent
