"""MaxPool: the largest of each window, and the way back to the first place that held it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgetrain.reference.matmul import Numbers

__all__ = ["max_pool", "unpool"]

Integers = NDArray[np.int64]


def max_pool(y: Integers, window: tuple[int, int]) -> tuple[Integers, Integers]:
    """Return the maxima of y, (examples, height, width, channels), and their places.

    A place counts through its window row by row; rows and columns that fill no window are left.
    """
    height, width = window
    rows, columns = y.shape[1] // height, y.shape[2] // width
    places = np.stack(
        [
            y[:, row : rows * height : height, column : columns * width : width]
            for row in range(height)
            for column in range(width)
        ]
    )
    # numpy's argmax is the first maximum, as the engine's.
    return places.max(0), places.argmax(0)


def unpool(
    gradient: Numbers, places: Integers, window: tuple[int, int], shape: tuple[int, ...]
) -> Numbers:
    """Return the gradient of y: all of it where the maximum was, nothing elsewhere."""
    height, width = window
    rows, columns = gradient.shape[1:3]
    below = np.zeros((len(gradient), *shape), gradient.dtype)
    for row in range(height):
        for column in range(width):
            chosen = np.where(places == row * width + column, gradient, 0)
            below[:, row : rows * height : height, column : columns * width : width] = chosen
    return below
