"""Float data to int8 by recorded constants, so that every later sample is scaled the same way.

    q = clip(round((x - center) / step), -127, 127)        one center and one step a channel

The center is the channel's mean and 127 steps are three standard deviations, both taken from
the training part alone. Every channel then reaches a binary layer with the same weight,
whatever its unit, and a rare spike cannot take the resolution from the rest.
"""

from __future__ import annotations

import itertools
import json
import math
import os
from array import array
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgetrain.errors import DataError
from edgetrain.storage import replace_file

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["Scaling", "fit"]

SPREAD = 3.0
LIMIT = 127
# Rows that mean and deviation are taken from at most: their error is then far below one step.
ROWS = 50_000
BLOCK = 4096
# A channel that varies less than float32 resolves is constant: its noise is not to be amplified.
RELATIVE_NOISE = 1e-7


@dataclass(frozen=True)
class Scaling:
    """The constants of one data set: a center and a step per channel (last axis of a sample)."""

    center: tuple[float, ...]
    step: tuple[float, ...]

    def __post_init__(self) -> None:
        if not self.center or len(self.center) != len(self.step):
            raise DataError("scaling needs as many centers as steps, at least one of each")
        if not all(map(math.isfinite, self.center + self.step)) or min(self.step) <= 0:
            raise DataError("scaling needs finite centers and finite steps above zero")

    def apply(self, x: NDArray[Any]) -> NDArray[np.int8]:
        """Return x, (..., channels) of any real type, as int8 of the same shape.

        Raises DataError when the channel count differs or a value is NaN or infinite.
        """
        import numpy as np  # noqa: PLC0415 - a device scales buffers and has none

        self._check_channels(x.shape)
        center, step = np.asarray(self.center), np.asarray(self.step)
        scaled = np.empty(x.shape, np.int8)
        for start in range(0, len(x), BLOCK):
            block = np.asarray(x[start : start + BLOCK], np.float64)
            if not np.isfinite(block).all():
                raise DataError(
                    f"x holds NaN or infinity (first in samples {start} to "
                    f"{start + len(block) - 1}): remove or fill those samples"
                )
            steps = np.rint((block - center) / step)
            scaled[start : start + BLOCK] = np.clip(steps, -LIMIT, LIMIT)
        return scaled

    def apply_to_buffer(self, x: memoryview) -> memoryview:
        """Return x, float32 or float64 in C order, as `apply` does, without numpy.

        A flat buffer holds whole samples, channel after channel. Raises DataError as `apply` does.
        """
        shape = x.shape or ()
        if not x.nbytes:
            raise DataError("x holds no example")
        if x.ndim > 1:
            self._check_channels(shape)
        flat = x.cast("B")
        numbers = flat.cast("d") if x.format == "d" else flat.cast("f")
        constants = itertools.cycle(zip(self.center, self.step, strict=True))
        try:
            scaled = array(
                "b",
                (
                    min(max(round((number - center) / step), -LIMIT), LIMIT)
                    for number, (center, step) in zip(numbers, constants)  # noqa: B905
                ),
            )
        except (ValueError, OverflowError):
            raise DataError("x holds NaN or infinity: remove or fill those samples") from None
        return memoryview(scaled).cast("B").cast("b", shape)

    def _check_channels(self, shape: tuple[int, ...]) -> None:
        if not shape or shape[-1] != len(self.center):
            raise DataError(
                f"data of shape {shape} does not fit a scaling of {len(self.center)} channels: "
                "scale it with the constants of the same data set"
            )

    def to_json(self) -> str:
        """Return the constants as one line of JSON; `from_json` reads them back exactly."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Scaling:
        """Read what `to_json` wrote. Raises DataError when the text is not a scaling."""
        try:
            fields = json.loads(text)
            if not isinstance(fields, Mapping) or set(fields) != {"center", "step"}:
                raise ValueError("it needs the keys center and step, and no other")
            return cls(*(tuple(float(v) for v in fields[key]) for key in ("center", "step")))
        except (ValueError, TypeError, OverflowError, RecursionError) as error:
            raise DataError(
                f"not a scaling: {error}; delete it to have it computed anew"
            ) from error

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Scaling:
        """Read what `save` wrote. Raises DataError, naming the file, for anything else."""
        try:
            return cls.from_json(Path(path).read_text())
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(f"cannot read {path}: {error}") from error
        except DataError as error:
            raise DataError(f"{path}: {error}") from error

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the constants as JSON. Raises StorageError when the file cannot be written."""
        replace_file(Path(path), (self.to_json().encode() + b"\n",))


def fit(x: NDArray[Any], rows: NDArray[np.int64] | None = None, spread: float = SPREAD) -> Scaling:
    """Return the scaling of x, (N, ..., channels) real, or of x[rows] (at least one row).

    127 steps are `spread` standard deviations. A channel that never changes gets a step of
    1. At most `ROWS` rows, evenly spaced, are read.
    Raises DataError when one of them holds NaN or infinity.
    """
    import numpy as np  # noqa: PLC0415 - a device fits nothing

    chosen = np.arange(len(x)) if rows is None else rows
    sample = np.asarray(x[chosen[:: -(-len(chosen) // ROWS)]], np.float64)
    values = sample.reshape(-1, x.shape[-1])
    if not np.isfinite(values).all():
        raise DataError("x holds NaN or infinity: remove or fill those samples")
    mean, deviation = values.mean(axis=0), values.std(axis=0)
    constant = deviation <= RELATIVE_NOISE * np.abs(mean) + np.finfo(np.float32).tiny
    step = np.where(constant, 1.0, spread * deviation / LIMIT)
    return Scaling(tuple(mean.tolist()), tuple(step.tolist()))
