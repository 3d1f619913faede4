"""What stands for the gradient of the sums in its two products, in every format."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgetrain.gradient import GradientFormat
from edgetrain.reference.luq import luq_codes
from edgetrain.reference.matmul import Numbers
from edgetrain.reference.radix4 import radix4_codes
from edgetrain.reference.random import Key

__all__ = ["Quantised", "halvings", "quantise"]

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Quantised:
    """Stand-ins for dL/dy, (rows, channels).

    below enters the gradient of the input, in units of `unit`; moves that of the weights, where
    every channel may have a unit of its own, since the sign of a sum is all that is used. codes
    holds, (draws, rows, channels), the codes as they were drawn.
    """

    below: Numbers
    moves: Numbers
    unit: np.float32
    codes: Numbers


def quantise(x: Floats, form: GradientFormat, span: int, keys: Sequence[Key]) -> Quantised:
    """Return what stands for x, (rows, channels), with a draw for every key.

    The input takes the first draw, the weights the sum of them all (SMP: Chmiel et al. 2023). span
    is the most powers of two by which a channel's scale may lie below the tensor's.
    """
    if form.name == "f32":
        return Quantised(x, x, np.float32(1), x[None])
    if form.name == "radix4_tpr":
        even, odd, unit = radix4_codes(x)
        return Quantised(even, odd, unit, np.stack([even, odd]))
    halved = halvings(x, span)
    drawn = [luq_codes(x, key, halved) for key in keys]
    codes = np.stack([code for code, _ in drawn])
    alpha = drawn[0][1]
    return Quantised(
        codes[0] << (span - halved), codes.sum(0), alpha / np.float32(1 << span), codes
    )


def halvings(x: Floats, span: int) -> NDArray[np.int64]:
    """Return how often each channel's scale is halved: while it still spans the channel."""
    largest = np.abs(x).max(0)
    doubled = largest * np.float32(2) ** np.arange(1, span + 1, dtype=np.float32)[:, None]
    fits: NDArray[np.int64] = (doubled <= largest.max()).sum(0)
    return fits
