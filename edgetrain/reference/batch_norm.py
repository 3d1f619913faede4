"""BatchNorm: statistics, thresholds and the lean backward rule (Wang et al. 2021)."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from edgetrain.reference.matmul import Numbers

__all__ = ["ChannelState", "Statistics", "sums_gradient"]

Integers = NDArray[np.int64]
Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]
DECAY1, DECAY2, ROOT_FLOOR = 0.9, 0.999, 1e-8


@dataclass(frozen=True)
class Statistics:
    """Mean and mean absolute deviation of the sums of each channel."""

    mean: Doubles
    deviation: Doubles

    @classmethod
    def of(cls, y: Integers) -> Statistics:
        """Return the statistics of y, (examples, channels): N |y - mean| = |N y - sum y|."""
        count = len(y)
        total = y.sum(0)
        excess = np.abs(count * y - total).sum(0)
        return cls(total / np.float64(count), excess / np.float64(count * count))

    def inverse(self) -> Floats:
        """Return 1 / deviation, and 0 for a channel that does not vary."""
        varies = self.deviation > 0
        return np.where(varies, 1 / np.where(varies, self.deviation, 1), 0).astype(np.float32)

    def signs(self, y: Integers, shift: Floats) -> NDArray[np.bool_]:
        """Return whether (y - mean) / deviation + shift >= 0."""
        return y >= np.ceil(self.mean - shift.astype(np.float64) * self.deviation)

    def mask(self, y: Integers, shift: Floats) -> NDArray[np.bool_]:
        """Return whether |(y - mean) / deviation + shift| <= 1."""
        offset = shift.astype(np.float64)
        low = np.ceil(self.mean - (1 + offset) * self.deviation)
        high = np.floor(self.mean + (1 - offset) * self.deviation)
        return (y >= low) & (y <= high)

    def normalise(self, y: Integers, shift: Floats) -> Floats:
        """Return (y - mean) / deviation + shift in float32."""
        slope = self.inverse()
        offset = shift.astype(np.float64) - self.mean * slope.astype(np.float64)
        return slope * y.astype(np.int32).astype(np.float32) + offset.astype(np.float32)


@dataclass
class ChannelState:
    """What a normalisation has learnt, float32 a channel."""

    channels: int
    shift: Floats = field(init=False)
    moment1: Floats = field(init=False)
    moment2: Floats = field(init=False)
    mean: Floats = field(init=False)
    deviation: Floats = field(init=False)

    def __post_init__(self) -> None:
        zeros = np.zeros(self.channels, np.float32)
        self.shift, self.moment1, self.moment2, self.mean = (zeros.copy() for _ in range(4))
        self.deviation = np.ones(self.channels, np.float32)

    def running(self) -> Statistics:
        """Return the statistics that judge outside of training."""
        return Statistics(self.mean.astype(np.float64), self.deviation.astype(np.float64))

    def blend(self, batch: Statistics, momentum: float) -> None:
        """Move the running statistics towards those of a micro-batch."""
        keep = 1.0 - momentum
        self.mean = (keep * self.mean.astype(np.float64) + momentum * batch.mean).astype(np.float32)
        deviation = keep * self.deviation.astype(np.float64) + momentum * batch.deviation
        self.deviation = deviation.astype(np.float32)

    def step_shift(
        self, gradient: Doubles, learning_rate: float, correction1: float, correction2: float
    ) -> None:
        """Move the shifts by Adam (Kingma and Ba 2015)."""
        moment1 = DECAY1 * self.moment1.astype(np.float64) + (1 - DECAY1) * gradient
        moment2 = DECAY2 * self.moment2.astype(np.float64) + (1 - DECAY2) * (gradient * gradient)
        self.moment1, self.moment2 = moment1.astype(np.float32), moment2.astype(np.float32)
        direction = self.moment1.astype(np.float64) / correction1
        root = np.sqrt(self.moment2.astype(np.float64) / correction2)
        moved = self.shift.astype(np.float64) - learning_rate * direction / (root + ROOT_FLOOR)
        self.shift = moved.astype(np.float32)


def sums_gradient(
    demand: Numbers, signs: NDArray[np.bool_], inverse: Floats, scale: np.float32
) -> Floats:
    """Return dL/dy, (rows, channels), in float32.

    demand is the masked gradient of the output in units of scale; dL/dy = v - mean(v) - mean(v s) s
    with v = scale demand / deviation and s the signs as +1 and -1.
    """
    count = np.float64(len(demand))
    total = demand.sum(0)
    signed = np.where(signs, demand, -demand).sum(0)
    slope = np.float64(scale) * inverse.astype(np.float64)
    upper = ((total + signed).astype(np.float64) * slope / count).astype(np.float32)
    lower = ((total - signed).astype(np.float64) * slope / count).astype(np.float32)
    value = slope.astype(np.float32) * demand.astype(np.float32)
    result: Floats = value - np.where(signs, upper, lower)
    return result
