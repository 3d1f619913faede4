"""Writes a trained model as an ONNX file of standard operators, which any runtime can run.

Needs onnx, which no device does: it is imported as a file is written.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from edgetrain import _native
from edgetrain._version import __version__
from edgetrain.choices import Choices, walk
from edgetrain.data.scaling import LIMIT, Scaling
from edgetrain.errors import ConfigError
from edgetrain.examples import InputType
from edgetrain.extras import onnx_needed
from edgetrain.gradient import GRADIENT
from edgetrain.model import Model
from edgetrain.ops import Flatten, GlobalAveragePool, WeightOp
from edgetrain.ops.graph import DOUBLE, Constant, Graph
from edgetrain.ops.op import LANES, padded
from edgetrain.ops.softmax_cross_entropy import CLASS, SCORES
from edgetrain.packed import PackedModel, packed_model
from edgetrain.reference.random import Purpose
from edgetrain.storage import replace_file
from edgetrain.tensorfile import State, Tensor

if TYPE_CHECKING:
    import onnx

    from edgetrain.train import Trainer

__all__ = ["export_onnx", "graph_of"]

OPSET = 18
"""The oldest set of operators that has BitwiseAnd."""
IR_VERSION = 8
"""The oldest form of a file that may have it."""
INPUT, BATCH = "input", "examples"
ZERO_POINT = 128
"""What is taken from unsigned data: see the native Examples."""

INPUT_TYPES: tuple[InputType, ...] = get_args(InputType)


def export_onnx(trainer: Trainer, path: str | Path, input_type: InputType | None = None) -> None:
    """Write what a trainer has learnt as an ONNX file.

    Its input is of (examples, *model.example_shape), however many examples; its outputs are
    "scores", float32 (examples, classes), and "class", int64 (examples,), that of the highest
    score. Unless input_type is given, the input is float32 where the trainer has constants to scale
    it by, as the graph then does, and else of the type that was trained on. Raises ConfigError
    where it cannot be known or made, StorageError where the file cannot be written.
    """
    packed = packed_model(trainer)
    chosen = known_input(packed.scaling, input_type, trainer.input_type)
    model = onnx_model(packed, chosen)
    replace_file(Path(path), (model.SerializeToString(deterministic=True),))


def known_input(
    scaling: Scaling | None, asked: str | None, trained_on: InputType | None
) -> InputType:
    """Return the type of a graph's input: float32 where constants scale it, unless asked for.

    Raises ConfigError where it cannot be known or made.
    """
    wanted = asked or ("float32" if scaling is not None else trained_on)
    if wanted is None:
        raise ConfigError(
            "the model does not say which data it was trained on: give --input, or input_type, "
            "uint8 or int8"
        )
    for known in INPUT_TYPES:
        if known != wanted:
            continue
        if known == "float32" and scaling is None:
            raise ConfigError(
                "the model has no constants to scale float32 by, as it was trained on integers: "
                "choose uint8 or int8"
            )
        return known
    raise ConfigError(f"an input of {wanted!r}: choose one of {', '.join(INPUT_TYPES)}")


def graph_of(packed: PackedModel, input_type: InputType) -> Graph:
    """Return the graph that predicts, of what each op declares."""
    model = packed.model
    graph = Graph(packed.tensors | _fixed_signs(packed))
    graph.scope = INPUT
    value = _data(graph, model, packed.scaling, input_type)
    for block, op, context in walk(model, Choices(packed.mode, "signs", GRADIENT, 1, 1)):
        graph.scope = f"layer{block.index}/{op.name}"
        value = op.to_onnx(graph, value, context)
        if not isinstance(op, Flatten | GlobalAveragePool):
            graph.left[block.index] = value
    return graph


def onnx_model(packed: PackedModel, input_type: InputType) -> onnx.ModelProto:
    """Return the model as onnx has it, checked."""
    with onnx_needed():
        import onnx  # noqa: PLC0415 - no device has it
        from onnx import TensorProto, helper  # noqa: PLC0415

    model, graph = packed.model, graph_of(packed, input_type)
    types = {"uint8": TensorProto.UINT8, "int8": TensorProto.INT8, "float32": TensorProto.FLOAT}
    shape: tuple[str | int, ...] = (BATCH, *model.example_shape)
    made = helper.make_model(
        helper.make_graph(
            [
                helper.make_node(
                    node.operator, node.inputs, [node.output], node.name, **node.attributes
                )
                for node in graph.nodes
            ],
            "edgetrain",
            [helper.make_tensor_value_info(INPUT, types[input_type], shape)],
            [
                helper.make_tensor_value_info(SCORES, TensorProto.FLOAT, (BATCH, model.classes)),
                helper.make_tensor_value_info(CLASS, TensorProto.INT64, (BATCH,)),
            ],
            [_initializer(name, constant) for name, constant in graph.constants.items()],
        ),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="edgetrain",
        producer_version=__version__,
    )
    told = {"classes": str(model.classes), "mode": packed.mode, "model": model.to_json()}
    helper.set_model_props(made, told)
    onnx.checker.check_model(made, full_check=True)
    return made


def _initializer(name: str, constant: Constant) -> onnx.TensorProto:
    from onnx import TensorProto, helper  # noqa: PLC0415

    types = {
        "F32": TensorProto.FLOAT,
        "F64": TensorProto.DOUBLE,
        "I8": TensorProto.INT8,
        "I32": TensorProto.INT32,
        "I64": TensorProto.INT64,
        "U8": TensorProto.UINT8,
    }
    return helper.make_tensor(name, types[constant.dtype], constant.shape, constant.data, raw=True)


def _fixed_signs(packed: PackedModel) -> State:
    """Return the signs of fsb layers, which the engine draws from the seed."""
    found: State = {}
    for block in packed.model.blocks():
        weights: WeightOp = block.weights
        if weights.weight_mode(packed.mode) != "fsb":
            continue
        rows, columns = weights.rows(block.source)
        words = padded(columns) // LANES
        seed = packed.seed & 0xFFFFFFFFFFFFFFFF
        drawn = _native.random_words(seed, 0, block.index, Purpose.FIXED_SIGNS, rows * words)
        found[f"layer{block.index}.signs"] = Tensor("U32", (rows, words), drawn)
    return found


def _data(graph: Graph, model: Model, scaling: Scaling | None, input_type: InputType) -> str:
    """Return the input as the first layer reads it: whole numbers from -128 to 127."""
    value = INPUT
    if input_type == "float32":
        assert scaling is not None
        value = _scaled(graph, scaling)
    value = graph.floats(value)
    if input_type == "uint8":
        value = graph.add("Sub", value, graph.number(ZERO_POINT))
    return graph.reshaped(value, 0, *model.input_shape)


def _scaled(graph: Graph, scaling: Scaling) -> str:
    """Return the input as Scaling.apply makes it, in its float64."""

    def doubles(*numbers: float) -> str:
        return graph.constant("F64", (len(numbers),), struct.pack(f"<{len(numbers)}d", *numbers))

    samples = graph.reshaped(INPUT, 0, -1, len(scaling.center))
    apart = graph.add("Sub", graph.add("Cast", samples, to=DOUBLE), doubles(*scaling.center))
    steps = graph.add("Round", graph.add("Div", apart, doubles(*scaling.step)))
    return graph.add("Max", graph.add("Min", steps, doubles(LIMIT)), doubles(-LIMIT))
