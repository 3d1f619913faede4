"""Models made of ONNX files: ours come back as they were, others layer by layer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from networks import NETWORKS, trained
from typer.testing import CliRunner

import edgetrain as et
from edgetrain.cli import app
from edgetrain.errors import DataError, EdgetrainError, ModelError, PayloadError
from edgetrain.ops import (
    AvgPool,
    BatchNorm,
    Conv2d,
    Flatten,
    GlobalAveragePool,
    Linear,
    MaxPool,
    Sign,
    SoftmaxCrossEntropy,
)

onnx = pytest.importorskip("onnx")
from onnx import TensorProto, helper, numpy_helper  # noqa: E402 - where there is one

DAMAGES = 200


class Writer:
    """Writes operators that follow one another; weights are zeros of a shape."""

    def __init__(self, *shape: int) -> None:
        self.shape = shape
        self.nodes: list[Any] = []
        self.constants: list[Any] = []
        self.value = "x"

    def add(
        self, operator: str, *shapes: tuple[int, ...], beside: str = "", **given: Any
    ) -> Writer:
        """Add an operator that reads constants of some shapes beside the data."""
        names = [f"c{len(self.constants) + number}" for number in range(len(shapes))]
        self.constants += [
            numpy_helper.from_array(np.zeros(shape, np.float32), name)
            for name, shape in zip(names, shapes, strict=True)
        ]
        reads = [self.value, *names, *([beside] if beside else [])]
        self.value = f"v{len(self.nodes)}"
        self.nodes.append(
            helper.make_node(operator, reads, [self.value], f"n{len(self.nodes)}", **given)
        )
        return self

    def norm(self, channels: int) -> Writer:
        """Add a normalisation."""
        return self.add("BatchNormalization", *[(channels,)] * 4)

    def write(self, path: Path) -> Path:
        """Write the file."""
        inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", *self.shape])]
        outputs = [helper.make_tensor_value_info(self.value, TensorProto.FLOAT, ["n", None])]
        graph = helper.make_graph(self.nodes, "g", inputs, outputs, self.constants)
        opsets = [helper.make_opsetid("", 13)]
        onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), path)
        return path


@pytest.mark.parametrize("name", NETWORKS)
def test_our_own_files_give_back_their_models(tmp_path: Path, name: str) -> None:
    trainer = trained(name).trainer
    et.export_onnx(trainer, tmp_path / "model.onnx")
    assert et.from_onnx(tmp_path / "model.onnx") == trainer.plan.model


def test_operators_become_blocks_of_weights_norm_and_sign(tmp_path: Path) -> None:
    file = Writer(3, 20, 20)
    file.add("Conv", (32, 3, 5, 5)).add("AveragePool", kernel_shape=[2, 2], strides=[2, 2])
    file.norm(32).add("Relu")
    file.add("Conv", (64, 16, 3, 3), pads=[1, 1, 1, 1], group=2).add("Clip")
    file.add("MaxPool", kernel_shape=[2, 2], strides=[2, 2])
    file.add("Conv", (64, 64, 3, 3), strides=[2, 2], auto_pad="SAME_UPPER").add("Tanh")
    file.add("GlobalAveragePool").add("Flatten")
    file.add("Gemm", (7, 64), (7,), transB=1).add("Softmax")
    assert et.from_onnx(file.write(tmp_path / "m"), first="bnn") == et.Model(
        (20, 20, 3),
        (
            *(Conv2d(32, 5, 1, "valid", "bnn"), AvgPool(), BatchNorm(), Sign()),
            *(Conv2d(64, 3, groups=2), MaxPool(), BatchNorm(), Sign()),
            *(Conv2d(64, 3, 2), BatchNorm(), Sign(), GlobalAveragePool()),
            *(Linear(7, "int8"), BatchNorm(), SoftmaxCrossEntropy()),
        ),
    )


def test_matrices_with_a_bias_beside_them_are_dense_layers(tmp_path: Path) -> None:
    file = Writer(2, 8, 8).add("Reshape", (2,)).add("MatMul", (128, 64)).add("Add", (64,))
    file.add("Sigmoid").add("Dropout").add("MatMul", (64, 5)).add("Add", (5,))
    assert et.from_onnx(file.write(tmp_path / "m")).layers == (
        *(Flatten(), Linear(64, "int8"), BatchNorm(), Sign()),
        *(Linear(5, "int8"), BatchNorm(), SoftmaxCrossEntropy()),
    )


@pytest.mark.parametrize(
    ("file", "message"),
    [
        (Writer(8).add("MatMul", (8, 8)).add("Erf"), r"n1 \(Erf\) does not fit: there is nothing"),
        (Writer(8).add("MatMul", (8, 8)).add("Add", beside="x"), r"n1 \(Add\) .*it reads x beside"),
        (
            Writer(8).add("MatMul", (8, 8)).add("Relu").add("Add", beside="v0"),
            r"n2 \(Add\) does not fit: it reads v0 beside",
        ),
        (Writer(8).add("MatMul", (9, 8)), r"n0 \(MatMul\) .*reads 9 .* but 8 come"),
        (
            Writer(8).add("MatMul", (8, 8)).add("Relu").add("Add", (8,)),
            "a bias stands right behind",
        ),
        (Writer(8).add("Gemm", beside="x"), "no matrix of constants"),
        (Writer(8, 9, 9).add("Conv", (8, 8, 3, 3), pads=[1, 1]), "write two an axis"),
        (Writer(8, 9, 9).add("Conv", (8, 8, 3, 3), strides=[0, 0]), "one step"),
        (Writer(8, 9, 9).add("Conv", (8, 8, 3, 3), strides=[1]), "one step"),
        (Writer(8, 9, 9, 9).add("Relu"), "the input x has no shape"),
        (Writer(0).add("Relu"), "the input x has no shape"),
        (Writer(8).add("Relu"), "before any weights"),
    ],
)
def test_the_first_operator_that_does_not_fit_is_named(
    tmp_path: Path, file: Writer, message: str
) -> None:
    with pytest.raises(ModelError, match=message):
        et.from_onnx(file.write(tmp_path / "m"))


def test_commands_take_a_file(tmp_path: Path) -> None:
    path = (
        Writer(8)
        .add("MatMul", (8, 40))
        .add("Relu")
        .add("MatMul", (40, 3))
        .write(tmp_path / "network.onnx")
    )
    result = CliRunner().invoke(app, ["plan", str(path), "--json"], catch_exceptions=False)
    assert json.loads(result.stdout)["peak_bytes"] == et.plan(et.from_onnx(path)).peak_bytes


def test_what_is_no_onnx_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot read"):
        et.from_onnx(tmp_path / "missing")
    (tmp_path / "text").write_text("no model")
    with pytest.raises(PayloadError, match="no ONNX file"):
        et.from_onnx(tmp_path / "text")


def test_damaged_files_are_refused_in_words_of_ours(tmp_path: Path) -> None:
    file = Writer(2, 8, 8).add("Conv", (32, 2, 3, 3), pads=[1, 1, 1, 1]).norm(32).add("Relu")
    file.add("MaxPool", kernel_shape=[2, 2], strides=[2, 2]).add("Flatten").add("MatMul", (512, 3))
    path = file.write(tmp_path / "m")
    whole, draws, outcomes = path.read_bytes(), np.random.default_rng(3), set[str]()
    structure = len(whole) - sum(len(c.raw_data) for c in file.constants)
    for _ in range(DAMAGES):
        damaged = bytearray(whole)
        damaged[int(draws.integers(structure))] = int(draws.integers(256))
        path.write_bytes(damaged)
        try:
            et.from_onnx(path)
            outcomes.add("read")
        except EdgetrainError:
            outcomes.add("refused")
    assert outcomes == {"read", "refused"}
