"""Xnor and Or: what they make of two bits, and how a gradient finds its way back to both."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["LARGEST_ENTRY", "Sent", "join", "receive", "split"]

Integers = NDArray[np.int64]
LARGEST_ENTRY = 1 << 20
"""What one code may add to a gradient, so that every sum fits 32 bits."""


@dataclass(frozen=True)
class Sent:
    """The gradient of a branch's bits: codes, of the shape of those bits, and their unit."""

    codes: Integers
    unit: np.float32


def join(name: str, a: Integers, b: Integers) -> Integers:
    """Return what leaves a block whose signs are a and whose branch is b, all +1 and -1."""
    return a * b if name == "xnor" else np.maximum(a, b)


def split(name: str, gradient: Integers, a: Integers, b: Integers) -> tuple[Integers, Integers]:
    """Return the gradients of a and of b: of the product, or of (a + b - a b + 1) / 2."""
    if name == "xnor":
        return gradient * b, gradient * a
    return np.where(b < 0, gradient, 0), np.where(a < 0, gradient, 0)


def receive(gradient: Integers, scale: np.float32, sent: Sent) -> tuple[Integers, np.float32]:
    """Return a gradient in units of scale with what a shortcut sent added, and its scale.

    Every code becomes an integer in units of scale, rounded to the nearest, ties to even. Where
    scale is 0 nothing else has come, and the sum takes the unit of what was sent.
    """
    if scale == 0:
        scale = sent.unit
    if scale == 0:
        return gradient, scale
    ratio = np.float64(sent.unit) / np.float64(scale)
    added = np.rint(np.clip(sent.codes * ratio, -LARGEST_ENTRY, LARGEST_ENTRY))
    return gradient + added.astype(np.int64), scale
