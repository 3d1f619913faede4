"""ONNX files: every op and model under onnxruntime, against the trainer's own scores."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from networks import NETWORKS, scores_of, trained

import edgetrain as et
from edgetrain.errors import ConfigError
from edgetrain.ops import OPS

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

QUIET = 3
"""Of onnxruntime's levels: errors alone."""
WITHOUT_WEIGHTS = 16_384
"""Bytes of nodes and the model's JSON, of a byte a weight of the last layer, of thresholds."""


def run(path: Path, x: Any, *, optimised: bool = True) -> tuple[Any, Any]:
    """Return what onnxruntime makes of examples: scores and classes."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = QUIET
    options.intra_op_num_threads = 1
    if not optimised:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    scores, classes = session.run(["scores", "class"], {"input": x})
    return scores, classes


def test_the_networks_have_every_op() -> None:
    found = {op.name for network in NETWORKS.values() for op in network.make().layers}
    assert found == set(OPS)


@pytest.mark.parametrize("name", NETWORKS)
def test_onnxruntime_gives_the_trainers_own_scores(tmp_path: Path, name: str) -> None:
    trainer, x, y = trained(name)
    path = tmp_path / "model.onnx"
    et.export_onnx(trainer, path)
    scores, classes = run(path, x)
    expected = scores_of(trainer, x, y)
    assert np.array_equal(scores, expected)
    assert np.array_equal(classes, expected.argmax(1))


@pytest.mark.parametrize("name", ["mlp", "separable", "shortcut_add"])
def test_a_runtime_that_folds_nothing_and_takes_any_batch_gives_them_too(
    tmp_path: Path, name: str
) -> None:
    trainer, x, y = trained(name)
    path = tmp_path / "model.onnx"
    et.export_onnx(trainer, path)
    expected = scores_of(trainer, x, y)
    for count in (1, 4):
        assert np.array_equal(run(path, x[:count], optimised=False)[0], expected[:count])


@pytest.mark.parametrize("dtype", ["uint8", "int8", "float32"])
def test_the_input_is_the_data_as_they_were_given(tmp_path: Path, dtype: Any) -> None:
    trainer, x, y = trained("sequence", dtype)
    trainer.save(tmp_path / "model.safetensors")
    again, path = et.load(tmp_path / "model.safetensors"), tmp_path / "model.onnx"
    et.export_onnx(again, path)
    (given,) = onnx.load(path).graph.input
    sizes = [dim.dim_param or dim.dim_value for dim in given.type.tensor_type.shape.dim]
    assert sizes == ["examples", *x.shape[1:]]
    assert onnx.helper.tensor_dtype_to_np_dtype(given.type.tensor_type.elem_type) == dtype
    assert np.array_equal(run(path, x)[0], scores_of(trainer, x, y))


def test_floats_on_the_edge_of_a_step_are_rounded_as_the_trainer_rounds(tmp_path: Path) -> None:
    trainer, x, y = trained("mlp_signs", "float32")
    center, step = trainer.scaling.center, trainer.scaling.step
    edges = np.arange(-130, 131, dtype=np.float64)[:, None] + 0.5
    x = (center + edges * step).astype(np.float32)[: len(x) * 29 : 29]
    path = tmp_path / "model.onnx"
    et.export_onnx(trainer, path)
    assert np.array_equal(run(path, x)[0], scores_of(trainer, x, y[: len(x)]))


def test_a_file_says_what_it_is_and_has_standard_operators_and_small_weights(
    tmp_path: Path,
) -> None:
    trainer = trained("mlp").trainer
    path = tmp_path / "model.onnx"
    et.export_onnx(trainer, path)
    model = onnx.load(path)
    props = {entry.key: entry.value for entry in model.metadata_props}
    assert (props["classes"], props["mode"]) == ("10", "bnn")
    assert et.Model.from_json(props["model"]) == trainer.plan.model
    assert (model.producer_name, model.producer_version) == ("edgetrain", et.__version__)
    assert {entry.domain for entry in model.opset_import} | {
        node.domain for node in model.graph.node
    } == {""}
    weights = 784 * 256 + 3 * 256 * 256
    assert weights / 8 < path.stat().st_size < weights / 8 + WITHOUT_WEIGHTS


def test_equal_trainers_give_equal_files(tmp_path: Path) -> None:
    for name in ("one", "other"):
        et.export_onnx(trained("separable").trainer, tmp_path / name)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "other").read_bytes()


def test_an_input_that_is_not_known_or_cannot_be_is_refused(tmp_path: Path) -> None:
    trainer, path = trained("mlp_signs").trainer, tmp_path / "model.onnx"
    with pytest.raises(ConfigError, match="no constants to scale float32 by"):
        et.export_onnx(trainer, path, "float32")
    wrong: Any = "int16"
    with pytest.raises(ConfigError, match="choose one of uint8, int8, float32"):
        et.export_onnx(trainer, path, wrong)
    fresh = et.Trainer(trainer.plan)
    with pytest.raises(ConfigError, match="give --input, or input_type, uint8 or int8"):
        et.export_onnx(fresh, path)
    assert not path.exists()


def test_onnx_is_loaded_by_nothing_but_an_export() -> None:
    code = "import sys, edgetrain.onnx, edgetrain.export_command; print('onnx' in sys.modules)"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "False"
