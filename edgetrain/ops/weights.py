"""What the layers that hold weights have in common: how they are trained, and what they store."""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import Literal, get_args

from edgetrain.errors import ModelError
from edgetrain.ops.op import Op, Signal

__all__ = ["LIMIT", "WEIGHT_MODES", "Training", "WeightMode", "WeightOp"]

Training = Literal["auto", "bnn", "fsb", "int8"]
WeightMode = Literal["bnn", "fsb", "int8"]
WEIGHT_MODES: tuple[WeightMode, ...] = get_args(WeightMode)
LIMIT = 65536
"""Widest layer for which every sum is sure to fit 32 bits."""


class WeightOp(Op):
    """A layer that multiplies by weights and so opens a block.

    training "auto" follows the plan's mode.
    """

    outputs: int
    training: Training

    def weight_mode(self, mode: str) -> WeightMode:
        """Return how the weights are trained under a plan's mode."""
        chosen = mode if self.training == "auto" else self.training
        assert chosen in WEIGHT_MODES
        return chosen

    @abstractmethod
    def check_mode(self, source: Signal, mode: str) -> None:
        """Raise ModelError where the layer cannot be trained under a plan's mode."""

    @abstractmethod
    def state_shape(self, source: Signal, mode: str) -> tuple[int, ...]:
        """Return the shape of what is trained: latents of a byte each, or scales in fsb."""

    @abstractmethod
    def input_bytes(self, source: Signal) -> int:
        """Return the bytes that an example of int8 data takes in the arena."""

    @abstractmethod
    def most_examples(self, source: Signal) -> int:
        """Return the largest micro-batch for which every sum is sure to fit 32 bits."""

    def weight_bytes(self, source: Signal, mode: str) -> int:
        """Return the bytes of trained state: one a latent or a scale."""
        return math.prod(self.state_shape(source, mode))

    def check_outputs(self) -> None:
        """Raise ModelError for a number of outputs or a training that cannot be."""
        if not 1 <= self.outputs <= LIMIT:
            raise ModelError(f"{self.name} has {self.outputs} outputs: choose 1 to {LIMIT}")
        if self.training not in get_args(Training):
            raise ModelError(
                f"{self.name} cannot be trained as {self.training!r}: choose one of "
                f"{', '.join(get_args(Training))}"
            )
