"""AvgPool: the sum over each window of the exact sums of a convolution.

It is not divided by the number of places, because the normalisation behind it would cancel that.
Every place of a window receives the gradient of its sum.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from edgetrain.ops.graph import Graph
from edgetrain.ops.op import Context, TensorRule
from edgetrain.ops.pool import Pool

__all__ = ["AvgPool"]


@dataclass(frozen=True)
class AvgPool(Pool):
    """Sums over windows of size x size pixels, or 1 x size in a signal of height 1."""

    name: ClassVar[str] = "avg_pool"
    opcode: ClassVar[int] = 9
    reference: ClassVar[str] = "edgetrain.reference.average_pool"

    def tensors(self, context: Context) -> tuple[TensorRule, ...]:
        del context
        return ()

    def to_onnx(self, graph: Graph, value: str, context: Context) -> str:
        window = self.window(context.source)
        mean = graph.on_images("AveragePool", value, kernel_shape=window, strides=window)
        return graph.add("Mul", mean, graph.number(math.prod(window)))
