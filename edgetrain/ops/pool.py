"""What pools of windows have in common: windows of sums, before their normalisation."""

from __future__ import annotations

from dataclasses import dataclass

from edgetrain.errors import ModelError
from edgetrain.ops.op import Arithmetic, Context, Op, Signal

__all__ = ["Pool"]

SIZE = 2
"""The one window whose places two bits can name."""


@dataclass(frozen=True)
class Pool(Op):
    """Windows of size x size pixels, or 1 x size in a signal of height 1, side by side.

    Rows and columns that fill no window are left.
    """

    size: int = SIZE

    def __post_init__(self) -> None:
        if self.size != SIZE:
            raise ModelError(f"{self.name} has windows of size {self.size}: choose {SIZE}")

    def window(self, source: Signal) -> tuple[int, int]:
        """Return the height and width of a window."""
        return (1 if source.height == 1 else self.size), self.size

    def flow(self, source: Signal) -> Signal:
        self.require(source, "integers")
        height, width = self.window(source)
        if source.height < height or source.width < width:
            raise ModelError(
                f"{self.name} has windows of {height} x {width} but a source of {source.height} x "
                f"{source.width}"
            )
        return Signal(source.height // height, source.width // width, source.channels, "integers")

    def arithmetic(self, context: Context) -> Arithmetic:
        pooled = context.examples * self.flow(context.source).bytes
        marks = sum(rule.bytes for rule in self.tensors(context))
        cost = Arithmetic(
            forward=context.sums_made * context.elements,
            backward=context.elements,
            forward_bytes=context.sums_made * (context.source_bytes + pooled) + marks,
            backward_bytes=marks,
        )
        return cost if context.learns else cost.forward_pass

    def record(self, context: Context, offsets: dict[str, int]) -> tuple[int, ...]:
        pooled = self.flow(context.source)
        return (
            context.source.channels,
            *self.window(context.source),
            pooled.height,
            pooled.width,
            offsets.get("argument", -1),
        )
