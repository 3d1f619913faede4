"""SoftmaxCrossEntropy: the loss, whose gradient leaves as integers times one scale."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from edgetrain.ops.graph import Graph
from edgetrain.ops.op import Arithmetic, Context, Op, Signal, TensorRule

__all__ = ["CLASS", "SCORES", "SoftmaxCrossEntropy"]

SCORES, CLASS = "scores", "class"
"""The outputs of a graph that predicts."""


@dataclass(frozen=True)
class SoftmaxCrossEntropy(Op):
    """Mean over the examples of -log softmax(x)[label]."""

    name: ClassVar[str] = "softmax_cross_entropy"
    opcode: ClassVar[int] = 4
    reference: ClassVar[str] = "edgetrain.reference.softmax_cross_entropy"

    def flow(self, source: Signal) -> Signal:
        self.require(source, "normalised")
        return source

    def tensors(self, context: Context) -> tuple[TensorRule, ...]:
        return (TensorRule("labels", context.examples, "loaded"),)

    def arithmetic(self, context: Context) -> Arithmetic:
        elements = context.elements
        return Arithmetic(
            forward=12 * elements,
            backward=3 * elements,
            forward_bytes=4 * elements + context.examples,
            backward_bytes=context.source_bytes,
        )

    def record(self, context: Context, offsets: dict[str, int]) -> tuple[int, ...]:
        return (
            context.source.features,
            offsets["logits"],
            offsets["output_gradient"],
            offsets["labels"],
        )

    def to_onnx(self, graph: Graph, value: str, context: Context) -> str:
        """Name what the loss reads, and the class that it would have liked best."""
        shape = graph.whole(0, context.source.features)
        scores = graph.add("Reshape", value, shape, output=SCORES)
        return graph.add("ArgMax", scores, output=CLASS, axis=1, keepdims=0)
