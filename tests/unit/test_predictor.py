"""Packed models: their file, its size and damage, and predictions of the trainer's own bits."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from array import array
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from networks import NETWORKS, block, head, scores_of, trained

import edgetrain as et
from edgetrain import tensorfile
from edgetrain.data.scaling import Scaling
from edgetrain.errors import DataError, ModelError, PayloadError
from edgetrain.inference import inference_plan, inference_schema, inference_state
from edgetrain.ops import Conv2d, GlobalAveragePool
from edgetrain.schema import state_schema
from edgetrain.tensorfile import Tensor
from edgetrain.timeline import peak, timeline

HEADER = 4096
"""Bytes of names, shapes and the model's JSON in a file of a few layers."""


@pytest.fixture
def packed(tmp_path: Path) -> Path:
    """Return the file of a small network."""
    path = tmp_path / "model.etp"
    et.export_packed(trained("mlp_fsb").trainer, path)
    return path


@pytest.mark.parametrize("name", NETWORKS)
def test_scores_are_the_trainers_own_bits(tmp_path: Path, name: str) -> None:
    trainer, x, y = trained(name)
    path = tmp_path / "model.etp"
    et.export_packed(trainer, path)
    predictor = et.Predictor(path, batch=4, threads=2)
    expected = scores_of(trainer, x, y)
    assert np.array_equal(np.asarray(predictor.scores(x)), expected)
    assert predictor.predict(x) == expected.argmax(1).tolist()
    assert (predictor.classes, predictor.input_shape) == (expected.shape[1], x.shape[1:])
    assert sum(np.asarray(predictor.predict(x)) == y) == round(
        trainer.evaluate(x, y).accuracy * len(x)
    )


@pytest.mark.parametrize("dtype", ["uint8", "int8", "float32"])
def test_any_buffer_of_the_trainers_data_is_taken(tmp_path: Path, dtype: str) -> None:
    trainer, x, y = trained("sequence", dtype)
    path = tmp_path / "model.etp"
    et.export_packed(trainer, path)
    predictor, expected = et.Predictor(path), scores_of(trainer, x, y)
    code = {"uint8": "B", "int8": "b", "float32": "f"}[dtype]
    for given in (
        x,
        array(code, x.ravel().tolist()),
        memoryview(x),
        x.reshape(len(x), 1, *x.shape[1:]),
    ):
        assert np.array_equal(np.asarray(predictor.scores(given)), expected)
    if dtype == "uint8":
        assert np.array_equal(np.asarray(predictor.scores(x.tobytes())), expected)
    if dtype == "float32":
        assert predictor.predict(x.astype(np.float64)) == expected.argmax(1).tolist()


def test_a_file_has_a_bit_a_binary_weight_and_four_bytes_a_threshold(tmp_path: Path) -> None:
    path = tmp_path / "model.etp"
    model = et.models.mlp(784, 10, (256, 256), last="bnn")
    et.export_packed(et.Trainer(et.plan(model, 4)), path)
    bits = 784 // 32 * 32 + 32 + 256  # 784 inputs take 25 words
    least = (bits * 256 + 256 * 10) // 8 + 4 * 512 + 12 * 10
    assert least <= path.stat().st_size < least + HEADER


@pytest.mark.parametrize("name", ["cnv", "har_cnn", "binarynet"])
def test_predicting_takes_a_part_of_the_memory_of_training(tmp_path: Path, name: str) -> None:
    trainer = trained(name).trainer
    path = tmp_path / "model.etp"
    et.export_packed(trainer, path)
    predictor = et.Predictor(path, batch=1)
    leanest = et.plan(trainer.plan.model, 2, recompute="always")
    assert predictor.memory_bytes < leanest.peak_bytes / 2


def test_a_memory_limit_takes_fewer_examples_at_a_time_or_is_refused(tmp_path: Path) -> None:
    trainer, x, y = trained("separable")
    path = tmp_path / "model.etp"
    et.export_packed(trainer, path)
    one, many = et.Predictor(path, batch=1), et.Predictor(path, batch=8)
    lean = et.Predictor(path, batch=8, memory=many.memory_bytes - 1)
    assert one.memory_bytes <= lean.memory_bytes < many.memory_bytes
    assert np.array_equal(np.asarray(lean.scores(x)), scores_of(trainer, x, y))
    assert et.Predictor(path, batch=8, memory=one.memory_bytes).memory_bytes == one.memory_bytes
    with pytest.raises(et.BudgetError, match="the smallest needs"):
        et.Predictor(path, memory=one.memory_bytes - 1)
    for wrong in ({"batch": 0}, {"threads": 0}):
        with pytest.raises(ModelError, match="choose 1 or more, on 1 to"):
            et.Predictor(path, **wrong)


def test_threads_that_share_a_predictor_get_their_own_answers(packed: Path) -> None:
    trainer, x, y = trained("mlp_fsb")
    predictor, expected = et.Predictor(packed, batch=1), scores_of(trainer, x, y)
    wrong: list[int] = []

    def ask(row: int) -> None:
        for _ in range(200):
            found = np.asarray(predictor.scores(x[row : row + 1]))[0]
            wrong.extend(() if np.array_equal(found, expected[row]) else (row,))

    threads = [threading.Thread(target=ask, args=(row,)) for row in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_what_is_no_example_is_refused_with_what_to_give(packed: Path) -> None:
    predictor = et.Predictor(packed)
    for x, message in (
        (np.zeros((2, 71), np.uint8), "does not fit the model"),
        (np.zeros((2, 70), np.int32), "give uint8, int8"),
        (np.zeros((2, 70), np.float32), "trained on integers"),
        (np.zeros((0, 70), np.uint8), "no example"),
        ([1, 2, 3], "give a numpy array or a buffer"),
        (np.zeros((70, 2), np.uint8).T, "not contiguous"),
    ):
        with pytest.raises(DataError, match=message):
            predictor.predict(x)


def test_floats_that_no_scaling_can_scale_are_refused(tmp_path: Path) -> None:
    trainer, x, _ = trained("sequence", "float32")
    path = tmp_path / "model.etp"
    et.export_packed(trainer, path)
    predictor = et.Predictor(path)
    for wrong in (np.nan, np.inf):
        spoilt = x.copy()
        spoilt[0, 0, 0] = wrong
        with pytest.raises(DataError, match="NaN or infinity"):
            predictor.predict(spoilt)
    with pytest.raises(DataError, match="no example"):
        predictor.predict(x[:0])
    with pytest.raises(DataError, match="scaling of 3 channels"):
        predictor.predict(x.reshape(len(x), -1))


@pytest.mark.parametrize(
    ("y", "mean", "shift", "deviation"),
    [
        (0, 0.0, 0.0, 1.0),
        (7, 7.25, 0.5, 0.5),
        (2**24 + 1, 2.0**24, -0.25, 4.0),
        (-3, -3.0, 9.0, 0.0),
    ],
)
def test_a_threshold_is_the_least_sum_whose_sign_is_positive(
    y: int, mean: float, shift: float, deviation: float
) -> None:
    """y is that sum by hand; beyond 2^24 a float32 alone cannot hold it."""
    model = et.models.mlp(2, 2, (1,))
    state = {
        name: Tensor(dtype, shape, bytes(4 * shape[0] if dtype == "F32" else shape[0] * shape[1]))
        for name, (dtype, shape) in state_schema(model, "bnn").items()
    }
    for name, value in (("mean", mean), ("shift", shift), ("deviation", deviation)):
        state[f"layer0.{name}"] = Tensor("F32", (1,), array("f", [value]).tobytes())
    found = inference_state(model, "bnn", state)
    assert found.keys() == inference_schema(model, "bnn").keys()
    assert list(memoryview(found["layer0.threshold"].data).cast("i")) == [y]


def test_what_is_no_packed_model_is_refused(tmp_path: Path, packed: Path) -> None:
    trainer = trained("mlp_fsb").trainer
    checkpoint = tmp_path / "model.safetensors"
    trainer.save(checkpoint)
    with pytest.raises(PayloadError, match="no packed model: write one with edgetrain export"):
        et.Predictor(checkpoint)
    with pytest.raises(DataError, match="cannot read"):
        et.Predictor(tmp_path / "missing.etp")
    tensors, metadata = tensorfile.read(packed)
    fields = {"mode": "fsb", "seed": 1, "scaling": Scaling((0.0,) * 3, (1.0,) * 3).to_json()}
    for changed, message in (
        ({"version": "9"}, "version '9'"),
        ({"packed": "[]"}, "damaged"),
        ({"packed": '{"mode": "bnn", "seed": 1.5, "scaling": null}'}, "seed"),
        ({"packed": '{"mode": "bnn", "seed": 1, "scaling": "[]"}'}, "not a scaling"),
        ({"packed": '{"mode": "bnn", "seed": 1, "scaling": null}'}, "lacks tensor"),
        ({"packed": json.dumps(fields)}, "3 channels"),
        ({"model": "{}"}, "does not say format"),
    ):
        tensorfile.write(tmp_path / "wrong.etp", tensors, metadata | changed)
        with pytest.raises(PayloadError, match=message):
            et.Predictor(tmp_path / "wrong.etp")


def test_a_device_predicts_without_numpy(packed: Path) -> None:
    code = f"""
import sys, edgetrain as et
print(et.Predictor({str(packed)!r}).predict(bytes(70)), "numpy" in sys.modules)
"""
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout.split()[1] == "False"


def test_an_older_file_outlives_its_replacement(packed: Path) -> None:
    predictor = et.Predictor(packed)
    x: Any = trained("mlp_fsb").x
    before = predictor.predict(x)
    packed.write_bytes(b"")
    assert predictor.predict(x) == before


def test_a_plan_that_predicts_explains_itself_and_cannot_train() -> None:
    chosen = inference_plan(et.models.cnv(), "bnn", 2)
    assert chosen.summary().endswith("mode bnn, predicts 2 at a time, 1 thread")
    assert peak(timeline(chosen)).bytes == chosen.peak_bytes
    with pytest.raises(ModelError, match="holds signs, and no latents"):
        _ = chosen.latent
    for_training = {"mask", "average", "argument", "moment1"}
    names = {
        p.tensor.name.partition(".")[2] for p in chosen.placements if "layer8" not in p.tensor.name
    }
    assert not names & for_training


def test_very_large_images_are_taken_a_few_at_a_time() -> None:
    strides = [op for _ in range(4) for op in block(Conv2d(32, 2, 2))]
    first = block(Conv2d(32, 3, training="bnn"))
    model = et.Model((160, 160, 1), (*first, *strides, GlobalAveragePool(), *head()))
    limit = min(one.weights.most_examples(one.source) for one in model.blocks())
    assert inference_plan(model, "bnn", 1000).micro_batch == limit < 1000
