"""Add: a residual shortcut, y += gain b, on the exact sums before their normalisation.

b, as +1 and -1, are the bits that left an earlier block, and what leaves this one are bits again.
Where the sums have half the height and width, pixel (2 y, 2 x) is read at (y, x); where they have a
multiple of the channels, the bits are repeated: no shortcut has weights. The gradient of b is gain
times that of y, whose 4-bit codes are kept until the backward step of the block that b came from.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from edgetrain.errors import ModelError
from edgetrain.ops.graph import Graph
from edgetrain.ops.op import LANES, Arithmetic, Context, Signal, TensorRule
from edgetrain.ops.shortcut import Shortcut, shape_of

__all__ = ["Add"]

MOST_GAIN = 4096


@dataclass(frozen=True)
class Add(Shortcut):
    """What the bits of an earlier block add to sums: each as much as `gain` products of +1 or -1.

    In layers whose weights have eight bits a product counts 128 levels.
    """

    gain: int = 16

    name: ClassVar[str] = "add"
    opcode: ClassVar[int] = 11
    reference: ClassVar[str] = "edgetrain.reference.shortcut"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 1 <= self.gain <= MOST_GAIN:
            raise ModelError(f"add has a gain of {self.gain}: choose 1 to {MOST_GAIN}")

    def flow(self, source: Signal) -> Signal:
        self.require(source, "integers")
        return source

    def stride(self, branch: Signal, target: Signal) -> int:
        """Return the step from one pixel that is read to the next: 1 or 2.

        Raises ModelError where no such step makes one size of the other.
        """
        for stride in (1, 2):
            if all(
                after * stride - stride < before <= after * stride + stride - 1
                for before, after in (
                    (branch.height, target.height),
                    (branch.width, target.width),
                )
            ):
                return stride
        raise ModelError(
            f"add cannot make {shape_of(target)} sums of the {shape_of(branch)} bits that left "
            f"{self.back} blocks before: their height and width must be the same, or half"
        )

    def copies(self, branch: Signal, target: Signal) -> int:
        self.stride(branch, target)
        whole = branch.channels == target.channels or branch.channels % LANES == 0
        if target.channels % branch.channels or not whole:
            raise ModelError(
                f"add cannot make {shape_of(target)} sums of the {shape_of(branch)} bits that left "
                f"{self.back} blocks before: choose as many channels, or a multiple of a multiple "
                f"of {LANES}"
            )
        return target.channels // branch.channels

    def tensors(self, context: Context) -> tuple[TensorRule, ...]:
        del context
        return ()

    def arithmetic(self, context: Context) -> Arithmetic:
        sums, bits = context.source_bytes, context.source_bytes // 32
        cost = Arithmetic(
            forward=context.elements,
            backward=context.elements,
            forward_bytes=2 * sums + bits,
            # The codes are read, and added to the gradient of the bits.
            backward_bytes=4 * bits + 2 * sums,
        )
        return cost if context.learns else cost.forward_pass

    def record(self, context: Context, offsets: dict[str, int]) -> tuple[int, ...]:
        del offsets
        branch = context.branch
        assert branch is not None
        return (
            branch.index,
            self.gain * branch.unit,
            self.stride(branch.signal, context.source),
        )

    def to_onnx(self, graph: Graph, value: str, context: Context) -> str:
        branch, target = context.branch, context.source
        assert branch is not None
        bits = graph.left[branch.index]
        if (stride := self.stride(branch.signal, target)) > 1:
            bits = graph.add(
                "Slice",
                bits,
                graph.whole(0, 0),
                graph.whole(branch.signal.height, branch.signal.width),
                graph.whole(1, 2),
                graph.whole(stride, stride),
            )
        if (copies := self.copies(branch.signal, target)) > 1:
            bits = graph.add("Tile", bits, graph.whole(1, 1, 1, copies))
        gained = graph.add("Mul", bits, graph.number(self.gain * branch.unit))
        return graph.add("Add", value, gained)
