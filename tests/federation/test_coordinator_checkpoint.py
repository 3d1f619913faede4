"""Checkpoints are whole or not there, and a run goes on from the newest that is whole."""

from __future__ import annotations

import json
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file
from typer.testing import CliRunner

import edgetrain
import edgetrain.cli
import edgetrain.train
from edgetrain.config import FleetConfig
from edgetrain.coordinator.__main__ import app
from edgetrain.coordinator.checkpoint import Checkpoint, CheckpointFolder, read_checkpoint
from edgetrain.coordinator.global_model import GlobalModel
from edgetrain.coordinator.history import DeviceRecord, History, RoundRecord
from edgetrain.errors import ConfigError, DataError, PayloadError, StorageError
from edgetrain.models import mlp

FLEET = FleetConfig.from_table(
    {"data": {"path": "watch"}, "device": [{"name": "pi", "memory": "1MiB", "count": 2}]}
).to_table()
MODEL = GlobalModel.fresh(mlp(inputs=12, classes=3, hidden=(20,)), "bnn", seed=4)
HISTORY = History(
    (RoundRecord(1, 2, 2, 30, 1.5, 0.5, 0.7, 9, 100, 200, 1.25, {"late": 1}),),
    {"pi-0": DeviceRecord("pi-0", "pi", memory=9, reasons={"late: no answer": 1})},
)


def checkpoint(version: int) -> Checkpoint:
    """Return a checkpoint of a version whose weights tell it from others."""
    weights = {name: array // 2 + version for name, array in MODEL.weights.items()}
    return Checkpoint(replace(MODEL, version=version, weights=weights), HISTORY, FLEET)


def same(one: Checkpoint, other: Checkpoint) -> bool:
    """Say whether two checkpoints are equal to the bit."""
    return (
        one.model.to_tensors() == other.model.to_tensors()
        and (one.model.version, one.model.mode) == (other.model.version, other.model.mode)
        and one.history == other.history
        and one.fleet == other.fleet
    )


@contextmanager
def small_disk(size: int) -> Iterator[None]:
    """Let no file grow beyond `size` bytes: writing more fails as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_what_was_saved_is_what_is_read(tmp_path: Path) -> None:
    folder = CheckpointFolder(tmp_path / "new" / "run")
    path = folder.save(checkpoint(1))
    assert same(read_checkpoint(path), checkpoint(1))
    found = folder.newest(FLEET)
    assert found is not None
    assert same(found, checkpoint(1))


def test_a_folder_without_checkpoints_begins_anew(tmp_path: Path) -> None:
    assert CheckpointFolder(tmp_path).newest(FLEET) is None


def test_the_newest_few_are_kept(tmp_path: Path) -> None:
    folder = CheckpointFolder(tmp_path)
    for version in range(1, 12):
        folder.save(checkpoint(version))
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == [f"version-{version:06d}.safetensors" for version in (9, 10, 11)]


def test_a_damaged_file_is_skipped_and_stays(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = CheckpointFolder(tmp_path)
    for version in (1, 2, 3):
        folder.save(checkpoint(version))
    newest = folder.path_of(3)
    newest.write_bytes(newest.read_bytes()[:-5])
    torn = bytearray(folder.path_of(2).read_bytes())
    torn[-100] ^= 1
    folder.path_of(2).write_bytes(torn)
    found = folder.newest(FLEET)
    assert found is not None
    assert found.model.version == 1
    assert "version-000003" in caplog.text
    assert "version-000002" in caplog.text
    assert newest.exists()


@given(place=st.integers(0, 10**9), bit=st.integers(0, 7))
@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_no_flipped_bit_goes_unnoticed(tmp_path: Path, place: int, bit: int) -> None:
    """Every bit is under the checksum or under the strict format."""
    path = CheckpointFolder(tmp_path).save(checkpoint(1))
    torn = bytearray(path.read_bytes())
    torn[place % len(torn)] ^= 1 << bit
    path.write_bytes(torn)
    try:
        found = read_checkpoint(path)
    except PayloadError:
        return
    assert same(found, checkpoint(1))


def test_a_full_disk_is_one_line_and_nothing_saved_is_damaged(tmp_path: Path) -> None:
    folder = CheckpointFolder(tmp_path)
    folder.save(checkpoint(1))
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with small_disk(512), pytest.raises(StorageError, match="what was there before is intact"):
        folder.save(checkpoint(2))
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    folder.save(checkpoint(2))
    assert same(read_checkpoint(folder.path_of(2)), checkpoint(2))


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="cannot make the folder"):
        CheckpointFolder(tmp_path / "file" / "run")


@pytest.mark.parametrize(
    ("section", "change"),
    [
        ("data", {"path": "elsewhere"}),
        ("model", {"mode": "fsb"}),
        ("training", {"seed": 9}),
        ("device", [{"name": "pi", "memory": "2MiB", "count": 2}]),
    ],
)
def test_another_fleets_run_is_not_gone_on_with(tmp_path: Path, section: str, change: Any) -> None:
    folder = CheckpointFolder(tmp_path)
    folder.save(checkpoint(1))
    changed = change if section == "device" else {**FLEET[section], **change}
    with pytest.raises(ConfigError, match=rf"a run with another \[+{section}"):
        folder.newest({**FLEET, section: changed})


def test_a_run_may_be_made_longer(tmp_path: Path) -> None:
    folder = CheckpointFolder(tmp_path)
    folder.save(checkpoint(1))
    longer = {**FLEET, "training": {**FLEET["training"], "evaluate_every": 5}}
    assert folder.newest(longer) is not None


def test_other_tools_can_open_it(tmp_path: Path) -> None:
    path = CheckpointFolder(tmp_path).save(checkpoint(1))
    tensors = load_file(path)
    fixed = tensors["layer0.latent.fixed"].view(np.int32)
    assert np.array_equal(fixed, checkpoint(1).model.weights["layer0.latent"])


def test_inspect_shows_a_folders_newest(tmp_path: Path) -> None:
    folder = CheckpointFolder(tmp_path)
    for version in (1, 2):
        folder.save(checkpoint(version))
    shown = CliRunner().invoke(app, ["inspect", str(tmp_path), "--json"])
    found = json.loads(shown.stdout)
    assert found["version"] == 2
    assert found["layers"] == [[20, 12], [3, 20]]
    assert found["final_accuracy"] == 0.5
    words = CliRunner().invoke(app, ["inspect", str(folder.path_of(1))])
    assert "version" in words.stdout
    assert words.exit_code == 0


def test_inspecting_nothing_names_the_place(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["inspect", str(tmp_path)])
    assert isinstance(result.exception, DataError)
    assert str(tmp_path) in str(result.exception)


def test_an_exported_model_is_what_devices_received(tmp_path: Path) -> None:
    CheckpointFolder(tmp_path / "run").save(checkpoint(1))
    target = tmp_path / "model.safetensors"
    result = CliRunner().invoke(app, ["export", str(target), str(tmp_path / "run")])
    assert result.exit_code == 0, result.output
    assert edgetrain.train.load(target).state() == checkpoint(1).model.state()


@pytest.mark.parametrize("mode", ["bnn", "fsb"])
def test_an_exported_model_predicts_on_a_device(tmp_path: Path, mode: Any) -> None:
    model = mlp(inputs=12, classes=3, hidden=(20, 20))
    fleet = {**FLEET, "training": {**FLEET["training"], "seed": 4}}
    kept = Checkpoint(GlobalModel.fresh(model, mode, seed=4), History((), {}), fleet)
    CheckpointFolder(tmp_path / "run").save(kept)
    target, packed = tmp_path / "model.safetensors", tmp_path / "model.etp"
    for command, *words in (
        (app, target, tmp_path / "run"),
        (edgetrain.cli.app, target, "--packed", packed),
    ):
        result = CliRunner().invoke(command, ["export", *map(str, words)])
        assert result.exit_code == 0, result.output
    x = np.random.default_rng(0).integers(-128, 128, (9, 12)).astype(np.int8)
    trainer = edgetrain.train.load(target)
    trainer.evaluate(x, np.zeros(9, np.uint8))
    expected = np.frombuffer(trainer.tensor("layer2.logits"), np.float32).reshape(-1, 3)[:9]
    assert np.array_equal(np.asarray(edgetrain.Predictor(packed).scores(x)), expected)
