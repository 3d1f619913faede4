"""A graph of standard ONNX operators, as ops describe themselves in it: without onnx, or numpy.

Values are float32 of shape (examples, height, width, channels), as the engine has them: sums are
whole numbers, bits are +1 and -1. A float32 holds every whole number up to 2^24, so that sums are
exact whatever the order of their terms. More than 514 products of fsb weights with data, or 1032 of
weights of eight bits, could pass it if nearly all agreed: then the last bit of a sum may differ.

Weights are kept as edgetrain.inference has them, a bit each where they are signs, and operators
unpack them: a runtime does that once, as it loads the graph. See docs/decisions/070-onnx-export.md.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from edgetrain.tensorfile import Tensor

__all__ = ["CHANNELS_FIRST", "DOUBLE", "FLOAT", "Constant", "Graph", "Node"]

FLOAT, BOOL, DOUBLE = 1, 9, 11
"""What ONNX calls the types to which values are cast: TensorProto.DataType."""

CHANNELS_FIRST, CHANNELS_LAST = (0, 3, 1, 2), (0, 2, 3, 1)


@dataclass(frozen=True)
class Constant:
    """An array: dtype is I32, I64, F64 or one of edgetrain.tensorfile; data is little-endian."""

    dtype: str
    shape: tuple[int, ...]
    data: bytes


@dataclass(frozen=True)
class Node:
    """An operator of ONNX."""

    name: str
    operator: str
    inputs: tuple[str, ...]
    output: str
    attributes: Mapping[str, Any]


class Graph:
    """Nodes in their order, and the constants that they read.

    tensors are those of edgetrain.inference, and the fixed signs of fsb layers as theirs. scope is
    put before the names of what is added; left has what left each block, for shortcuts to read.
    """

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        self.tensors = tensors
        self.nodes: list[Node] = []
        self.constants: dict[str, Constant] = {}
        self.left: dict[int, str] = {}
        self.scope = ""

    def add(self, operator: str, *inputs: str, output: str = "", **attributes: Any) -> str:
        """Add an operator with one output, and return the output's name."""
        name = f"{self.scope}/{operator}_{len(self.nodes)}"
        self.nodes.append(Node(name, operator, inputs, output or name, attributes))
        return self.nodes[-1].output

    def constant(self, dtype: str, shape: tuple[int, ...], data: bytes) -> str:
        """Return the name of a constant, which is kept once however often it is asked for."""
        wanted = Constant(dtype, shape, data)
        for name, known in self.constants.items():
            if known == wanted:
                return name
        name = f"constant_{len(self.constants)}"
        self.constants[name] = wanted
        return name

    def tensor(self, name: str, *shape: int, dtype: str = "") -> str:
        """Return the name of a tensor of the model, in its own shape and dtype unless given."""
        found = self.tensors[name]
        self.constants[name] = Constant(
            dtype or found.dtype, shape or found.shape, bytes(found.data)
        )
        return name

    def whole(self, *numbers: int) -> str:
        """Return a constant vector of int64: a shape, or axes."""
        return self.constant("I64", (len(numbers),), struct.pack(f"<{len(numbers)}q", *numbers))

    def number(self, value: float) -> str:
        """Return a constant float32."""
        return self.constant("F32", (), struct.pack("<f", value))

    def reshaped(self, value: str, *shape: int) -> str:
        """Return a value in another shape, in which 0 is a size that stays."""
        return self.add("Reshape", value, self.whole(*shape))

    def floats(self, value: str) -> str:
        """Return a value as float32."""
        return self.add("Cast", value, to=FLOAT)

    def bits(self, name: str, columns: int) -> str:
        """Return packed signs, (rows, columns), as bools: true where a weight is +1."""
        rows, words = self.tensors[name].shape
        size = 4 * words
        packed = self.tensor(name, rows, size, 1, dtype="U8")
        places = self.constant("U8", (8,), bytes(1 << place for place in range(8)))
        found = self.add("Cast", self.add("BitwiseAnd", packed, places), to=BOOL)
        flat = self.reshaped(found, rows, 8 * size)
        return self.head(flat, columns) if 8 * size > columns else flat

    def head(self, value: str, columns: int) -> str:
        """Return the first columns of a matrix."""
        return self.add("Slice", value, self.whole(0), self.whole(columns), self.whole(1))

    def signed(self, bits: str, size: str = "") -> str:
        """Return +1 where bits are true and -1 elsewhere, or so many times a size."""
        if size:
            return self.add("Where", bits, size, self.add("Neg", size))
        return self.add("Where", bits, self.number(1), self.number(-1))

    def on_images(self, operator: str, value: str, *inputs: str, **attributes: Any) -> str:
        """Add an operator that has channels before height and width, as ONNX has them."""
        first = self.add("Transpose", value, perm=CHANNELS_FIRST)
        made = self.add(operator, first, *inputs, **attributes)
        return self.add("Transpose", made, perm=CHANNELS_LAST)
