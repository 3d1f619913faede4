"""LUQ: unbiased 4-bit codes of a gradient (Chmiel et al. 2023).

Values are 0 and +-2^n alpha, n = 0..6, with alpha = max|x| / 64: 15 codes whichever sign holds the
largest magnitude.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgetrain.ops.op import padded
from edgetrain.reference.random import Key, random_bits

__all__ = ["luq_codes"]

SMALLEST = np.float32(1e-30)
"""Below this the inverse of the largest magnitude would overflow."""


def luq_codes(
    x: NDArray[np.float32], key: Key, halved: NDArray[np.int64] | int = 0
) -> tuple[NDArray[np.int64], np.float32]:
    """Return integers in {0, +-1, +-2, ..., +-64} of x, (examples, channels), and alpha.

    halved is how often each channel's own scale is half of alpha.
    """
    largest = np.abs(x).max()
    if not largest > SMALLEST:
        return np.zeros(x.shape, np.int64), np.float32(0)
    rows, columns = x.shape
    counters = np.arange(rows)[:, None] * padded(columns) + np.arange(columns)
    draws = random_bits(key, counters) >> np.uint32(9)
    doubled = (1 << np.asarray(halved)).astype(np.float32)
    magnitude = np.abs(x) * (np.float32(64) / largest * doubled)
    return np.where(x < 0, -1, 1) * _round_at_random(magnitude, draws), largest / np.float32(64)


def _round_at_random(
    magnitude: NDArray[np.float32], draws: NDArray[np.uint32]
) -> NDArray[np.int64]:
    """Return 2^n below or above each magnitude; 23-bit draws decide, by the fraction between."""
    fraction = np.minimum(magnitude, np.float32(1)) * np.float32(2**23)
    underflow = fraction.astype(np.int64) > draws
    # Random bits added to the mantissa carry into the exponent with the right probability.
    exponent = (magnitude.view(np.uint32) + draws >> np.uint32(23)).astype(np.int64) - 127
    normal = 2 ** np.clip(exponent, 0, 6)
    return np.where(magnitude < 1, underflow.astype(np.int64), normal)
