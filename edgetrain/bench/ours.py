"""Our side of a measurement, in a process without numpy: plan, trainer, steps over one batch."""

from __future__ import annotations

import os

from edgetrain import models
from edgetrain.bench.measure import (
    Request,
    Sample,
    Stopwatch,
    answer,
    memory_baseline,
    peak_bytes,
)
from edgetrain.bench.networks import Network, find_network
from edgetrain.ops.op import Mode
from edgetrain.planner import plan
from edgetrain.train import Trainer

__all__ = ["measure"]


def measure(request: Request) -> Sample:
    """Measure a step; the plan, the trainer and its arena all count as growth."""
    network = find_network(request.network)
    pixels = os.urandom(request.batch * network.inputs)
    x = memoryview(pixels).cast("B", (request.batch, network.inputs))
    y = bytes(index % network.classes for index in range(request.batch))
    warm_up(request)

    watch = Stopwatch()
    base = memory_baseline()
    trainer = build(network, request.batch, request)
    watch.run(lambda: trainer.fit(x, y), request.seconds)
    growth = peak_bytes() - base
    return Sample(watch.median_ms, growth, trainer.plan.peak_bytes, trainer.isa)


def warm_up(request: Request) -> None:
    """Train a tiny network once, so that the code of the kernels is resident."""
    tiny = build(Network(8, (8,), 2), 4, request)
    tiny.fit(memoryview(bytes(32)).cast("B", (4, 8)), bytes(4))


def build(network: Network, batch: int, request: Request) -> Trainer:
    """Plan the network and return its trainer."""
    model = models.mlp(network.inputs, network.classes, network.hidden)
    mode: Mode = "fsb" if request.mode == "fsb" else "bnn"
    return Trainer(plan(model, batch=batch, mode=mode, threads=request.threads))


if __name__ == "__main__":
    answer(measure)
