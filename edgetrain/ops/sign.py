"""Sign: x -> +1 or -1, held as one bit, with the straight-through mask |x| <= 1 as another."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from edgetrain.ops.graph import Graph
from edgetrain.ops.op import Arithmetic, Context, Op, Signal, TensorRule, padded

__all__ = ["Sign"]


@dataclass(frozen=True)
class Sign(Op):
    """The binary activation; sign(0) is +1."""

    name: ClassVar[str] = "sign"
    opcode: ClassVar[int] = 3
    reference: ClassVar[str] = "edgetrain.reference.sign"

    def flow(self, source: Signal) -> Signal:
        self.require(source, "normalised")
        return replace(source, kind="bits")

    def tensors(self, context: Context) -> tuple[TensorRule, ...]:
        rows = context.examples * context.source.pixels
        packed = rows * padded(context.source.channels) // 8
        if not context.learns:
            return (TensorRule("sign", packed, "passed"),)
        return (TensorRule("sign", packed, "retained"), TensorRule("mask", packed, "retained"))

    def arithmetic(self, context: Context) -> Arithmetic:
        sums, bits = context.source_bytes, context.source_bytes // 32
        cost = Arithmetic(
            forward=3 * context.elements,
            backward=context.elements,
            forward_bytes=sums + (2 if context.learns else 1) * bits,
            # The norm reads the gradient twice, each time through the mask.
            backward_bytes=2 * bits,
        )
        return cost if context.learns else cost.forward_pass

    def record(self, context: Context, offsets: dict[str, int]) -> tuple[int, ...]:
        return (context.source.channels, offsets["sign"], offsets.get("mask", -1))

    def to_onnx(self, graph: Graph, value: str, context: Context) -> str:
        del context
        return graph.signed(graph.add("GreaterOrEqual", value, graph.number(0)))
