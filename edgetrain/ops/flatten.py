"""Flatten: an image becomes one row of features, pixel after pixel, and moves no byte."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from edgetrain.errors import ModelError
from edgetrain.ops.graph import Graph
from edgetrain.ops.op import LANES, Arithmetic, Context, Op, Signal, TensorRule

__all__ = ["Flatten"]


@dataclass(frozen=True)
class Flatten(Op):
    """What a dense layer needs between itself and an image."""

    name: ClassVar[str] = "flatten"
    opcode: ClassVar[int] = 0
    reference: ClassVar[str] = "edgetrain.reference.flatten"

    def flow(self, source: Signal) -> Signal:
        self.require(source, "int8", "bits")
        # Each pixel of bits is padded to a word, so a row without gaps needs whole words.
        if source.kind == "bits" and source.pixels > 1 and source.channels % LANES:
            raise ModelError(
                f"flatten cannot join {source.pixels} pixels of {source.channels} channels of "
                f"bits: choose a multiple of {LANES} channels"
            )
        return Signal(1, 1, source.features, source.kind)

    def tensors(self, context: Context) -> tuple[TensorRule, ...]:
        del context
        return ()

    def arithmetic(self, context: Context) -> Arithmetic:
        del context
        return Arithmetic()

    def record(self, context: Context, offsets: dict[str, int]) -> tuple[int, ...]:
        del context, offsets
        return ()

    def to_onnx(self, graph: Graph, value: str, context: Context) -> str:
        return graph.reshaped(value, 0, 1, 1, context.source.features)
