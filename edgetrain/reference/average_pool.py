"""AvgPool and GlobalAveragePool: sums over windows or whole images, and the way back to each."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgetrain.reference.matmul import Numbers

__all__ = ["spread", "spread_windows", "sum_pixels", "sum_windows"]

Integers = NDArray[np.int64]


def sum_windows(y: Integers, window: tuple[int, int]) -> Integers:
    """Return the sums of y, (examples, height, width, channels), over windows side by side.

    Rows and columns that fill no window are left.
    """
    height, width = window
    rows, columns = y.shape[1] // height, y.shape[2] // width
    whole = y[:, : rows * height, : columns * width]
    sums: Integers = whole.reshape(len(y), rows, height, columns, width, -1).sum((2, 4))
    return sums


def spread_windows(gradient: Numbers, window: tuple[int, int], shape: tuple[int, ...]) -> Numbers:
    """Return the gradient of y: that of its window's sum everywhere, nothing outside of windows."""
    whole = gradient.repeat(window[0], 1).repeat(window[1], 2)
    below = np.zeros((len(gradient), *shape), gradient.dtype)
    below[:, : whole.shape[1], : whole.shape[2]] = whole
    return below


def sum_pixels(x: Integers) -> Integers:
    """Return the sums of images over their pixels, (examples, 1, 1, channels)."""
    sums: Integers = x.sum((1, 2), keepdims=True)
    return sums


def spread(gradient: Numbers, shape: tuple[int, ...]) -> Numbers:
    """Return the gradient of images of a shape: that of the sum at every pixel."""
    return np.broadcast_to(gradient, (len(gradient), *shape)).copy()
