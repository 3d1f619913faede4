"""The oracle behind the native engine's interface, so that a trainer can run it."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgetrain.errors import EngineError
from edgetrain.planner import Plan
from edgetrain.reference.network import ReferenceNetwork
from edgetrain.schema import moment_schema, state_schema
from edgetrain.step import StepSettings

__all__ = ["ReferenceEngine"]

DTYPES: dict[str, Any] = {
    "F16": np.float16,
    "F32": np.float32,
    "I8": np.int8,
    "U8": np.uint8,
    "U32": np.uint32,
}
"""As an arena holds what was learnt."""


class ReferenceEngine:
    """A plan's model under the oracle: every gradient format, whole tensors, no arena."""

    isa = "reference"

    def __init__(self, plan: Plan, seed: int) -> None:
        self._plan = plan
        self._network = ReferenceNetwork(plan.model, plan.mode, seed, plan.latent, plan.gradient)
        kinds = (plan.model, plan.mode, plan.latent)
        self._schema = state_schema(*kinds) | moment_schema(*kinds)
        self._names = {
            placement.offset: placement.tensor.name
            for placement in plan.placements
            if placement.tensor.name in self._schema
        }

    def train(
        self, features: Any, is_signed: bool, labels: Any, indices: bytes, *settings: Any
    ) -> tuple[float, int]:
        """Take one step; settings are the fields of StepSettings. Returns loss and right answers.

        Raises ValueError for a label that is no class.
        """
        x, y = self._examples(features, is_signed, labels, indices)
        return self._network.train(x, y, StepSettings(*settings))

    def evaluate(
        self, features: Any, is_signed: bool, labels: Any, indices: bytes
    ) -> tuple[float, int]:
        """Return the summed loss and the right answers. Raises ValueError as train does."""
        return self._network.evaluate(*self._examples(features, is_signed, labels, indices))

    def read(self, offset: int, size: int) -> bytes:
        """Return what was learnt, by its place in the plan. Raises EngineError for other places."""
        layer, name, dtype = self._tensor(offset)
        tensors = self._network.weights[layer].tensors()
        value = tensors[name] if name in tensors else getattr(self._network.channels[layer], name)
        data: bytes = value.astype(dtype).tobytes()
        assert len(data) == size
        return data

    def write(self, offset: int, data: Any) -> None:
        """Take over what was learnt elsewhere, by its place in the plan. Raises EngineError."""
        layer, name, dtype = self._tensor(offset)
        weights = self._network.weights[layer]
        value = np.frombuffer(data, dtype)
        if name not in weights.tensors():
            setattr(self._network.channels[layer], name, value.copy())
        elif weights.held is None:
            weights.stored = value.astype(np.int64).reshape(weights.stored.shape)
        else:
            raise EngineError(f"the reference engine cannot take over {name}")

    def _tensor(self, offset: int) -> tuple[int, str, Any]:
        """Return the layer, name and dtype of what was learnt and lies at an offset."""
        if offset not in self._names:
            raise EngineError("the reference engine keeps what was learnt and nothing else")
        full = self._names[offset]
        layer, _, name = full.partition(".")
        return int(layer.removeprefix("layer")), name, DTYPES[self._schema[full][0]]

    def _examples(
        self, features: Any, is_signed: bool, labels: Any, indices: bytes
    ) -> tuple[NDArray[np.integer], NDArray[np.integer]]:
        rows = np.frombuffer(indices, np.uint32)
        x = np.frombuffer(features, np.int8 if is_signed else np.uint8)
        y = np.frombuffer(labels, np.uint8)[rows]
        classes = self._plan.model.classes
        if y.max() >= classes:
            raise ValueError(f"label {y.max()} is out of range: the model has {classes} classes")
        return x.reshape(-1, self._plan.model.input_features)[rows], y
