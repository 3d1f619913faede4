"""Radix-4 codes with two-phase rounding (Sun et al. 2020): for study, not in the native engine.

A code is 0 or +-4^n with seven exponents, rounded to the nearest: deterministic, and biased
towards zero. The two products of a gradient take two phases of it, whose grids lie a factor of two
apart, so that their errors partly cancel. Which product takes which phase, and how the scale
follows the tensor, no source at hand says: here the gradient of the input takes the even phase,
that of the weights the odd one, and the largest magnitude is the even phase's largest code.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgetrain.reference.luq import SMALLEST

__all__ = ["radix4_codes"]

Integers = NDArray[np.int64]
ODD = 4 ** np.arange(7)
EVEN = 2 * ODD
"""The grids' magnitudes in units of the smallest odd code: every one of both is an integer."""


def radix4_codes(x: NDArray[np.float32]) -> tuple[Integers, Integers, np.float32]:
    """Return the even and the odd codes of x, (rows, channels), and the value of their unit."""
    unit = np.abs(x).max() / np.float32(EVEN[-1])
    if not unit > SMALLEST:
        nothing = np.zeros(x.shape, np.int64)
        return nothing, nothing, np.float32(0)
    return _nearest(x / unit, EVEN), _nearest(x / unit, ODD), unit


def _nearest(x: NDArray[np.float32], grid: Integers) -> Integers:
    """Return the nearest of 0 and the grid's magnitudes, with the sign of x."""
    levels = np.concatenate([[0], grid])
    codes = levels[np.searchsorted((levels[1:] + levels[:-1]) / 2, np.abs(x))]
    return np.where(x < 0, -codes, codes)
