"""BatchNorm: x = (y - mean) / deviation + shift, with the mean absolute deviation.

There is no gain: a positive one cannot change a sign. The backward pass keeps the sign of the
normalised value in place of the value (Wang et al. 2021):
dL/dy = v - mean(v) - mean(v s) s, with v = g / deviation and s the retained sign.
Where no gradient arrives, as only frozen layers lie here and below, the shift stays as it is; the
running statistics move all the same, because they belong to the data.
"""

from __future__ import annotations

from array import array
from dataclasses import dataclass, replace
from typing import ClassVar

from edgetrain.ops.graph import Graph
from edgetrain.ops.op import Arithmetic, Context, Op, Phase, Signal, TensorRule, padded

__all__ = ["CHANNEL_STATE", "BatchNorm"]

CHANNEL_STATE = ("shift", "mean", "deviation")
"""float32 a channel: the shift and the running statistics."""
MOMENTS = ("moment1", "moment2")
"""float32 a channel, where a gradient arrives: the two moments of Adam for the shift."""


@dataclass(frozen=True)
class BatchNorm(Op):
    """Batch normalisation by mean absolute deviation, with a trained shift."""

    name: ClassVar[str] = "batch_norm"
    opcode: ClassVar[int] = 2
    reference: ClassVar[str] = "edgetrain.reference.batch_norm"

    def flow(self, source: Signal) -> Signal:
        self.require(source, "integers")
        return replace(source, kind="normalised")

    def tensors(self, context: Context) -> tuple[TensorRule, ...]:
        channels = context.source.channels
        rows = context.examples * context.source.pixels
        kept = CHANNEL_STATE + (MOMENTS if context.learns else ())
        rules = [TensorRule(name, 4 * channels, "persistent") for name in kept]
        if context.learns:
            rules.append(TensorRule("inverse_deviation", 4 * padded(channels), "retained"))
            rules.append(self._channel_sums(context))
        if context.learns and not context.remade:
            rules.append(TensorRule("output_gradient", 4 * rows * padded(channels), "gradient"))
        if context.learns and context.gradient.format.channel_scales:
            # The power of two of a channel's scale.
            phase: Phase = "early_codes" if context.remade else "codes"
            rules.append(TensorRule("channel_shifts", padded(channels), phase))
        if context.last:
            rules.append(TensorRule("sign", rows * padded(channels) // 8, "retained"))
            rules.append(TensorRule("logits", 4 * rows * channels, "retained"))
        return tuple(rules)

    def _channel_sums(self, context: Context) -> TensorRule:
        """Two 64-bit sums and four 32-bit extremes a channel, of every thread where it is remade.

        Then four float32 coefficients a channel.
        """
        width = padded(context.source.channels)
        sums = 32 * width * (context.threads if context.remade else 1)
        phase: Phase = "remade" if context.remade else "norm"
        return TensorRule("channel_sums", sums + 16 * width, phase)

    def arithmetic(self, context: Context) -> Arithmetic:
        sums, bits = context.source_bytes, context.source_bytes // 32
        logits = 4 * context.elements if context.last else 0
        channel = 4 * context.source.channels
        cost = Arithmetic(
            forward=3 * context.elements,
            backward=8 * context.elements,
            # The mean, then the deviation from it; normalised values are stored in the last layer.
            # The running statistics move, the shift is read.
            forward_bytes=2 * sums + logits + 5 * channel,
            # What leaves depends on sums over all that arrives: the gradient is read twice. The
            # shift and its two moments move.
            backward_bytes=2 * (sums + bits) + context.gradient.code_bytes(sums // 4) + 6 * channel,
        )
        return cost if context.learns else cost.forward_pass

    def record(self, context: Context, offsets: dict[str, int]) -> tuple[int, ...]:
        return (
            context.source.channels,
            *(offsets[name] for name in CHANNEL_STATE),
            *(
                offsets.get(name, -1)
                for name in (
                    *MOMENTS,
                    "inverse_deviation",
                    "output_gradient",
                    "channel_sums",
                    "channel_shifts",
                    "sign",
                    "logits",
                )
            ),
        )

    def to_onnx(self, graph: Graph, value: str, context: Context) -> str:
        """Subtract the threshold of a sign, or normalise in the engine's own float32 steps."""
        layer = f"layer{context.index}"
        if not context.last:
            threshold = graph.tensor(f"{layer}.threshold", dtype="I32")
            return graph.add("Sub", value, graph.floats(threshold))
        shift, mean, deviation = (graph.tensors[f"{layer}.{n}"].view() for n in CHANNEL_STATE)
        slope = array("f", (1 / d if d > 0 else 0 for d in deviation))
        offset = array("f", (s - m * k for s, m, k in zip(shift, mean, slope, strict=True)))
        scaled = graph.add("Mul", value, graph.constant("F32", (len(slope),), slope.tobytes()))
        return graph.add("Add", scaled, graph.constant("F32", (len(offset),), offset.tobytes()))
