"""MaxPool: the largest sum of each window, and which of its places held it.

It reads the exact sums of a convolution, before their normalisation. The first maximum in
row-major order wins, and the gradient goes to its place alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from edgetrain.errors import ModelError
from edgetrain.ops.op import Arithmetic, Context, Op, Signal, TensorRule, padded

__all__ = ["MaxPool"]

SIZE = 2
"""The one window whose places two bits can name."""


@dataclass(frozen=True)
class MaxPool(Op):
    """Windows of size x size pixels, or 1 x size in a signal of height 1, side by side."""

    size: int = SIZE

    name: ClassVar[str] = "max_pool"
    opcode: ClassVar[int] = 6
    reference: ClassVar[str] = "edgetrain.reference.max_pool"

    def __post_init__(self) -> None:
        if self.size != SIZE:
            raise ModelError(f"max_pool has windows of size {self.size}: choose {SIZE}")

    def window(self, source: Signal) -> tuple[int, int]:
        """Return the height and width of a window."""
        return (1 if source.height == 1 else self.size), self.size

    def flow(self, source: Signal) -> Signal:
        self.require(source, "integers")
        height, width = self.window(source)
        if source.height < height or source.width < width:
            raise ModelError(
                f"max_pool has windows of {height} x {width} but a source of {source.height} x "
                f"{source.width}"
            )
        return Signal(source.height // height, source.width // width, source.channels, "integers")

    def tensors(self, context: Context) -> tuple[TensorRule, ...]:
        # Two bits a maximum: which of four places it came from.
        rows = context.examples * self.flow(context.source).pixels
        return (
            TensorRule("argument", 2 * rows * padded(context.source.channels) // 8, "retained"),
        )

    def arithmetic(self, context: Context) -> Arithmetic:
        elements = context.examples * context.source.features
        return Arithmetic(forward=elements, backward=elements, bytes_moved=5 * elements)

    def record(self, context: Context, offsets: dict[str, int]) -> tuple[int, ...]:
        pooled = self.flow(context.source)
        return (
            context.source.channels,
            *self.window(context.source),
            pooled.height,
            pooled.width,
            offsets["argument"],
        )
