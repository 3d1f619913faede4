"""Aggregation: every report is added to one running sum of integers, and forgotten.

    weight   <- clip( weight + sum_i n_i d_i / sum_i n_i )     d_i the change that device i sent
    scale    <- clip( sum_i n_i a_i / sum_i n_i )              a_i the scale that device i sent
    statistic <- sum_i n_i x_i / sum_i n_i

n_i is the number of examples that device i really used. All sums are of integers and exact: they
do not depend on the order of arrival, nor on how the work was spread over machines. Memory is
flat: one 64-bit integer a weight, however many devices report.

Bounds: a change is at most 254 steps, 254 * 64 < 2**14 in units of luq4, and the examples of a
round stay below 2**31 (a report beyond is refused), so a sum stays below 2**45; dividing it out
at 2**-16 of a step needs 2**(45 + 10 + 1) of int64's 2**63. Statistics, a few numbers a channel,
are summed in integers without a bound.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from edgetrain.coordinator.global_model import FRACTION_BITS, RANGES, GlobalModel, array_of
from edgetrain.errors import PayloadError
from edgetrain.schema import trained_schema
from edgetrain.task import Report
from edgetrain.tensorfile import Tensor
from edgetrain.update import LUQ4_UNIT, check_update

__all__ = ["MAXIMUM_EXAMPLES", "MAXIMUM_STATISTIC", "Accumulator", "decode_luq4"]

MAXIMUM_EXAMPLES = 2**31 - 1
"""The examples that one round may weigh, all devices together."""
MAXIMUM_STATISTIC = float(2**31)
"""No sum of a layer's inputs comes near this; a statistic beyond it is not one."""

UNIT_BITS = LUQ4_UNIT.bit_length() - 1
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


class Accumulator:
    """The running sum of one round over one version of the model."""

    def __init__(self, model: GlobalModel, codec: str) -> None:
        self.model = model
        self.codec = codec
        self.examples = 0
        self.devices: set[str] = set()
        self.refused: Counter[str] = Counter()
        self._weights = {
            name: np.zeros(array.size, dtype=np.int64) for name, array in model.weights.items()
        }
        trained = trained_schema(model.model, model.mode)
        # Python's own integers: a malicious or merely huge statistic cannot overflow them.
        self._statistics: dict[str, list[int]] = {
            name: [0] * array.size for name, array in model.statistics.items() if name in trained
        }

    def fold(self, report: Report) -> str | None:
        """Add one device's update, weighted by the examples it used.

        Returns None, or the reason why it was refused; a refused update changes nothing, and
        `refused` counts the reasons.
        """
        try:
            self._check(report)
        except PayloadError as error:
            reason = str(error)
            self.refused[reason] += 1
            return reason
        for name in self._weights:
            self._weights[name] += self._contribution(name, report.update) * report.examples
        for name, sums in self._statistics.items():
            for channel, value in enumerate(report.update[name].view()):
                sums[channel] += report.examples * fixed_point(value)
        self.examples += report.examples
        self.devices.add(report.device)
        return None

    def _check(self, report: Report) -> None:
        """Raise PayloadError, saying why, for a report that must not count."""
        if report.version != self.model.version:
            raise PayloadError(
                f"it is about version {report.version} of the model, and this round about "
                f"{self.model.version}"
            )
        if report.device in self.devices:
            raise PayloadError("the device has reported in this round already")
        if report.examples < 1:
            raise PayloadError("it used no examples")
        if report.examples > MAXIMUM_EXAMPLES - self.examples:
            raise PayloadError(f"a round weighs at most {MAXIMUM_EXAMPLES} examples")
        check_update(report.update, self.model.model, self.model.mode, self.codec)
        for name in self._statistics:
            values = report.update[name].view()
            if any(abs(value) > MAXIMUM_STATISTIC for value in values):
                raise PayloadError(f"the update: {name!r} holds a number beyond 2**31")
            if name.endswith(".deviation") and any(value < 0 for value in values):
                raise PayloadError(f"the update: {name!r} holds a negative deviation")

    def _contribution(self, name: str, update: Mapping[str, Tensor]) -> Array:
        """Return what one device says of a weight tensor, flat int64.

        Changes of a latent in units of 1/64 of a step; scales as they are.
        """
        if name.endswith(".scale"):
            return array_of(update[name]).ravel().astype(np.int64)
        if f"{name}.codes" in update:
            size = self._weights[name].size
            return decode_luq4(update[f"{name}.codes"], update[f"{name}.maximum"], size)
        change: Array = array_of(update[name]).astype(np.int64) - self.model.sent(name)
        return change.ravel() << UNIT_BITS

    def apply(self) -> GlobalModel:
        """Return the next version: the weighted mean of what was folded, kept within its range.

        Without a single report it is the same model under the next version.
        """
        model = self.model
        weights, statistics = dict(model.weights), dict(model.statistics)
        if self.examples:
            weights = {name: self._moved(name) for name in weights}
            statistics |= {
                name: np.array(
                    [divide(total, self.examples) / float(2**FRACTION_BITS) for total in sums],
                    dtype=np.float32,
                )
                for name, sums in self._statistics.items()
            }
        return GlobalModel(
            model.model, model.mode, model.version + 1, weights, statistics, model.signs
        )

    def _moved(self, name: str) -> Array:
        """Return the next fixed-point value of one weight tensor, int32."""
        least, most = RANGES[name.rpartition(".")[2]]
        sums = self._weights[name]
        if name.endswith(".scale"):
            moved = divide(sums << FRACTION_BITS, self.examples)
        else:
            change = divide(sums << (FRACTION_BITS - UNIT_BITS), self.examples)
            moved = self.model.weights[name].ravel() + change
        bounded: Array = np.clip(moved, least << FRACTION_BITS, most << FRACTION_BITS)
        return bounded.astype(np.int32).reshape(self.model.weights[name].shape)


def fixed_point(value: float) -> int:
    """Return a finite float as an integer of 2**-16, rounded half up: exact for a float32."""
    return math.floor(value * float(2**FRACTION_BITS) + 0.5)


def divide(total: Any, count: int) -> Any:
    """Return total / count rounded half up, for Python integers and int64 arrays alike."""
    return (2 * total + count) // (2 * count)
