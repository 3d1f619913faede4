"""Softmax cross-entropy with the engine's own exponential, in float32."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["GRADIENT_UNITS", "exponential", "softmax_cross_entropy"]

GRADIENT_UNITS = 1 << 20
LOG2_E = np.float32(1.44269504)
LN2_HIGH = np.float32(0.693359375)
LN2_LOW = np.float32(-2.12194440e-4)
COEFFICIENTS = (
    1.9875691500e-4,
    1.3981999507e-3,
    8.3334519073e-3,
    4.1665795894e-2,
    1.6666665459e-1,
    5.0000001201e-1,
)


def exponential(x: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return exp(x) for x <= 0: x = n ln 2 + r, a polynomial in r (Cephes)."""
    x = np.maximum(x, np.float32(-87))
    n = np.rint(x * LOG2_E)
    r = x - n * LN2_HIGH
    r = r - n * LN2_LOW
    p = np.full_like(r, COEFFICIENTS[0])
    for coefficient in COEFFICIENTS[1:]:
        p = p * r + np.float32(coefficient)
    p = p * (r * r) + r
    p = p + np.float32(1)
    result: NDArray[np.float32] = p * np.ldexp(np.float32(1), n.astype(np.int32))
    return result


def softmax_cross_entropy(
    logits: NDArray[np.float32], labels: NDArray[np.integer]
) -> tuple[float, NDArray[np.int64]]:
    """Return the summed loss and its gradient in units of 1 / (2^20 examples)."""
    rows = np.arange(len(labels))
    shifted = logits - logits.max(1, keepdims=True)
    powers = exponential(shifted)
    total = np.zeros(len(labels), np.float32)
    for column in powers.T:
        total = total + column
    error = powers / total[:, None]
    error[rows, labels] -= np.float32(1)
    gradient = np.rint(error * np.float32(GRADIENT_UNITS)).astype(np.int64)
    loss = np.log(total.astype(np.float64)) - shifted[rows, labels].astype(np.float64)
    return float(loss.sum()), gradient
