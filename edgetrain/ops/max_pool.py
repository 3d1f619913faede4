"""MaxPool: the largest sum of each window, and which of its places held it.

It reads the exact sums of a convolution, before their normalisation. The first maximum in
row-major order wins, and the gradient goes to its place alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from edgetrain.ops.graph import Graph
from edgetrain.ops.op import Context, TensorRule, padded
from edgetrain.ops.pool import Pool

__all__ = ["MaxPool"]


@dataclass(frozen=True)
class MaxPool(Pool):
    """Maxima over windows of size x size pixels, or 1 x size in a signal of height 1."""

    name: ClassVar[str] = "max_pool"
    opcode: ClassVar[int] = 6
    reference: ClassVar[str] = "edgetrain.reference.max_pool"

    def tensors(self, context: Context) -> tuple[TensorRule, ...]:
        if not context.learns:
            return ()
        # Two bits a maximum: which of four places it came from.
        rows = context.examples * self.flow(context.source).pixels
        return (TensorRule("argument", 2 * rows * padded(context.source.channels) // 8, "pooled"),)

    def to_onnx(self, graph: Graph, value: str, context: Context) -> str:
        window = self.window(context.source)
        return graph.on_images("MaxPool", value, kernel_shape=window, strides=window)
