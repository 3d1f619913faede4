"""Linear: the three products and the update of the weights, as whole matrices."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgetrain.ops.linear import WeightMode
from edgetrain.reference.latents import Held, Tensors, fixed_signs, row_counters
from edgetrain.reference.matmul import Numbers, matmul
from edgetrain.reference.random import Key, Purpose, derive, random_bytes
from edgetrain.step import StepSettings

__all__ = [
    "INITIAL_SCALE",
    "LinearWeights",
    "initial_latents",
    "moved",
]

Integers = NDArray[np.int64]
INITIAL_SCALE = 128


@dataclass
class LinearWeights:
    """The state of a layer: latents (outputs, inputs), scales (outputs, groups), or signs held."""

    mode: WeightMode
    inputs: int
    outputs: int
    group: int
    seed: int
    layer: int
    stored: Integers
    held: Held | None = None

    @classmethod
    def initial(
        cls, mode: WeightMode, inputs: int, outputs: int, *, group: int, seed: int, layer: int
    ) -> LinearWeights:
        """Draw the initial weights: latents uniform over their levels, scales one half."""
        if mode == "fsb":
            stored = np.full((outputs, -(-inputs // group)), INITIAL_SCALE, np.int64)
        else:
            stored = initial_latents(row_counters(outputs, inputs), seed, layer)
        return cls(mode, inputs, outputs, group, seed, layer, stored)

    def tensors(self) -> Tensors:
        """Return the state under the names of the schema."""
        if self.held is not None:
            return self.held.tensors()
        return {"scale" if self.mode == "fsb" else "latent": self.stored}

    def signs(self) -> Integers:
        """Return the fixed signs of fsb, (outputs, inputs), drawn from the seed."""
        return fixed_signs(self.outputs, self.inputs, self.seed, self.layer)

    def weights(self) -> Integers:
        """Return what the layer multiplies by, (outputs, inputs)."""
        if self.held is not None:
            return self.held.signs
        if self.mode == "bnn":
            return np.where(self.stored >= 0, 1, -1)
        if self.mode == "int8":
            return self.stored
        return np.repeat(self.stored, self.group, axis=1)[:, : self.inputs] * self.signs()

    def forward(self, x: Integers) -> Integers:
        """Return y = x W^T, (examples, outputs)."""
        return matmul(x, self.weights().T)

    def input_gradient(self, codes: Numbers) -> Numbers:
        """Return dL/dx = G W, (examples, inputs), in units of a code."""
        return matmul(codes, self.weights())

    def weight_gradient(self, codes: Numbers, x: Integers) -> Numbers:
        """Return dL/dW = G^T x, (outputs, inputs), or that of the scales, (outputs, groups)."""
        gradient = matmul(codes.T, x)
        if self.mode != "fsb":
            return gradient
        edges = np.arange(0, self.inputs, self.group)
        total: Numbers = np.add.reduceat(gradient * self.signs(), edges, axis=1)
        return total

    def update(self, gradient: Numbers, key: Key, settings: StepSettings) -> None:
        """Move the state against the sign of the gradient, rounded at random."""
        if self.held is not None:
            self.held.update(gradient, key, settings)
            return
        step = settings.scale_step if self.mode == "fsb" else settings.latent_step
        draws = random_bytes(key, row_counters(*self.stored.shape))
        self.stored = moved(self.mode, self.stored, gradient, draws, step)


def initial_latents(counters: Integers, seed: int, layer: int) -> Integers:
    """Return latents uniform over their levels, each drawn by its counter."""
    draws = random_bytes(derive(seed, 0, layer, Purpose.INITIAL_WEIGHTS), counters)
    return (draws * 255 >> 8) - 127


def moved(
    mode: WeightMode, stored: Integers, gradient: Numbers, draws: Integers, step: int
) -> Integers:
    """Return the state after a step of step/256 levels, kept within its levels."""
    low, high = (0, 255) if mode == "fsb" else (-127, 127)
    sign = np.sign(gradient).astype(np.int64)
    result: Integers = np.clip(stored - sign * (step + draws >> 8), low, high)
    return result
