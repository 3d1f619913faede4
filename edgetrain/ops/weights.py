"""What the layers that hold weights have in common: how they are trained, and what they store."""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import Literal, get_args

from edgetrain.errors import ModelError
from edgetrain.ops.op import LANES, Context, Op, Signal, TensorRule, padded
from edgetrain.tensorfile import DTYPES

__all__ = ["LIMIT", "WEIGHT_MODES", "Stored", "Training", "WeightMode", "WeightOp", "stored_bytes"]

Training = Literal["auto", "bnn", "fsb", "int8", "frozen"]
WeightMode = Literal["bnn", "fsb", "int8", "frozen"]
WEIGHT_MODES: tuple[WeightMode, ...] = get_args(WeightMode)
LIMIT = 65536
"""Widest layer for which every sum is sure to fit 32 bits."""
EIGHT_BIT_ONE = 128
"""The level of a weight of 8 bits that counts as one: the scale from which fsb starts."""

Stored = dict[str, tuple[str, tuple[int, ...]]]
"""Name of a tensor within its layer -> (dtype, shape)."""

HOLDINGS = ("int8", "signs")
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
    def most_examples(self, source: Signal) -> int:
        """Return the largest micro-batch for which every sum is sure to fit 32 bits."""

    def product_unit(self, mode: str) -> int:
        """Return what a product of +1 and -1 counts in the layer's sums."""
        return EIGHT_BIT_ONE if self.weight_mode(mode) in ("fsb", "int8") else 1

    def state(self, source: Signal, mode: str) -> Stored:
        """Return the tensors that a layer multiplies by, and that another trainer takes over.

        bnn, int8  latent  I8  the shape of the weights
        fsb        scale   U8  the shape of the scales
        frozen     signs   U32 (rows, words of 32 columns), bit i of a word set where weight i is +1
        """
        weight_mode = self.weight_mode(mode)
        if weight_mode == "frozen":
            rows, columns = self.rows(source)
            return {"signs": ("U32", (rows, padded(columns) // LANES))}
        shape = self.state_shape(source, mode)
        return {"scale": ("U8", shape)} if weight_mode == "fsb" else {"latent": ("I8", shape)}

    def weight_bytes(self, source: Signal, mode: str) -> int:
        """Return the bytes of the state."""
        return stored_bytes(self.state(source, mode))

    def weight_rules(self, context: Context) -> list[TensorRule]:
        """Return the tensors that hold the state."""
        state = self.state(context.source, context.mode)
        return [
            TensorRule(name, stored_bytes({name: entry}), "persistent")
            for name, entry in state.items()
        ]

    def weight_record(self, context: Context, offsets: dict[str, int]) -> tuple[int, int, int]:
        """Return the native mode, how signs are held, and where the state lies."""
        mode = self.weight_mode(context.mode)
        (name,) = self.state(context.source, context.mode)
        held = "signs" if mode == "frozen" else "int8"
        native = "bnn" if mode == "frozen" else mode
        return WEIGHT_MODES.index(native), HOLDINGS.index(held), offsets[name]

    def backward_products(self, context: Context, planes: int) -> int:
        """Return how often the backward pass goes over the products of the forward pass."""
        if not context.learns:
            return 0
        return (0 if self.frozen else 1) + (0 if context.first else planes)

    def check_outputs(self) -> None:
        """Raise ModelError for a number of outputs or a training that cannot be."""
        if not 1 <= self.outputs <= LIMIT:
            raise ModelError(f"{self.name} has {self.outputs} outputs: choose 1 to {LIMIT}")
        if self.training not in get_args(Training):
            raise ModelError(
                f"{self.name} cannot be trained as {self.training!r}: choose one of "
                f"{', '.join(get_args(Training))}"
            )
