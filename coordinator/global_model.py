"""The fleet's model as the coordinator keeps it: weights finer than what devices see.

A device receives one byte a weight. The average of many devices' changes is a fraction of a step,
which the coordinator must not lose between rounds: it keeps every weight as an integer of
2**-16 steps and sends the nearest byte.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from edgetrain.errors import PayloadError
from edgetrain.model import Model
from edgetrain.ops.op import Mode
from edgetrain.schema import check_state, check_tensors, state_schema
from edgetrain.tensorfile import State, Tensor

__all__ = ["FRACTION_BITS", "RANGES", "GlobalModel", "array_of"]

FRACTION_BITS = 16
"""A kept weight is an integer of 2**-FRACTION_BITS of the step that a device sees."""

RANGES = {"latent": (-127, 127), "scale": (0, 255)}
"""The values that a device's byte may have, by the last part of the tensor's name."""

AS_THEY_ARE = ("F32", "U32")
"""The dtypes of statistics and of signs, which are kept as devices see them."""

NUMPY_TYPES = {"I8": "<i1", "U8": "<u1", "F32": "<f4", "U32": "<u4"}

Array = npt.NDArray[Any]


def array_of(tensor: Tensor) -> Array:
    """Return a tensor's elements as a read-only array of its shape, without a copy."""
    return np.frombuffer(tensor.data, NUMPY_TYPES[tensor.dtype]).reshape(tensor.shape)


@dataclass(frozen=True)
class GlobalModel:
    """One version of the fleet's model.

    `weights` maps each latent and scale to int32 fixed point (2**-16 of a step), `statistics`
    maps shifts, means and deviations to float32, `signs` maps the packed signs of frozen layers,
    which no round changes. All have the shapes of the state's schema.
    """

    model: Model
    mode: Mode
    version: int
    weights: Mapping[str, Array]
    statistics: Mapping[str, Array]
    signs: Mapping[str, Array] = field(default_factory=dict)

    @classmethod
    def from_state(
        cls, model: Model, mode: Mode, state: Mapping[str, Tensor], version: int = 0
    ) -> GlobalModel:
        """Return the model whose weights are exactly a state's. Raises PayloadError."""
        check_state(state, model, mode)
        weights, statistics, signs = {}, {}, {}
        for name, tensor in state.items():
            array = array_of(tensor)
            if tensor.dtype == "F32":
                statistics[name] = array.astype(np.float32)
            elif tensor.dtype == "U32":
                signs[name] = array.copy()
            else:
                weights[name] = array.astype(np.int32) << FRACTION_BITS
        return cls(model, mode, version, weights, statistics, signs)

    @classmethod
    def fresh(cls, model: Model, mode: Mode, seed: int) -> GlobalModel:
        """Return version 0: what a device's own trainer would start from with this seed."""
        # The engine is needed here alone; who reads a checkpoint does without it.
        from edgetrain.planner import plan  # noqa: PLC0415
        from edgetrain.train import Trainer  # noqa: PLC0415

        return cls.from_state(model, mode, Trainer(plan(model, mode=mode), seed=seed).state())

    def state(self) -> State:
        """Return what devices receive: bytes, rounded half up, and float32 statistics."""
        schema = state_schema(self.model, self.mode)
        return {
            name: Tensor(dtype, shape, self._sent(name).tobytes())
            for name, (dtype, shape) in schema.items()
        }

    def _sent(self, name: str) -> Array:
        if name in self.signs:
            return self.signs[name]
        return self.statistics[name] if name in self.statistics else self.sent(name)

    def sent(self, name: str) -> Array:
        """Return the bytes of one weight tensor as devices see them: int8 latents, uint8 scales."""
        half = 1 << (FRACTION_BITS - 1)
        rounded = (self.weights[name] + half) >> FRACTION_BITS
        return rounded.astype(np.uint8 if name.endswith(".scale") else np.int8)

    def to_tensors(self) -> State:
        """Return everything kept, for a file: weights as U32 holding int32, the rest as it is."""
        weights = {
            f"{name}.fixed": Tensor("U32", array.shape, array.astype("<i4").tobytes())
            for name, array in self.weights.items()
        }
        statistics = {
            name: Tensor("F32", array.shape, array.astype("<f4").tobytes())
            for name, array in self.statistics.items()
        }
        signs = {
            name: Tensor("U32", array.shape, array.astype("<u4").tobytes())
            for name, array in self.signs.items()
        }
        return weights | statistics | signs

    @classmethod
    def from_tensors(
        cls, model: Model, mode: Mode, version: int, tensors: Mapping[str, Tensor]
    ) -> GlobalModel:
        """Return the model that `to_tensors` wrote. Raises PayloadError for anything else."""
        schema = state_schema(model, mode)
        kept = {
            (name if dtype in AS_THEY_ARE else f"{name}.fixed"): (
                dtype if dtype in AS_THEY_ARE else "U32",
                shape,
            )
            for name, (dtype, shape) in schema.items()
        }
        check_tensors(tensors, kept, "the checkpoint")
        weights, statistics, signs = {}, {}, {}
        for name, (dtype, _) in schema.items():
            if dtype == "F32":
                statistics[name] = array_of(tensors[name]).copy()
            elif dtype == "U32":
                signs[name] = array_of(tensors[name]).copy()
            else:
                weights[name] = array_of(tensors[f"{name}.fixed"]).view("<i4").copy()
                check_range(name, weights[name])
        return cls(model, mode, version, weights, statistics, signs)


def check_range(name: str, fixed: Array) -> None:
    """Raise PayloadError where a kept weight lies outside what a device's byte may hold."""
    least, most = RANGES[name.rpartition(".")[2]]
    if fixed.size and not (
        least << FRACTION_BITS <= fixed.min() and fixed.max() <= most << FRACTION_BITS
    ):
        raise PayloadError(f"the checkpoint: {name} holds a weight outside {least} to {most}")
