"""Makes a model of an ONNX file's operators, to train it within a device's memory.

Needs onnx, which is loaded as a file is read.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgetrain.chain import Chain, Kernel, fitting
from edgetrain.errors import DataError, ModelError, PayloadError
from edgetrain.extras import onnx_needed
from edgetrain.model import Model
from edgetrain.ops.weights import Training

if TYPE_CHECKING:
    import onnx

__all__ = ["from_onnx"]

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Operator:
    """One of a graph's operators: its attributes, and the shapes of the constants that it reads."""

    kind: str
    attributes: dict[str, Any]
    constants: list[Shape]

    def kernel(self) -> Kernel:
        """Return how a convolution or a pool goes over its image."""
        sizes = tuple(self.attributes.get("kernel_shape") or self.constants[0][2:])
        axes, automatic = len(sizes), self.attributes.get("auto_pad", b"NOTSET")
        pads = self.attributes.get("pads", [0] * 2 * axes)
        if automatic == b"VALID":
            pads = [0] * 2 * axes
        if len(pads) != 2 * axes:
            raise ModelError(f"a kernel over {axes} axes has {len(pads)} pads: write two an axis")
        if self.attributes.get("ceil_mode"):
            raise ModelError("windows that are not whole are left out: choose ceil_mode 0")
        return Kernel(
            sizes,
            tuple(self.attributes.get("strides", (1,) * axes)),
            None
            if automatic.startswith(b"SAME")
            else tuple(pads[axis] + pads[axis + axes] for axis in range(axes)),
            tuple(self.attributes.get("dilations", (1,))),
        )


Read = Callable[[Chain, Operator], object]


def from_onnx(path: str | Path, *, first: Training = "int8", last: Training = "int8") -> Model:
    """Return the model of an ONNX file whose operators follow one another, whatever their weights.

    A file that export_onnx wrote gives back its own model. Else edgetrain.chain says what becomes
    of an operator, and first and last how the outer layers are trained; the data to train on have
    channels last, where those of the file have them first. Raises DataError or PayloadError for
    what is no ONNX file, ModelError naming the first operator that does not fit.
    """
    file = _opened(Path(path))
    told = {entry.key: entry.value for entry in file.metadata_props}
    if file.producer_name == "edgetrain" and "model" in told:
        return Model.from_json(told["model"])
    graph = file.graph
    shapes = _constants(graph)
    value, shape = _input(graph, shapes)
    chain = Chain(shape)
    for number, node in enumerate(graph.node):
        if value not in node.input or node.op_type == "Shape":
            continue
        with fitting(f"{node.name or number} ({node.op_type})"):
            others = [name for name in node.input if name and name != value]
            joined = [name for name in others if name not in shapes]
            if joined and node.op_type != "Reshape":
                raise ModelError(f"it reads {joined[0]} beside what the layer before it gives")
            constants = [shapes[name] for name in others if name in shapes]
            operator = Operator(node.op_type, _attributes(node), constants)
            OPERATORS.get(node.op_type, _unknown)(chain, operator)
        value = node.output[0]
    if value not in {output.name for output in graph.output}:
        raise ModelError(f"{value} does not fit: nothing reads it, and it is no output")
    return chain.model(first, last)


def _opened(path: Path) -> onnx.ModelProto:
    with onnx_needed():
        import onnx  # noqa: PLC0415 - no device has it
    try:
        file = onnx.load(path, load_external_data=False)
        onnx.checker.check_model(file)
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}: check the path") from None
    except Exception as error:  # the parser is another's, and can fail in any way
        raise PayloadError(f"{path} is no ONNX file: {error}") from None
    return file


def _constants(graph: onnx.GraphProto) -> dict[str, Shape]:
    """Return the shapes of all constants, by name."""
    found = {constant.name: tuple(constant.dims) for constant in graph.initializer}
    for node in graph.node:
        for attribute in node.attribute if node.op_type == "Constant" else ():
            found[node.output[0]] = tuple(attribute.t.dims)
    return found


def _input(graph: onnx.GraphProto, constants: dict[str, Shape]) -> tuple[str, Shape]:
    """Return the name of the data, and the shape of an example with channels last."""
    given = [value for value in graph.input if value.name not in constants]
    if len(given) != 1:
        raise ModelError(f"the graph has {len(given)} inputs: it must have one")
    channels, *sizes = [dim.dim_value for dim in given[0].type.tensor_type.shape.dim][1:] or [0]
    if len(sizes) > 2 or min(channels, *sizes, 1) < 1:
        raise ModelError(
            f"the input {given[0].name} has no shape of examples, one to three known sizes each"
        )
    return given[0].name, (*sizes, channels)


def _attributes(node: onnx.NodeProto) -> dict[str, Any]:
    from onnx import helper  # noqa: PLC0415 - no device has it

    return {entry.name: helper.get_attribute_value(entry) for entry in node.attribute}


def _unknown(chain: Chain, operator: Operator) -> None:
    del chain
    raise ModelError(f"there is nothing like {operator.kind} here: use {', '.join(OPERATORS)}")


def _dense(chain: Chain, operator: Operator) -> None:
    shape = operator.constants[0] if operator.constants else ()
    if len(shape) != 2:
        raise ModelError("it multiplies by no matrix of constants")
    inputs, outputs = reversed(shape) if operator.attributes.get("transB") else shape
    chain.linear(inputs, outputs)


def _convolution(chain: Chain, operator: Operator) -> None:
    if not operator.constants or len(operator.constants[0]) not in (3, 4):
        raise ModelError("it has no kernel of constants over one axis or two")
    outputs, seen, *_ = operator.constants[0]
    groups = operator.attributes.get("group", 1)
    chain.convolution(seen * groups, outputs, operator.kernel(), groups)


OPERATORS: dict[str, Read] = {
    "Gemm": _dense,
    "MatMul": _dense,
    "Conv": _convolution,
    # What it adds is a bias, as a value beside the data was refused before.
    "Add": lambda chain, _: chain.bias(),
    "MaxPool": lambda chain, it: chain.pool_maxima(it.kernel()),
    "AveragePool": lambda chain, it: chain.pool_averages(it.kernel()),
    "GlobalAveragePool": lambda chain, _: chain.average(),
    "BatchNormalization": lambda chain, _: chain.normalise(),
    **dict.fromkeys(
        ("Relu", "LeakyRelu", "Clip", "Tanh", "Sigmoid", "HardSigmoid", "Softsign", "Sign"),
        lambda chain, _: chain.activate(),
    ),
    **dict.fromkeys(("Flatten", "Reshape"), lambda chain, _: chain.flatten()),
    **dict.fromkeys(("Softmax", "LogSoftmax"), lambda chain, _: chain.end()),
    **dict.fromkeys(("Dropout", "Identity"), lambda *_: None),
}
"""How an operator is read, by its name."""
