"""What a calibration runs: work that differs in operations a second and in operations a byte.

Energy can be shared out among time, operations and bytes only where these do not rise together, so
that the suite reaches from doing nothing, over moving bytes, to multiplying what stays in cache.
Arenas stay below 8 MiB, and steps are short, because a meter of power is read between them.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable

from edgetrain.examples import random_examples
from edgetrain.memory_profiler.energy.law import Work
from edgetrain.memory_profiler.estimate import work_of
from edgetrain.model import Model
from edgetrain.models import mlp
from edgetrain.ops import (
    BatchNorm,
    Conv2d,
    GlobalAveragePool,
    Linear,
    Sign,
    SoftmaxCrossEntropy,
)
from edgetrain.planner import plan
from edgetrain.train import Trainer

__all__ = ["SUITE", "Step"]

Step = Callable[[], Work]
"""Does a short piece of work, and returns what it did."""

CLASSES = 10
PAUSE_S = 0.02
COPIED_BYTES = 8 << 20
"""Larger than the caches of a small device."""
SIDE, CHANNELS, DEPTHWISE_LAYERS = 16, 128, 4


def idle(threads: int) -> Step:
    """Return a step that sleeps."""
    del threads

    def step() -> Work:
        time.sleep(PAUSE_S)
        return Work()

    return step


def copy(threads: int) -> Step:
    """Return a step that reads and writes a block of memory, on one thread."""
    del threads
    source, target = os.urandom(COPIED_BYTES), memoryview(bytearray(COPIED_BYTES))

    def step() -> Work:
        target[:] = source
        return Work(0, 2 * COPIED_BYTES)

    return step


def product(threads: int) -> Step:
    """Return a training step of large products: many operations on each byte."""
    return training(mlp(512, CLASSES, (512,) * 3), 128, threads)


def thin_product(threads: int) -> Step:
    """Return a training step of few examples, which moves every weight for little arithmetic."""
    return training(mlp(1024, CLASSES, (1024,) * 3), 4, threads)


def depthwise(threads: int) -> Step:
    """Return a training step of depthwise convolutions: every output sees one channel."""
    layers = [Conv2d(CHANNELS, stride=2, training="bnn"), BatchNorm(), Sign()]
    for _ in range(DEPTHWISE_LAYERS):
        layers += [Conv2d(CHANNELS, groups=CHANNELS), BatchNorm(), Sign()]
    head = (GlobalAveragePool(), Linear(CLASSES, "int8"), BatchNorm(), SoftmaxCrossEntropy())
    return training(Model((SIDE, SIDE, 3), (*layers, *head)), 16, threads)


SUITE: dict[str, Callable[[int], Step]] = {
    "idle": idle,
    "copy": copy,
    "product": product,
    "thin product": thin_product,
    "depthwise": depthwise,
}
"""By name, from a number of threads to a step."""


def training(model: Model, batch: int, threads: int) -> Step:
    """Return one training step of the native engine on random data."""
    compiled = plan(model, batch, threads=threads)
    trainer = Trainer(compiled)
    x, y = random_examples(model.input_features, model.classes, batch)

    def step() -> Work:
        trainer.fit(x, y)
        return work_of(compiled, batch)

    return step
