"""Sign: the binary activation as +1 and -1, and the straight-through mask."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgetrain.reference.matmul import Numbers

__all__ = ["activate", "pass_gradient"]


def activate(signs: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Return +1 where the sign is set and -1 elsewhere."""
    return np.where(signs, 1, -1).astype(np.int64)


def pass_gradient(gradient: Numbers, mask: NDArray[np.bool_]) -> Numbers:
    """Return the gradient where |x| <= 1, and 0 elsewhere: the straight-through estimator."""
    return np.where(mask, gradient, 0)
