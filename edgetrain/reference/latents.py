"""How a layer whose weights are signs holds and trains them, other than in int8 latents.

All are matrices, (rows, columns), as the kernels see the weights: a row an output, or an output and
a tap of a convolution over signs.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgetrain.ops.op import LANES, padded
from edgetrain.reference.random import Key, Purpose, derive, random_bits, random_bytes
from edgetrain.step import StepSettings

__all__ = ["Held", "Tensors", "fixed_signs", "held", "packed", "row_counters"]

Integers = NDArray[np.int64]
Tensors = dict[str, NDArray[Any]]
DECAY1, SHARE1, DECAY2, SHARE2 = (np.float32(value) for value in (0.9, 0.1, 0.999, 0.001))
ROOT_FLOOR = np.float32(1e-4)
"""Large enough to bound a step where the square of a small gradient is nothing to a half float."""


def row_counters(rows: int, columns: int) -> Integers:
    """Return the counter of each element: rows are as long as the kernels' tiles make them."""
    return np.arange(rows)[:, None] * padded(columns) + np.arange(columns)


def fixed_signs(rows: int, columns: int, seed: int, layer: int) -> Integers:
    """Return the signs that fsb never trains, (rows, columns), a word of 32 at a time."""
    words = padded(columns) // LANES
    key = derive(seed, 0, layer, Purpose.FIXED_SIGNS)
    drawn = random_bits(key, np.arange(rows * words)).reshape(rows, words)
    bits = drawn[:, :, None] >> np.arange(LANES, dtype=np.uint32) & np.uint32(1)
    return bits.reshape(rows, -1)[:, :columns].astype(np.int64) * 2 - 1


def packed(signs: Integers) -> NDArray[np.uint32]:
    """Return signs as words of 32, (rows, words): a bit is set where a weight is +1."""
    rows, columns = signs.shape
    bits = np.zeros((rows, padded(columns)), np.uint8)
    bits[:, :columns] = signs > 0
    return np.packbits(bits, axis=1, bitorder="little").view("<u4")


class Held(ABC):
    """Weights that are signs, (rows, columns), and what stands behind them."""

    @property
    @abstractmethod
    def signs(self) -> Integers:
        """What the layer multiplies by, +1 and -1."""

    @abstractmethod
    def tensors(self) -> Tensors:
        """Return state and moments under the names of the schema."""

    @abstractmethod
    def update(self, gradient: Integers, key: Key, settings: StepSettings) -> None:
        """Take one step against a gradient, of which the sign alone counts."""


class FrozenSigns(Held):
    """Signs that nothing updates."""

    def __init__(self, rows: int, columns: int, seed: int, layer: int) -> None:
        self._signs = fixed_signs(rows, columns, seed, layer)

    @property
    def signs(self) -> Integers:
        return self._signs

    def tensors(self) -> Tensors:
        return {"signs": packed(self._signs)}

    def update(self, gradient: Integers, key: Key, settings: StepSettings) -> None:
        pass


class Int4(Held):
    """Latents from -7 to 7, moved like those of 8 bits."""

    def __init__(self, rows: int, columns: int, seed: int, layer: int) -> None:
        key = derive(seed, 0, layer, Purpose.INITIAL_WEIGHTS)
        self.levels = (random_bytes(key, row_counters(rows, columns)) * 15 >> 8) - 7

    @property
    def signs(self) -> Integers:
        return np.where(self.levels >= 0, 1, -1)

    def tensors(self) -> Tensors:
        rows, columns = self.levels.shape
        nibbles = np.zeros((rows, padded(columns, 2)), np.uint8)
        nibbles[:, :columns] = self.levels & 15
        return {"latent4": nibbles[:, ::2] | nibbles[:, 1::2] << 4}

    def update(self, gradient: Integers, key: Key, settings: StepSettings) -> None:
        size = settings.held_step + random_bytes(key, row_counters(*gradient.shape)) >> 8
        self.levels = np.clip(self.levels - np.sign(gradient) * size, -7, 7)


class Bop(Held):
    """Signs that flip where they agree with a moving average beyond a threshold.

    average <- average + rate (sign(gradient) - average), in levels from -127 to 127, rounded at
    random (Helwegen et al. 2019, whose gradient is not reduced to its sign).
    """

    def __init__(self, rows: int, columns: int, seed: int, layer: int) -> None:
        self._signs = fixed_signs(rows, columns, seed, layer)
        self.average = np.zeros((rows, columns), np.int64)

    @property
    def signs(self) -> Integers:
        return self._signs

    def tensors(self) -> Tensors:
        return {"signs": packed(self._signs), "average": self.average}

    def update(self, gradient: Integers, key: Key, settings: StepSettings) -> None:
        draws = random_bits(key, row_counters(*gradient.shape)).astype(np.int64) >> 16
        way = 127 * np.sign(gradient) - self.average
        self.average += settings.held_step * way + draws >> 16
        flips = self._signs * self.average > settings.threshold
        self._signs = np.where(flips, -self._signs, self._signs)


class Adam16(Held):
    """Half floats trained by Adam; the gradient is its sign over the root of the fan-in.

    Every written operation is of float32; what is kept is rounded to a half float (Wang et al.
    2021).
    """

    def __init__(self, rows: int, columns: int, seed: int, layer: int, fan_in: int) -> None:
        key = derive(seed, 0, layer, Purpose.INITIAL_WEIGHTS)
        levels = (random_bytes(key, row_counters(rows, columns)) * 255 >> 8) - 127
        # Of as many inputs a variance of one in all.
        spread = np.minimum(np.float32(1), np.sqrt(np.float32(3) / np.float32(fan_in)))
        self.latent = (levels.astype(np.float32) / np.float32(127) * spread).astype(np.float16)
        self.average = np.zeros((rows, columns), np.float16)
        self.square = np.zeros((rows, columns), np.float16)
        self.size = np.float32(1) / np.sqrt(np.float32(fan_in))

    @property
    def signs(self) -> Integers:
        return np.where(np.signbit(self.latent), -1, 1)

    def tensors(self) -> Tensors:
        return {"latent16": self.latent, "average": self.average, "square": self.square}

    def update(self, gradient: Integers, key: Key, settings: StepSettings) -> None:
        del key
        slope = np.sign(gradient).astype(np.float32) * self.size
        average = DECAY1 * self.average.astype(np.float32) + SHARE1 * slope
        square = DECAY2 * self.square.astype(np.float32) + SHARE2 * (slope * slope)
        self.average, self.square = average.astype(np.float16), square.astype(np.float16)
        direction = self.average.astype(np.float32) / np.float32(settings.correction1)
        root = np.sqrt(self.square.astype(np.float32) / np.float32(settings.correction2))
        step = np.float32(settings.shift_learning_rate) * direction / (root + ROOT_FLOOR)
        moved = self.latent.astype(np.float32) - step
        self.latent = np.clip(moved, np.float32(-1), np.float32(1)).astype(np.float16)


def held(kind: str, rows: int, columns: int, *, fan_in: int, seed: int, layer: int) -> Held | None:
    """Return freshly drawn weights, or None where latents of 8 bits or scales are trained."""
    if kind == "adam16":
        return Adam16(rows, columns, seed, layer, fan_in)
    ways: dict[str, type[FrozenSigns | Int4 | Bop]] = {
        "signs": FrozenSigns,
        "int4": Int4,
        "bop": Bop,
    }
    return ways[kind](rows, columns, seed, layer) if kind in ways else None
