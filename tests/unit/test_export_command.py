"""`edgetrain export`: files, figures, and what is said of a mistake."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from networks import scores_of, trained
from typer.testing import CliRunner

import edgetrain as et
from edgetrain.cli import app
from edgetrain.data import load as load_data
from edgetrain.data.scaling import Scaling
from edgetrain.errors import ConfigError, DataError, ModelError, PayloadError

onnxruntime = pytest.importorskip("onnxruntime")

EXAMPLE = Path(__file__).parents[2] / "examples" / "predict.py"


def export(*words: object) -> Any:
    """Return what the command prints as JSON. Raises what it raises."""
    arguments = ["export", *map(str, words), "--json"]
    result = CliRunner().invoke(app, arguments, catch_exceptions=False)
    return json.loads(result.stdout)


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """Return the checkpoint of a small network."""
    path = tmp_path / "model.safetensors"
    trained("mlp_signs").trainer.save(path)
    return path


def onnx_scores(path: Path, x: Any) -> Any:
    """Return what onnxruntime makes of examples."""
    return onnxruntime.InferenceSession(path).run(["scores"], {"input": x})[0]


def test_both_files_give_the_scores_of_the_checkpoint(tmp_path: Path, checkpoint: Path) -> None:
    trainer, x, y = trained("mlp_signs")
    packed, onnx = tmp_path / "model.etp", tmp_path / "model.onnx"
    told = export(checkpoint, "--packed", packed, "--onnx", onnx)
    predictor = et.Predictor(packed)
    assert told == {
        "classes": 3,
        "input_shape": [70],
        "packed": {
            "file": str(packed),
            "bytes": packed.stat().st_size,
            "memory_bytes": predictor.memory_bytes,
        },
        "onnx": {"file": str(onnx), "bytes": onnx.stat().st_size},
    }
    expected = scores_of(trainer, x, y)
    assert np.array_equal(np.asarray(predictor.scores(x)), expected)
    assert np.array_equal(onnx_scores(onnx, x), expected)


def test_a_line_a_file_says_its_size(tmp_path: Path, checkpoint: Path) -> None:
    packed = tmp_path / "model.etp"
    result = CliRunner().invoke(app, ["export", str(checkpoint), "--packed", str(packed)])
    assert result.stdout.startswith(f"wrote {packed}: ")
    assert "predicts in" in result.stdout
    assert result.stdout.count("\n") == 1


def test_constants_that_a_model_lacks_are_given_to_it(tmp_path: Path, checkpoint: Path) -> None:
    trainer, _, y = trained("mlp_signs")
    x = np.random.default_rng(1).normal(5, 2, (len(y), 70)).astype(np.float32)
    constants = Scaling((5.0,) * 70, (0.05,) * 70)
    constants.save(tmp_path / "scaling.json")
    packed, onnx = tmp_path / "model.etp", tmp_path / "model.onnx"
    scaling = ("--scaling", tmp_path / "scaling.json", "--input", "float32")
    export(checkpoint, "--packed", packed, "--onnx", onnx, *scaling)
    expected = scores_of(trainer, constants.apply(x), y)
    assert np.array_equal(np.asarray(et.Predictor(packed).scores(x)), expected)
    assert np.array_equal(onnx_scores(onnx, x), expected)


def test_floats_that_were_trained_on_are_taken_as_they_were(tmp_path: Path) -> None:
    draws = np.random.default_rng(2)
    np.save(tmp_path / "x.npy", draws.normal(-3, 20, (60, 16)).astype(np.float32))
    np.save(tmp_path / "y.npy", draws.integers(0, 3, 60))
    model, packed, onnx = (tmp_path / name for name in ("model", "model.etp", "model.onnx"))
    words = [
        "train",
        "mlp",
        "--hidden",
        "32,32",
        "--data",
        tmp_path,
        "--epochs",
        1,
        "--save",
        model,
    ]
    result = CliRunner().invoke(app, list(map(str, words)), catch_exceptions=False)
    assert result.exit_code == 0
    export(model, "--packed", packed, "--onnx", onnx)
    splits = load_data(tmp_path)
    assert splits.scaling is not None
    x = draws.normal(-3, 20, (9, 16)).astype(np.float32)
    expected = scores_of(et.load(model), splits.scaling.apply(x), np.zeros(9, np.uint8))
    assert np.array_equal(np.asarray(et.Predictor(packed).scores(x)), expected)
    assert np.array_equal(onnx_scores(onnx, x), expected)


def test_a_mistake_is_named_with_its_cure(tmp_path: Path, checkpoint: Path) -> None:
    packed = tmp_path / "model.etp"
    with pytest.raises(ConfigError, match="nothing to write: give --packed"):
        export(checkpoint)
    with pytest.raises(DataError, match="cannot read"):
        export(tmp_path / "missing", "--packed", packed)
    with pytest.raises(DataError, match=r"cannot read .*scaling.json"):
        export(checkpoint, "--packed", packed, "--scaling", tmp_path / "scaling.json")
    (tmp_path / "scaling.json").write_text("[]")
    with pytest.raises(DataError, match=r"scaling.json: not a scaling"):
        export(checkpoint, "--packed", packed, "--scaling", tmp_path / "scaling.json")
    Scaling((0.0,) * 3, (1.0,) * 3).save(tmp_path / "scaling.json")
    with pytest.raises(ModelError, match="3 channels of the scaling"):
        export(checkpoint, "--packed", packed, "--scaling", tmp_path / "scaling.json")
    export(checkpoint, "--packed", packed)
    with pytest.raises(PayloadError, match="edgetrain-coordinator export makes one"):
        export(packed, "--packed", tmp_path / "again.etp")


def test_the_example_predicts_what_the_trainer_does(tmp_path: Path) -> None:
    splits = load_data("watch")
    trainer = et.Trainer(et.plan(et.models.har_cnn(), 100))
    trainer.fit(splits.train.features, splits.train.labels)
    et.export_packed(trainer, tmp_path / "model.etp")
    command = [sys.executable, str(EXAMPLE), str(tmp_path / "model.etp")]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    accuracy = trainer.evaluate(splits.test.features, splits.test.labels).accuracy
    assert shown.startswith(f"{accuracy:.1%} of {len(splits.test.labels)} windows")
    assert shown.count("\n") == 1 + splits.classes
