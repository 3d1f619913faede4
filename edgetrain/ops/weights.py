"""What the layers that hold weights have in common: how they are trained, and what they store.

A layer trained as bnn multiplies by the signs of latents, of which a plan chooses the kind:

int8    1 byte, moved by the sign of the gradient, the fraction of a level rounded at random
int4    1/2 byte: the same with seven levels on either side
bop     1/8 + 1 byte: signs alone, which flip where the moving average of the gradient's sign is
        beyond a threshold (Bop, Helwegen et al. 2019)
adam16  6 bytes: a half float with the two moments of Adam; the gradient is its sign over the root
        of the fan-in, and latents stay in [-1, 1] (Wang et al. 2021)

The latents of int8 layers are their weights, and always int8.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import replace
from typing import Literal, get_args

from edgetrain.errors import ModelError
from edgetrain.gradient import LARGEST_CODE, Gradient
from edgetrain.ops.graph import Graph
from edgetrain.ops.op import (
    LANES,
    Arithmetic,
    Context,
    Latent,
    Op,
    Signal,
    TensorRule,
    padded,
)
from edgetrain.ops.products import Products
from edgetrain.tensorfile import DTYPES

__all__ = [
    "LARGEST_SUM",
    "LATENTS",
    "LIMIT",
    "MOST_TERMS",
    "WEIGHT_MODES",
    "Latent",
    "Stored",
    "Training",
    "WeightMode",
    "WeightOp",
    "stored_bytes",
]

Training = Literal["auto", "bnn", "fsb", "int8", "frozen"]
WeightMode = Literal["bnn", "fsb", "int8", "frozen"]
LATENTS: tuple[Latent, ...] = get_args(Latent)
WEIGHT_MODES: tuple[WeightMode, ...] = get_args(WeightMode)
LIMIT = 65536
"""Widest layer for which every sum is sure to fit 32 bits."""
EIGHT_BIT_ONE = 128
"""The level of a weight of 8 bits that counts as one: the scale from which fsb starts."""
LARGEST_SUM = 2**31 - 1
PRECISIONS: dict[WeightMode, int] = {"bnn": 1, "fsb": 9, "int8": 8, "frozen": 1}
"""Bits of a weight as it multiplies: in fsb those of a scale and a sign."""
LARGEST_WEIGHT: dict[WeightMode, int] = {"bnn": 1, "fsb": 255, "int8": 128, "frozen": 1}
MOST_TERMS = 2 * LIMIT
"""Products in a sum of a convolution, for which every sum is sure to fit 32 bits."""
LARGEST_GRADIENT = LARGEST_CODE * 255 * MOST_TERMS
"""The largest sum of the gradient of an input: it leaves room for what shortcuts add."""

Stored = dict[str, tuple[str, tuple[int, ...]]]
"""Name of a tensor within its layer -> (dtype, shape)."""

HOLDINGS = ("int8", "signs", "int4", "bop", "adam16")
"""How a layer whose weights are signs holds them, by the number that the native engine reads."""


def stored_bytes(stored: Stored) -> int:
    """Return the bytes of all the tensors."""
    return sum(DTYPES[dtype][0] * math.prod(shape) for dtype, shape in stored.values())


class WeightOp(Op):
    """A layer that multiplies by weights and so opens a block.

    training "auto" follows the plan's mode; a "frozen" layer keeps signs and is never updated.
    """

    outputs: int
    training: Training

    def weight_mode(self, mode: str) -> WeightMode:
        """Return how the weights are trained under a plan's mode."""
        chosen = mode if self.training == "auto" else self.training
        assert chosen in WEIGHT_MODES
        return chosen

    @property
    def frozen(self) -> bool:
        """Whether the weights are never updated."""
        return self.training == "frozen"

    def trains(self, context: Context) -> bool:
        """Return whether a step updates the weights: not where they are held as signs alone."""
        return self.held(context.mode, context.latent) != "signs"

    def has_signs(self, mode: str) -> bool:
        """Return whether the layer multiplies by signs under a plan's mode."""
        return self.weight_mode(mode) in ("bnn", "frozen")

    @abstractmethod
    def check_mode(self, source: Signal, mode: str) -> None:
        """Raise ModelError where the layer cannot be trained under a plan's mode."""

    @abstractmethod
    def state_shape(self, source: Signal, mode: str) -> tuple[int, ...]:
        """Return the shape of the weights, or of the scales in fsb."""

    @abstractmethod
    def rows(self, source: Signal) -> tuple[int, int]:
        """Return the weights as the kernels see them: rows, and the columns of each."""

    @abstractmethod
    def input_bytes(self, source: Signal) -> int:
        """Return the bytes that an example of int8 data takes in the arena."""

    @abstractmethod
    def most_examples(self, source: Signal, draws: int = 1) -> int:
        """Return the largest micro-batch for which every sum is sure to fit 32 bits.

        draws is how many draws of codes the gradient of the weights sums.
        """

    @abstractmethod
    def gradient_terms(self, source: Signal) -> int:
        """Return the products in a sum of the gradient of the input."""

    def gradient_span(self, source: Signal, mode: str, gradient: Gradient) -> int:
        """Return by how many powers of two a channel's scale may lie below its tensor's.

        The gradient of the input takes them into its weights, and its sums must fit 32 bits.
        """
        largest = LARGEST_CODE * LARGEST_WEIGHT[self.weight_mode(mode)]
        room = LARGEST_GRADIENT // (largest * self.gradient_terms(source))
        return min(gradient.format.span, room.bit_length() - 1)

    @abstractmethod
    def onnx_scale(self, graph: Graph, context: Context) -> str:
        """Return the scales of fsb as floats, for weights as `onnx_weights` lays them."""

    def onnx_weights(
        self, graph: Graph, context: Context, shape: tuple[int, ...], order: tuple[int, ...]
    ) -> str:
        """Return the weights as floats: stored in a shape, their axes put in an order."""
        layer, mode = f"layer{context.index}", self.weight_mode(context.mode)
        # They are laid out while they are bytes: floats are four times as large.
        if mode == "int8":
            stored = graph.reshaped(graph.tensor(f"{layer}.latent"), *shape)
            return graph.floats(graph.add("Transpose", stored, perm=order))
        bits = graph.bits(f"{layer}.signs", self.rows(context.source)[1])
        laid = graph.add("Transpose", graph.reshaped(bits, *shape), perm=order)
        return graph.signed(laid, self.onnx_scale(graph, context) if mode == "fsb" else "")

    def planes(self, context: Context) -> int:
        """Return the int8 planes of a weight: a scale of 8 bits and its sign need two."""
        return 2 if self.weight_mode(context.mode) == "fsb" else 1

    def gradient_planes(self, context: Context) -> int:
        """Return the int8 planes of a weight in the gradient of the input, 0 where there is none.

        A channel's power of two needs six bits: a sign has room for them, 8 bits need a plane.
        """
        if context.first:
            return 0
        shifted = self.gradient_span(context.source, context.mode, context.gradient) > 0
        return 2 if shifted and not self.has_signs(context.mode) else self.planes(context)

    def product_unit(self, mode: str) -> int:
        """Return what a product of +1 and -1 counts in the layer's sums."""
        return EIGHT_BIT_ONE if self.weight_mode(mode) in ("fsb", "int8") else 1

    def held(self, mode: str, latent: str) -> str:
        """Return how the weights are held: a latent's kind, or "signs" where they are frozen."""
        weight_mode = self.weight_mode(mode)
        return {"frozen": "signs", "bnn": latent}.get(weight_mode, "int8")

    def state(self, source: Signal, mode: str, latent: str = "int8") -> Stored:
        """Return the tensors that a layer multiplies by, and that another trainer takes over.

        int8, bnn    latent    I8  the shape of the weights
        int4         latent4   U8  (rows, half the columns), the even column in the low four bits
        adam16       latent16  F16 (rows, columns)
        fsb          scale     U8  the shape of the scales
        bop, frozen  signs     U32 (rows, words of 32 columns), bit i set where weight i is +1
        """
        rows, columns = self.rows(source)
        held = self.held(mode, latent)
        if held == "int8":
            shape = self.state_shape(source, mode)
            scaled = self.weight_mode(mode) == "fsb"
            return {"scale": ("U8", shape)} if scaled else {"latent": ("I8", shape)}
        if held == "int4":
            return {"latent4": ("U8", (rows, -(-columns // 2)))}
        if held == "adam16":
            return {"latent16": ("F16", (rows, columns))}
        return {"signs": ("U32", (rows, padded(columns) // LANES))}

    def moments(self, source: Signal, mode: str, latent: str = "int8") -> Stored:
        """Return what an optimiser keeps beside the state, two tensors at most."""
        shape, held = self.rows(source), self.held(mode, latent)
        if held == "adam16":
            return {"average": ("F16", shape), "square": ("F16", shape)}
        return {"average": ("I8", shape)} if held == "bop" else {}

    def weight_bytes(self, context: Context) -> int:
        """Return the bytes of the state and of what the optimiser keeps."""
        return stored_bytes(self._stored(context))

    def weight_rules(self, context: Context) -> list[TensorRule]:
        """Return the tensors that hold both."""
        return [
            TensorRule(name, stored_bytes({name: entry}), "persistent")
            for name, entry in self._stored(context).items()
        ]

    def weight_record(self, context: Context, offsets: dict[str, int]) -> tuple[int, ...]:
        """Return the native mode, how weights are held, and where state and moments lie."""
        mode = self.weight_mode(context.mode)
        native = "bnn" if mode == "frozen" else mode
        held = HOLDINGS.index(self.held(context.mode, context.latent))
        places = [offsets[name] for name in self._stored(context)]
        return WEIGHT_MODES.index(native), held, *places, *[-1] * (3 - len(places))

    def _stored(self, context: Context) -> Stored:
        chosen = (context.source, context.mode, context.latent)
        return self.state(*chosen) | self.moments(*chosen)

    def precisions(self, context: Context) -> tuple[int, int]:
        """Return the bits of a weight and of what it multiplies."""
        return PRECISIONS[self.weight_mode(context.mode)], context.source.precision

    @abstractmethod
    def products(self, context: Context) -> Products:
        """Return the products of the forward pass for one example."""

    def times_made(self, context: Context) -> int:
        """Return how often the backward pass makes the gradient of the input."""
        if context.first:
            return 0
        return 2 if context.twice else 1

    def draws_summed(self, context: Context) -> int:
        """Return of how many draws the gradient of the weights is the sum."""
        return context.gradient.draws if context.learns and self.trains(context) else 0

    def input_gradient_products(self, context: Context) -> int:
        """Return the products of the gradient of the input, of the whole micro-batch."""
        products = context.examples * self.products(context).count
        return products * self.times_made(context) * self.gradient_planes(context)

    def arithmetic(self, context: Context) -> Arithmetic:
        products = context.examples * self.products(context).count
        return Arithmetic(
            forward=products * self.planes(context) * context.sums_made,
            backward=products * self.draws_summed(context) + self.input_gradient_products(context),
            forward_bytes=self._forward_bytes(context),
            backward_bytes=self._backward_bytes(context),
        )

    def _forward_bytes(self, context: Context) -> int:
        """Return the bytes of the input, the weights and the sums; of the data as it is loaded."""
        sums = context.examples * self.flow(context.source).bytes
        loaded = 0
        if context.index == 0:
            loaded = context.elements + self._read_bytes(context)
        made = self._read_bytes(context) + self._state_bytes(context) + sums
        return loaded + context.sums_made * made

    def _backward_bytes(self, context: Context) -> int:
        """Return what either gradient reads and writes."""
        width = padded(self.outputs)
        codes = context.gradient.code_bytes(context.examples * context.block_pixels * width)
        below = context.examples * replace(context.source, kind="integers").bytes
        made = codes // context.gradient.draws + self._state_bytes(context) + below
        trained = codes + self._read_bytes(context) + 2 * self.weight_bytes(context)
        trains = self.draws_summed(context) > 0
        return self.times_made(context) * made + (trained if trains else 0)

    def _read_bytes(self, context: Context) -> int:
        """Return the bytes of the input as the kernels read it: of data in bytes, or of bits."""
        if context.source.kind == "bits":
            return context.source_bytes
        return context.examples * self.input_bytes(context.source)

    def _state_bytes(self, context: Context) -> int:
        """Return the bytes of what the layer multiplies by."""
        return stored_bytes(self.state(context.source, context.mode, context.latent))

    def check_outputs(self) -> None:
        """Raise ModelError for a number of outputs or a training that cannot be."""
        if not 1 <= self.outputs <= LIMIT:
            raise ModelError(f"{self.name} has {self.outputs} outputs: choose 1 to {LIMIT}")
        if self.training not in get_args(Training):
            raise ModelError(
                f"{self.name} cannot be trained as {self.training!r}: choose one of "
                f"{', '.join(get_args(Training))}"
            )
