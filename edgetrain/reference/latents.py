"""How a layer whose weights are signs holds them, other than in int8 latents.

All are matrices, (rows, columns), as the kernels see the weights: a row an output, or an output and
a tap of a convolution over signs.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgetrain.ops.op import LANES, padded
from edgetrain.reference.random import Key, Purpose, derive, random_bits

__all__ = ["FrozenSigns", "Tensors", "fixed_signs", "packed"]

Integers = NDArray[np.int64]
Tensors = dict[str, NDArray[np.generic]]


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


@dataclass
class FrozenSigns:
    """Signs that nothing updates."""

    signs: Integers

    @classmethod
    def initial(cls, rows: int, columns: int, *, seed: int, layer: int) -> FrozenSigns:
        """Draw the signs."""
        return cls(fixed_signs(rows, columns, seed, layer))

    def tensors(self) -> Tensors:
        """Return the state under the names of the schema."""
        return {"signs": packed(self.signs)}

    def update(self, gradient: Integers, key: Key, step: int) -> None:
        """Move nothing."""
