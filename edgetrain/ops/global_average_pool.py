"""GlobalAveragePool: the sum of each channel's bits over all pixels, as int8 features.

It is not divided by the number of pixels, because the normalisation of the layer that reads it
would cancel that. Every pixel receives the gradient of the sum.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from edgetrain.errors import ModelError
from edgetrain.ops.graph import Graph
from edgetrain.ops.op import Arithmetic, Context, Op, Signal, TensorRule, padded

__all__ = ["GlobalAveragePool"]

MOST_PIXELS = 127
"""Pixels whose sum of +1 and -1 is sure to fit an int8."""


@dataclass(frozen=True)
class GlobalAveragePool(Op):
    """What a dense layer may read of an image in the place of all its pixels."""

    name: ClassVar[str] = "global_average_pool"
    opcode: ClassVar[int] = 10
    reference: ClassVar[str] = "edgetrain.reference.average_pool"

    def flow(self, source: Signal) -> Signal:
        self.require(source, "bits")
        if source.pixels > MOST_PIXELS:
            raise ModelError(
                f"global_average_pool has {source.height} x {source.width} pixels, but their sum "
                f"fits an int8 up to {MOST_PIXELS} only: pool or stride before, or flatten"
            )
        return Signal(1, 1, source.channels, "int8")

    def tensors(self, context: Context) -> tuple[TensorRule, ...]:
        features = context.examples * padded(context.source.channels)
        return (TensorRule("features", features, "retained" if context.learns else "passed"),)

    def arithmetic(self, context: Context) -> Arithmetic:
        sums = context.examples * padded(context.source.channels)
        cost = Arithmetic(
            forward=context.elements,
            backward=context.elements,
            forward_bytes=context.source_bytes + sums,
            # The gradient of a sum goes to every pixel, 32 bits each.
            backward_bytes=4 * sums + 32 * context.source_bytes,
        )
        return cost if context.learns else cost.forward_pass

    def record(self, context: Context, offsets: dict[str, int]) -> tuple[int, ...]:
        return (context.source.channels, offsets["features"])

    def to_onnx(self, graph: Graph, value: str, context: Context) -> str:
        del context
        return graph.add("ReduceSum", value, graph.whole(1, 2))
