"""Aggregation: every report is added to one running sum of integers, and forgotten.

    value <- clip( value + sum_i n_i w_i d_i / sum_i n_i )

n_i is the number of examples that device i really used and d_i the change that it made to what it
was sent: of a latent, a scale or a statistic. w_i = 1 / sqrt(1 + lag) is a little less for each
version of the model that was made since then (FedBuff: Nguyen et al. 2022); what was
lost by it is not made up for, so that a buffer full of old news moves the model less. Where nobody
lags it is the mean over devices weighted by examples.

All sums are of integers and exact: they do not depend on the order of arrival, nor on how the work
was spread over machines. A change is a multiple of 2**-6 of a step (luq4) and w_i one of 2**-10, so
that their product is one of 2**-16, the unit of the weights that are kept. Memory is flat: one
64-bit integer a weight, however many devices report.

Bounds: a change is at most 255 steps, below 2**14 in units of 2**-6; w_i at most 2**10; the
examples of a round stay below 2**31 (a report beyond is not admitted). So a sum stays below 2**55
and its rounded quotient below 2**57, of int64's 2**63. Statistics, a few numbers a channel, are
summed in integers without a bound.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from edgetrain.coordinator.global_model import FRACTION_BITS, RANGES, GlobalModel, array_of
from edgetrain.schema import trained_schema
from edgetrain.task import Report
from edgetrain.tensorfile import State, Tensor
from edgetrain.update import LUQ4_UNIT

__all__ = [
    "MAXIMUM_EXAMPLES",
    "MAXIMUM_STATISTIC",
    "Accumulator",
    "decode_luq4",
    "staleness_weight",
]

MAXIMUM_EXAMPLES = 2**31 - 1
"""The examples that one round may weigh, all devices together."""
MAXIMUM_STATISTIC = float(2**31)
"""No sum of a layer's inputs comes near this; a statistic beyond it is not one."""

UNIT_BITS = LUQ4_UNIT.bit_length() - 1
WEIGHT_BITS = FRACTION_BITS - UNIT_BITS
"""A weight of staleness is an integer of 2**-WEIGHT_BITS."""
LUQ4_VALUES = np.array(
    [0, 1, 2, 4, 8, 16, 32, 64, 0, -1, -2, -4, -8, -16, -32, -64], dtype=np.int64
)
"""What a luq4 code stands for, in units of maximum / 64."""

Array = npt.NDArray[Any]


def decode_luq4(codes: Tensor, maximum: Tensor, count: int) -> Array:
    """Return `count` changes as int64 in units of 1/64 of a step."""
    packed = array_of(codes)
    nibbles = np.empty(2 * packed.size, dtype=np.uint8)
    nibbles[0::2] = packed & 15
    nibbles[1::2] = packed >> 4
    changes: Array = (LUQ4_VALUES * int(array_of(maximum)[0]))[nibbles[:count]]
    return changes


def staleness_weight(lag: int) -> int:
    """Return 2**10 / sqrt(1 + lag), rounded to the nearest integer by integers alone.

    `lag` is how many versions were made since the one that a report is about.
    """
    root = math.isqrt((1 << 2 * WEIGHT_BITS) // (1 + lag))
    beyond_half = (2 * root + 1) ** 2 * (1 + lag) <= 1 << 2 * WEIGHT_BITS + 2
    return root + beyond_half


class Accumulator:
    """The running sum of one round over one version of the model.

    It takes every report for one that was admitted: see coordinator.admission.
    """

    def __init__(self, model: GlobalModel) -> None:
        self.model = model
        self.examples = 0
        self.reports = 0
        self.stale = 0
        self._sent = model.state()
        self._weights = {
            name: np.zeros(array.size, dtype=np.int64) for name, array in model.weights.items()
        }
        trained = trained_schema(model.model, model.mode)
        # Python's own integers: a malicious or merely huge statistic cannot overflow them.
        self._statistics: dict[str, list[int]] = {
            name: [0] * array.size for name, array in model.statistics.items() if name in trained
        }

    @property
    def fresh(self) -> int:
        """How many reports about this very version were folded."""
        return self.reports - self.stale

    def fold(self, report: Report, sent: State | None = None) -> None:
        """Add one device's update, weighted by the examples it used and by its age.

        `sent` is the state that the device was asked to train, that of the present version unless
        given.
        """
        before = self._sent if sent is None else sent
        lag = self.model.version - report.version
        factor = report.examples * staleness_weight(lag)
        for name in self._weights:
            self._weights[name] += factor * self._change(name, report.update, before)
        for name, sums in self._statistics.items():
            values = zip(report.update[name].view(), before[name].view(), strict=True)
            for channel, (new, old) in enumerate(values):
                sums[channel] += factor * (fixed_point(new) - fixed_point(old))
        self.examples += report.examples
        self.reports += 1
        self.stale += lag > 0

    def _change(self, name: str, update: Mapping[str, Tensor], sent: State) -> Array:
        """Return how one device moved a weight tensor, flat int64 in units of 1/64 of a step."""
        if f"{name}.codes" in update:
            size = self._weights[name].size
            return decode_luq4(update[f"{name}.codes"], update[f"{name}.maximum"], size)
        change: Array = array_of(update[name]).astype(np.int64) - array_of(sent[name])
        return change.ravel() << UNIT_BITS

    def apply(self) -> GlobalModel:
        """Return the next version: what was folded moves the model, kept within its range.

        Without a single report it is the same model under the next version.
        """
        model = self.model
        weights, statistics = dict(model.weights), dict(model.statistics)
        if self.examples:
            weights = {name: self._moved(name) for name in weights}
            statistics |= {name: self._moved_statistic(name) for name in self._statistics}
        return GlobalModel(
            model.model, model.mode, model.version + 1, weights, statistics, model.signs
        )

    def _moved(self, name: str) -> Array:
        """Return the next fixed-point value of one weight tensor, int32.

        A scale moves from the byte that was sent: the mean of whole scales has no other origin.
        """
        least, most = RANGES[name.rpartition(".")[2]]
        origin = self.model.weights[name]
        if name.endswith(".scale"):
            origin = array_of(self._sent[name]).astype(np.int64) << FRACTION_BITS
        moved = origin.ravel() + divide(self._weights[name], self.examples)
        bounded: Array = np.clip(moved, least << FRACTION_BITS, most << FRACTION_BITS)
        return bounded.astype(np.int32).reshape(origin.shape)

    def _moved_statistic(self, name: str) -> Array:
        """Return the next value of one statistic, float32 of what is exact in units of 2**-16."""
        total = self.examples << WEIGHT_BITS
        moved = [
            divide(fixed_point(value) * total + change, total)
            for value, change in zip(self._sent[name].view(), self._statistics[name], strict=True)
        ]
        if name.endswith(".deviation"):
            moved = [max(0, value) for value in moved]
        return np.array([value / float(1 << FRACTION_BITS) for value in moved], dtype=np.float32)


def fixed_point(value: float) -> int:
    """Return a finite float as an integer of 2**-16, rounded half up: exact for a float32."""
    return math.floor(value * float(2**FRACTION_BITS) + 0.5)


def divide(total: Any, count: int) -> Any:
    """Return total / count rounded half up, for Python integers and int64 arrays alike."""
    return (2 * total + count) // (2 * count)
