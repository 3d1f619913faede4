"""Xnor and Or: shortcuts of one bit (BoolNet, Guo et al. 2021).

The block's signs a meet the bits b that left an earlier block, as +1 and -1:

xnor  z = a b                                  dz/da = b             dz/db = a
or    z = max(a, b) = (a + b - a b + 1) / 2    dz/da = (1 - b) / 2   dz/db = (1 - a) / 2

z leaves the block in the place of a and takes no memory beside it: under xnor a is z b, and under
or a is z where b is -1, while elsewhere no gradient passes to a, so that its mask may hold a. The
gradient of b is kept as 4-bit codes until the backward step of the block that b came from.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar

from edgetrain.errors import ModelError
from edgetrain.ops.graph import Graph
from edgetrain.ops.op import Arithmetic, Context, Op, Signal, TensorRule, padded

__all__ = ["BitShortcut", "Or", "Shortcut", "Xnor", "shape_of"]


@dataclass(frozen=True)
class Shortcut(Op):
    """What every shortcut shares: it reads the bits that left the block `back` blocks earlier."""

    back: int = 1

    def __post_init__(self) -> None:
        if self.back < 1:
            raise ModelError(f"{self.name} goes back {self.back} blocks: choose 1 or more")

    @abstractmethod
    def copies(self, branch: Signal, target: Signal) -> int:
        """Return how often each bit of the branch is read.

        Raises ModelError where the branch does not fit the signal that it meets.
        """


@dataclass(frozen=True)
class BitShortcut(Shortcut):
    """What Xnor and Or share: all but what the bits do to one another."""

    operator: ClassVar[str]
    """The operator of ONNX that does it to +1 and -1."""

    def flow(self, source: Signal) -> Signal:
        self.require(source, "bits")
        return source

    def copies(self, branch: Signal, target: Signal) -> int:
        if branch != target:
            raise ModelError(
                f"{self.name} joins {shape_of(target)} bits with the {shape_of(branch)} that left "
                f"{self.back} blocks before: choose another back, or none where shapes change"
            )
        return 1

    def tensors(self, context: Context) -> tuple[TensorRule, ...]:
        if not context.learns:
            return ()
        rows = context.examples * context.source.pixels
        packed = rows * padded(context.source.channels) // 2
        return (TensorRule("branch_codes", packed, "sent"),)

    def arithmetic(self, context: Context) -> Arithmetic:
        bits = context.source_bytes
        cost = Arithmetic(
            forward=context.elements // 8,
            backward=4 * context.elements,
            forward_bytes=(4 if context.learns else 3) * bits,
            # Gradients of 32 bits are read and written twice, their codes of 4 bits once each.
            backward_bytes=(4 * 32 + 2 * 4) * bits,
        )
        return cost if context.learns else cost.forward_pass

    def record(self, context: Context, offsets: dict[str, int]) -> tuple[int, ...]:
        assert context.branch is not None
        return (context.branch.index, offsets.get("branch_codes", -1))

    def to_onnx(self, graph: Graph, value: str, context: Context) -> str:
        assert context.branch is not None
        return graph.add(self.operator, value, graph.left[context.branch.index])


@dataclass(frozen=True)
class Xnor(BitShortcut):
    """+1 where the bits are equal."""

    name: ClassVar[str] = "xnor"
    opcode: ClassVar[int] = 7
    reference: ClassVar[str] = "edgetrain.reference.shortcut"
    operator: ClassVar[str] = "Mul"


@dataclass(frozen=True)
class Or(BitShortcut):
    """+1 where one of the bits is."""

    name: ClassVar[str] = "or"
    opcode: ClassVar[int] = 8
    reference: ClassVar[str] = "edgetrain.reference.shortcut"
    operator: ClassVar[str] = "Max"


def shape_of(signal: Signal) -> str:
    """Return a signal's height, width and channels as a message has them."""
    return f"{signal.height} x {signal.width} x {signal.channels}"
