"""Predictor: runs a packed model on a device, with the standard library and the native engine."""

from __future__ import annotations

import math
import threading
from array import array
from pathlib import Path
from typing import Any

from edgetrain.engines import start
from edgetrain.errors import DataError
from edgetrain.examples import Examples, contiguous
from edgetrain.inference import engine_tensors, inference_plan
from edgetrain.packed import read_packed

__all__ = ["Predictor"]

BATCH = 16
FLOATS = ("f", "d")
"""Formats of buffers of float32 and float64."""


class Predictor:
    """A packed model in an arena that has room for predicting alone; any thread may ask it.

    path is a file that export_packed or `edgetrain export --packed` wrote. Up to batch examples
    are taken at a time: fewer need less memory, and where memory is given, e.g. "2MiB", as many as
    fit. Raises DataError or PayloadError for a file that is no packed model, BudgetError where
    nothing fits.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        batch: int = BATCH,
        threads: int = 1,
        memory: str | int | None = None,
    ) -> None:
        packed = read_packed(path)
        model, self._scaling = packed.model, packed.scaling
        plan = inference_plan(model, packed.mode, batch, threads, memory)
        self._engine = start(plan, packed.seed, "native")
        for name, tensor in engine_tensors(model, packed.tensors).items():
            self._engine.write(plan.offset(name), tensor.data)
        self._lock = threading.Lock()
        # Asked for at every call, and slow to find.
        self._classes, self._shape = model.classes, model.example_shape
        self._batch, self._memory_bytes = plan.micro_batch, plan.peak_bytes
        self._logits = plan.offset(f"layer{model.depth - 1}.logits")

    @property
    def classes(self) -> int:
        """How many classes there are; they are numbered from 0."""
        return self._classes

    @property
    def input_shape(self) -> tuple[int, ...]:
        """The shape of an example: (features,), (length, channels) or (height, width, channels)."""
        return self._shape

    @property
    def memory_bytes(self) -> int:
        """The bytes of the arena: weights, activations and scratch."""
        return self._memory_bytes

    def predict(self, x: Any) -> list[int]:
        """Return the class of every example: that of the highest score, the first among equals.

        x is a numpy array or any buffer of N examples in C order, uint8 or int8, or floats where
        the model was trained on floats. Raises DataError for anything else.
        """
        scores: Any = self.scores(x).tolist()
        return [row.index(max(row)) for row in scores]

    def scores(self, x: Any) -> memoryview[float]:
        """Return the scores of every example, float32 (N, classes); numpy.asarray takes them.

        They are the normalised outputs of the last layer, before a softmax; x is as for predict.
        """
        examples = self._examples(x)
        found = bytearray()
        row = 4 * self._classes
        with self._lock:
            for begin in range(0, examples.count, self._batch):
                end = min(begin + self._batch, examples.count)
                indices = array("I", range(begin, end)).tobytes()
                self._engine.evaluate(examples.features, examples.signed, examples.labels, indices)
                found += self._engine.read(self._logits, (end - begin) * row)
        return memoryview(found).cast("f", (examples.count, self._classes))

    def _examples(self, x: Any) -> Examples:
        view = contiguous(x, "x")
        if view.format in FLOATS:
            if self._scaling is None:
                raise DataError("x holds floats, but the model was trained on integers: give those")
            x = self._scaling.apply_to_buffer(view)
        return Examples.unlabelled(x, math.prod(self._shape))
