"""`edgetrain export`: files, figures, and what is said of a mistake."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from networks import scores_of, trained
from typer.testing import CliRunner

import edgetrain as et
from edgetrain.cli import app
from edgetrain.data.scaling import Scaling
from edgetrain.errors import ConfigError, DataError, PayloadError

onnxruntime = pytest.importorskip("onnxruntime")


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
    export(checkpoint, "--packed", packed)
    with pytest.raises(PayloadError, match="edgetrain-coordinator export makes one"):
        export(packed, "--packed", tmp_path / "again.etp")
