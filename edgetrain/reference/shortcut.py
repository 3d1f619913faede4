"""Shortcuts: what Add, Xnor and Or make of an earlier block's bits, and the gradient's way back."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgetrain.reference.matmul import Numbers

__all__ = ["LARGEST_ENTRY", "Sent", "join", "receive", "repeat", "split"]

Integers = NDArray[np.int64]
LARGEST_ENTRY = 1 << 20
"""What one code may add to a gradient, so that every sum fits 32 bits."""


@dataclass(frozen=True)
class Sent:
    """The gradient of what a shortcut made of its branch's bits: codes and the value of their unit.

    The codes are images, of the shape of the branch or of one that `repeat` makes of it.
    """

    codes: Numbers
    unit: np.float32


def repeat(bits: Integers, shape: tuple[int, ...]) -> Integers:
    """Return bits, (examples, height, width, channels), in the shape of the sums they add to.

    Where that has half the height and width, every other pixel is taken; channels are repeated.
    """
    height, width, channels = shape
    stride = stride_of(bits.shape[1:], shape)
    taken = bits[:, ::stride, ::stride][:, :height, :width]
    return np.tile(taken, channels // bits.shape[3])


def stride_of(branch: tuple[int, ...], target: tuple[int, ...]) -> int:
    """Return the step between the pixels that a shortcut reads."""
    return 1 if branch[:2] == target[:2] else 2


def join(name: str, a: Integers, b: Integers) -> Integers:
    """Return what leaves a block whose signs are a and whose branch is b, all +1 and -1."""
    return a * b if name == "xnor" else np.maximum(a, b)


def split(name: str, gradient: Numbers, a: Integers, b: Integers) -> tuple[Numbers, Numbers]:
    """Return the gradients of a and of b: of the product, or of (a + b - a b + 1) / 2."""
    if name == "xnor":
        return gradient * b, gradient * a
    return np.where(b < 0, gradient, 0), np.where(a < 0, gradient, 0)


def receive(gradient: Numbers, scale: np.float32, sent: Sent) -> tuple[Numbers, np.float32]:
    """Return a gradient in units of scale with what a shortcut sent added, and its scale.

    Every code becomes an integer in units of scale, rounded to the nearest, ties to even; floats
    are added as they are. Where scale is 0 nothing else has come, and the sum takes the unit of
    what was sent.
    """
    if scale == 0:
        scale = sent.unit
    if scale == 0:
        return gradient, scale
    added = sent.codes * (np.float64(sent.unit) / np.float64(scale))
    if np.issubdtype(sent.codes.dtype, np.integer):
        added = np.rint(np.clip(added, -LARGEST_ENTRY, LARGEST_ENTRY)).astype(np.int64)
    examples, height, width, _ = added.shape
    stride = stride_of(gradient.shape[1:], added.shape[1:])
    total = gradient.astype(np.result_type(gradient, added))
    reached = total[:, ::stride, ::stride][:, :height, :width]
    reached += added.reshape(examples, height, width, -1, total.shape[3]).sum(3)
    return total, scale
