"""Our side of a measurement, in a process without numpy: plan, trainer, steps over one batch."""

from __future__ import annotations

from typing import cast

from edgetrain.bench.measure import (
    Request,
    Sample,
    Stopwatch,
    answer,
    memory_baseline,
    peak_bytes,
)
from edgetrain.bench.networks import TINY_BATCH, find_network, tiny
from edgetrain.examples import random_examples
from edgetrain.model import Model
from edgetrain.ops.op import Mode
from edgetrain.planner import plan
from edgetrain.recompute import Recompute
from edgetrain.train import Trainer

__all__ = ["measure"]


def measure(request: Request) -> Sample:
    """Measure a step; the plan, the trainer and its arena all count as growth."""
    model = find_network(request.network)
    x, y = examples(model, request.batch)
    small = tiny(model)
    build(small, TINY_BATCH, request).fit(*examples(small, TINY_BATCH))

    watch = Stopwatch()
    base = memory_baseline()
    trainer = build(model, request.batch, request)
    watch.run(lambda: trainer.fit(x, y), request.seconds)
    growth = peak_bytes() - base
    return Sample(watch.median_ms, growth, trainer.plan.peak_bytes, trainer.isa)


def examples(model: Model, batch: int) -> tuple[memoryview, bytes]:
    """Return a batch of random features and of labels."""
    return random_examples(model.input_features, model.classes, batch)


def build(model: Model, batch: int, request: Request) -> Trainer:
    """Plan the model and return its trainer."""
    mode: Mode = "fsb" if request.mode == "fsb" else "bnn"
    return Trainer(
        plan(
            model,
            batch,
            mode,
            gradient=request.gradient,
            draws=request.draws,
            threads=request.threads,
            recompute=cast(Recompute, request.recompute),
        )
    )


if __name__ == "__main__":
    answer(measure)
