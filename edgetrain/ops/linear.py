"""Linear: y = W x in exact integers, with weights trained in one of three ways, or not at all.

bnn     W = sign(latent), the latent an int8 (ALGORITHMS: memory-lean training)
fsb     W = scale * S, S fixed signs drawn from the seed, one uint8 scale a group of inputs
int8    W = latent
frozen  W = S, signs drawn from the seed or taken over from a trained layer, held as bits
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from edgetrain.errors import ModelError
from edgetrain.ops.graph import Graph
from edgetrain.ops.op import LANES, Context, Signal, TensorRule, padded
from edgetrain.ops.products import Products
from edgetrain.ops.weights import LIMIT, WEIGHT_MODES, Training, WeightMode, WeightOp

__all__ = ["GROUPS", "WEIGHT_MODES", "Linear", "Training", "WeightMode"]

GROUPS = (1, 2, 4, 8, 16, 32)
"""Inputs that may share a scale: a group never straddles a word of signs."""
LARGEST_BATCH = 8192
"""Largest micro-batch for which every sum of the weight gradient, of four draws, fits 32 bits."""
GRADIENT_ROWS = 64
"""Rows of the weight gradient that exist at a time."""


@dataclass(frozen=True)
class Linear(WeightOp):
    """A dense layer: features -> outputs.

    training "auto" follows the plan's mode; group is the inputs that share one scale in fsb.
    """

    outputs: int
    training: Training = "auto"
    group: int = 4

    name: ClassVar[str] = "linear"
    opcode: ClassVar[int] = 1
    reference: ClassVar[str] = "edgetrain.reference.linear"

    def __post_init__(self) -> None:
        self.check_outputs()
        if self.group not in GROUPS:
            raise ModelError(
                f"{self.group} inputs cannot share a scale: choose one of "
                f"{', '.join(map(str, GROUPS))}"
            )

    def scales(self, inputs: int) -> int:
        """Return the scales of one output in fsb."""
        return -(-inputs // self.group)

    def state_shape(self, source: Signal, mode: str) -> tuple[int, ...]:
        inputs = source.features
        scaled = self.weight_mode(mode) == "fsb"
        return (self.outputs, self.scales(inputs) if scaled else inputs)

    def rows(self, source: Signal) -> tuple[int, int]:
        return self.outputs, source.features

    def input_bytes(self, source: Signal) -> int:
        return padded(source.features)

    def most_examples(self, source: Signal, draws: int = 1) -> int:
        del source, draws
        return LARGEST_BATCH

    def gradient_terms(self, source: Signal) -> int:
        del source
        return self.outputs

    def flow(self, source: Signal) -> Signal:
        self.require(source, "int8", "bits")
        if not 1 <= source.features <= LIMIT:
            raise ModelError(f"linear has {source.features} inputs: choose 1 to {LIMIT}")
        if source.pixels != 1:
            raise ModelError(
                f"linear cannot read {source.height} x {source.width} pixels: write flatten before"
            )
        return Signal(1, 1, self.outputs, "integers")

    def check_mode(self, source: Signal, mode: str) -> None:
        """Raise ModelError where fsb would train nothing, as batch norm cancels one scale a row."""
        if self.weight_mode(mode) == "fsb" and self.scales(source.features) < 2:
            raise ModelError(
                f"one scale an output trains nothing, because batch norm cancels it: linear has "
                f"{source.features} inputs in groups of {self.group}; choose a smaller group or "
                f"training='int8'"
            )

    def tensors(self, context: Context) -> tuple[TensorRule, ...]:
        inputs, examples, outputs = context.source.features, context.examples, self.outputs
        codes = context.gradient.code_bytes(examples * padded(outputs))
        rules = [
            *self.weight_rules(context),
            TensorRule("forward_tile", context.threads * self._forward_tile(context), "forward"),
        ]
        if context.learns:
            tile = context.threads * self._backward_tile(context)
            rules += [
                TensorRule("codes", codes, context.codes_phase),
                TensorRule("code_rows", examples * padded(outputs), "products"),
                TensorRule("backward_tile", tile, "products"),
            ]
        if context.learns and self.trains(context):
            columns = context.gradient.draws * padded(outputs) * padded(examples, 4)
            rules.append(TensorRule("code_columns", columns, "products"))
        if self._expands(context):
            rules.append(TensorRule("input_bytes", examples * padded(inputs), "forward"))
        return tuple(rules)

    def products(self, context: Context) -> Products:
        return Products(1, 1, context.source.features, self.outputs, 1, *self.precisions(context))

    def record(self, context: Context, offsets: dict[str, int]) -> tuple[int, ...]:
        return (
            context.index,
            *self.weight_record(context, offsets),
            int(context.source.kind == "bits"),
            context.source.features,
            self.outputs,
            self.group,
            offsets["input"],
            offsets.get("input_bytes", -1),
            offsets["input_gradient"],
            offsets.get("codes", -1),
            offsets.get("code_rows", -1),
            offsets.get("code_columns", -1),
            offsets["forward_tile"],
            self._forward_tile(context),
            offsets.get("backward_tile", -1),
            self._backward_tile(context) if context.learns else 0,
            self.gradient_span(context.source, context.mode, context.gradient),
        )

    def to_onnx(self, graph: Graph, value: str, context: Context) -> str:
        shape = (self.outputs, context.source.features)
        return graph.add("MatMul", value, self.onnx_weights(graph, context, shape, (1, 0)))

    def onnx_scale(self, graph: Graph, context: Context) -> str:
        inputs = context.source.features
        scales = self.scales(inputs)
        scale = graph.tensor(f"layer{context.index}.scale", self.outputs, scales, 1)
        shared = graph.add("Tile", graph.floats(scale), graph.whole(1, 1, self.group))
        whole = graph.reshaped(shared, self.outputs, scales * self.group)
        return graph.add("Transpose", graph.head(whole, inputs), perm=(1, 0))

    def _expands(self, context: Context) -> bool:
        """Whether packed signs must become bytes, because the weights are wider than a bit."""
        return context.source.kind == "bits" and not self.has_signs(context.mode)

    def _forward_tile(self, context: Context) -> int:
        inputs = context.source.features
        binary = context.source.kind == "bits" and self.has_signs(context.mode)
        panel = padded(inputs) // 8 * LANES if binary else padded(inputs) * LANES
        sums = 2 * LANES * 4
        return padded(panel, 64) + sums + context.examples * LANES * 4

    def _backward_tile(self, context: Context) -> int:
        """Panel of weights and two rows of sums; to train, a panel of x and a tile of gradient."""
        size = padded(self.outputs) * LANES + 2 * LANES * 4
        if not self.trains(context):
            return size
        return size + padded(padded(context.examples, 4) * LANES, 64) + GRADIENT_ROWS * LANES * 4
