"""Frozen layers: what a plan keeps of them, what crosses the wire, and how they are asked for."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import edgetrain as et
from edgetrain.arena import ALIGNMENT
from edgetrain.config import ModelConfig
from edgetrain.coordinator.aggregate import Accumulator
from edgetrain.coordinator.global_model import GlobalModel
from edgetrain.errors import ModelError, PayloadError
from edgetrain.freeze import freeze, frozen_state
from edgetrain.ops import BatchNorm, Linear, SoftmaxCrossEntropy
from edgetrain.schema import check_state, state_schema, trained_schema
from edgetrain.task import Report, Task
from edgetrain.tensorfile import Tensor
from edgetrain.update import (
    check_update,
    encode_update,
    trained_part,
    update_bytes,
    update_schema,
)

MODEL = et.models.mlp(inputs=70, classes=3, hidden=(65, 33, 20))
COMMAND = str(Path(sys.executable).parent / "edgetrain")


def examples(count: int = 30) -> tuple[Any, Any]:
    """Return random examples of MODEL."""
    draws = np.random.default_rng(0)
    return (
        draws.integers(0, 256, (count, 70)).astype(np.uint8),
        draws.integers(0, 3, count).astype(np.uint8),
    )


def tensors_of(model: et.Model, layer: int, batch: int = 8) -> dict[str, int]:
    """Return the bytes of every tensor of a layer, by name."""
    prefix = f"layer{layer}."
    return {
        placement.tensor.name.removeprefix(prefix): placement.tensor.bytes
        for placement in et.plan(model, batch).placements
        if placement.tensor.name.startswith(prefix)
    }


def test_below_the_lowest_trained_layer_a_plan_keeps_what_the_forward_pass_needs() -> None:
    assert tensors_of(freeze(MODEL, 2), 1) == {
        "signs": 33 * 3 * 4,  # 65 inputs are three words
        "shift": 33 * 4,
        "mean": 33 * 4,
        "deviation": 33 * 4,
        "sign": 8 * 64 // 8,
        # A panel of three words a lane, two rows of sums, and the sums of eight examples.
        "forward_tile": 3 * 32 * 4 + 2 * 32 * 4 + 8 * 32 * 4,
    }


def test_a_frozen_layer_above_a_trained_one_passes_the_gradient_and_no_more() -> None:
    def freeze_second(model: et.Model) -> et.Model:
        layers = list(model.layers)
        layers[3] = Linear(33, "frozen")
        return et.Model(model.input_shape, tuple(layers))

    trained, frozen = tensors_of(MODEL, 1), tensors_of(freeze_second(MODEL), 1)
    assert trained.keys() - frozen.keys() == {"latent", "code_columns"}
    assert frozen.keys() - trained.keys() == {"signs"}
    # The panel of x, of eight examples, and the tile of 64 x 32 sums are gone.
    assert trained["backward_tile"] - frozen["backward_tile"] == 8 * 32 + 64 * 32 * 4
    assert trained["mask"] == frozen["mask"]


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_freezing_shrinks_the_arena_to_the_byte(layers: int) -> None:
    """With a place of its own for each tensor, the arena is their sum: what is saved is counted."""

    def room(size: int) -> int:
        return -(-size // ALIGNMENT) * ALIGNMENT

    saved, widths, rows = 0, (70, 65, 33, 20), 8
    for layer in range(layers):
        inputs, outputs = widths[layer], widths[layer + 1]
        padded = -(-outputs // 32) * 32
        words = -(-inputs // 32)
        saved += room(inputs * outputs) - room(outputs * words * 4)
        saved += 2 * room(outputs * 4)  # moments of the shift
        saved += room(padded * 4)  # inverse deviation
        saved += room(rows * padded * 4)  # gradient of the output
        saved += room(48 * padded)  # sums, extremes and coefficients a channel
        saved += room(rows * padded // 8)  # mask
        saved += room(rows * padded // 2) + 2 * room(rows * padded)  # codes, thrice
        panel = room(rows * 32)
        saved += room(panel + padded * 32 + 2 * 32 * 4 + 64 * 32 * 4)
    whole = et.plan(MODEL, rows, reuse=False).peak_bytes
    assert whole - et.plan(freeze(MODEL, layers), rows, reuse=False).peak_bytes == saved


def test_every_layer_frozen_takes_less() -> None:
    for model in (et.models.mlp(), et.models.cnv(), et.models.har_cnn()):
        count = sum(1 for _ in model.blocks())
        plans = [et.plan(freeze(model, layers), 50) for layers in range(count)]
        sizes = [plan.peak_bytes for plan in plans]
        assert sizes == sorted(sizes, reverse=True)
        # The data are gone once the first layer has read them.
        life = {p.tensor.name: p.tensor for p in plans[1].placements}["input"]
        assert (life.first, life.last) == (0, 1)
        work = [plan.arithmetic.backward for plan in plans]
        assert work == sorted(work, reverse=True)


def test_every_byte_that_the_engine_uses_is_planned() -> None:
    chosen = et.plan(freeze(MODEL, 2), 7, threads=2, reuse=False)
    trainer = et.Trainer(chosen)
    trainer.fit(*examples(21))
    arena = np.frombuffer(trainer._engine.read(0, chosen.peak_bytes), np.uint8)
    covered = np.zeros(chosen.peak_bytes, bool)
    for placement in chosen.placements:
        covered[placement.offset : placement.offset + placement.tensor.bytes] = True
    assert not arena[~covered].any()


def test_a_model_with_frozen_layers_survives_json_and_a_checkpoint(tmp_path: Path) -> None:
    model = freeze(MODEL, 2)
    assert et.Model.from_json(model.to_json()) == model
    x, y = examples()
    whole, stopped = (et.Trainer(et.plan(model, 10), seed=6) for _ in range(2))
    whole.fit(x, y, epochs=4)
    stopped.fit(x, y, epochs=2)
    stopped.save(tmp_path / "half")
    again = et.load(tmp_path / "half")
    again.fit(x, y, epochs=2)
    whole.save(tmp_path / "whole")
    again.save(tmp_path / "again")
    assert (tmp_path / "whole").read_bytes() == (tmp_path / "again").read_bytes()


def test_a_frozen_layer_sends_nothing_but_statistics() -> None:
    model = freeze(MODEL, 2)
    sent = update_schema(model, "bnn", "luq4")
    of_frozen = {name for name in sent if name.startswith(("layer0.", "layer1."))}
    assert of_frozen == {f"layer{i}.{name}" for i in (0, 1) for name in ("mean", "deviation")}
    # Half a byte a latent and 4 for the largest change; three floats a channel, two where frozen.
    latents = (-(-33 * 20 // 2) + 4) + (-(-20 * 3 // 2) + 4)
    assert update_bytes(model, "bnn", "luq4") == latents + 4 * (2 * (65 + 33) + 3 * (20 + 3))
    assert state_schema(model, "bnn")["layer1.signs"] == ("U32", (33, 3))
    assert trained_schema(MODEL, "bnn") == state_schema(MODEL, "bnn")


def test_a_fleet_trains_a_model_with_frozen_layers() -> None:
    model = freeze(MODEL, 2)
    fleet = GlobalModel.fresh(model, "bnn", seed=5)
    task = Task("train", 0, "pi", model, "bnn", 10, 1, 0.04, "luq4", 5, None, fleet.state())
    asked = Task.decode(task.encode())
    trainer = et.Trainer(et.plan(model, 10), seed=5, stream=1)
    trainer.load_state(asked.state)
    learnt = trainer.fit(*examples())
    before, after = (trained_part(s, model, "bnn") for s in (asked.state, trainer.state()))
    report = Report(
        "trained", 0, "pi", examples=30, steps=3, loss=learnt.loss, accuracy=learnt.accuracy,
        update=encode_update(before, after, "luq4", 1),
    )  # fmt: skip
    accumulator = Accumulator(fleet)
    accumulator.fold(Report.decode(report.encode(), asked))
    following = accumulator.apply()
    state = following.state()
    check_state(state, model, "bnn")
    for name in ("layer0.signs", "layer1.signs", "layer0.shift", "layer1.shift"):
        assert bytes(state[name].data) == bytes(fleet.state()[name].data)
    assert bytes(state["layer0.mean"].data) != bytes(fleet.state()["layer0.mean"].data)
    kept = GlobalModel.from_tensors(model, "bnn", 1, following.to_tensors())
    assert {n: bytes(t.data) for n, t in kept.state().items()} == {
        n: bytes(t.data) for n, t in state.items()
    }


def test_an_update_with_signs_is_refused() -> None:
    model = freeze(MODEL, 1)
    state = et.Trainer(et.plan(model, 4)).state()
    update = trained_part(state, model, "bnn") | {"layer0.signs": state["layer0.signs"]}
    with pytest.raises(PayloadError, match=r"'layer0.signs' that the model does not"):
        check_update(update, model, "bnn", "raw8")


@pytest.mark.parametrize("layers", [-1, 4, 9])
def test_a_model_with_nothing_to_train_is_refused(layers: int) -> None:
    with pytest.raises(ModelError, match="choose 0 to 3 of 4"):
        freeze(MODEL, layers)
    with pytest.raises(ModelError, match="every layer is frozen"):
        et.Model(9, (Linear(3, "frozen"), BatchNorm(), SoftmaxCrossEntropy()))


def test_only_signs_can_be_frozen_and_only_of_the_same_model() -> None:
    mixed = et.models.mlp(70, 3, (65, 33, 20), first="int8")
    state = et.Trainer(et.plan(mixed, 4)).state()
    with pytest.raises(ModelError, match="layer 0 was trained as int8"):
        frozen_state(state, mixed, "bnn", freeze(mixed, 1))
    with pytest.raises(ModelError, match="with other layers"):
        frozen_state(state, mixed, "bnn", freeze(et.models.mlp(70, 3, (65, 33, 21)), 1))
    with pytest.raises(ModelError, match="layer 0 was trained as frozen"):
        frozen_state({}, freeze(MODEL, 1), "bnn", MODEL)


def test_signs_of_another_shape_are_refused() -> None:
    model = freeze(MODEL, 1)
    state = et.Trainer(et.plan(model, 4)).state()
    state["layer0.signs"] = Tensor("U32", (65, 2), bytes(65 * 8))
    with pytest.raises(PayloadError, match=r"'layer0\.signs' is U32"):
        et.Trainer(et.plan(model, 4)).load_state(state)


def test_a_fleets_file_freezes_layers() -> None:
    config = ModelConfig(hidden=(65, 33, 20), freeze=2)
    assert config.build(70, 3) == freeze(MODEL, 2)
    with pytest.raises(ModelError, match="4 layers to freeze"):
        replace(config, freeze=4).build(70, 3)


def test_a_run_starts_from_a_checkpoint_and_trains_the_top(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", examples(60)[0])
    np.save(tmp_path / "y.npy", examples(60)[1])
    command = [COMMAND, "train", "mlp", "--data", str(tmp_path), "--hidden", "65,33"]
    whole, top = tmp_path / "whole", tmp_path / "top"
    subprocess.run([*command, "--epochs", "1", "--save", whole], check=True, capture_output=True)
    more = ["--epochs", "1", "--freeze", "2", "--start", whole, "--save", top]
    subprocess.run([*command, *more], check=True, capture_output=True)
    before, after = et.load(whole), et.load(top)
    assert [block.weights.frozen for block in after.plan.model.blocks()] == [True, True, False]
    expected = frozen_state(before.state(), before.plan.model, "bnn", after.plan.model)
    assert bytes(after.state()["layer1.signs"].data) == bytes(expected["layer1.signs"].data)
    wrong = [*command, "--mode", "fsb", "--start", str(whole)]
    refused = subprocess.run(wrong, check=False, capture_output=True, text=True)
    assert refused.returncode != 0
    assert "was trained with --mode bnn --latent int8: give the same" in refused.stderr
