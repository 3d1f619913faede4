"""The one matrix product of the oracle."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Numbers", "matmul"]

Numbers = NDArray[Any]
"""64-bit integers, or floats where a gradient is studied without quantisation."""


def matmul(a: Numbers, b: Numbers) -> Numbers:
    """Return a @ b, (..., m, k) by (k, n).

    Integers go through float64, which has fast products and holds every integer below 2^53: sums
    here stay far below it, so they are exact.
    """
    rows = a.reshape(-1, a.shape[-1]).astype(np.float64)
    result = (rows @ b.astype(np.float64)).reshape(*a.shape[:-1], b.shape[-1])
    exact = np.issubdtype(a.dtype, np.integer) and np.issubdtype(b.dtype, np.integer)
    return result.astype(np.int64) if exact else result
