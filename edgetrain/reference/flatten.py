"""Flatten: pixel after pixel, channels within; and its gradient, which goes the way back."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgetrain.reference.matmul import Numbers

__all__ = ["flatten", "unflatten"]

Integers = NDArray[np.int64]


def flatten(x: Integers) -> Integers:
    """Return images, (examples, height, width, channels), as (examples, 1, 1, features)."""
    return x.reshape(len(x), 1, 1, -1)


def unflatten(gradient: Numbers, shape: tuple[int, ...]) -> Numbers:
    """Return a gradient of rows as one of images of a shape."""
    return gradient.reshape(len(gradient), *shape)
