"""A training step against what the machine can do at most, a layer at a time.

The two limits are products of int8 and products of bits (popcounts) a second, of the engine's own
innermost kernels over operands that stay in the nearest cache: the flat part of the roof (Williams
et al. 2009). They are measured in turn with the step; of each the fastest counts, so that whoever
interrupts does not. Backward products are held against the int8 limit; where they are looked up in
tables they may exceed it.
"""

from __future__ import annotations

import json
import os
import struct
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Literal

from edgetrain import _native
from edgetrain.bench.networks import find_network
from edgetrain.bench.ours import examples
from edgetrain.errors import ConfigError
from edgetrain.model import Block
from edgetrain.ops.op import Mode
from edgetrain.planner import Plan, plan

__all__ = ["Limits", "Roofline", "Row", "roofline"]

Limit = Literal["int8_dot", "popcount"]
Times = dict[str, float]
PHASES = ("forward", "forward_norm", "backward_norm", "input_gradient", "gradients")
"""As edgetrain/native/include/edgetrain/profile.hpp has them."""
FEWEST_STEPS = 7


@dataclass(frozen=True)
class Limits:
    """Products of int8, and of bits, a second."""

    int8_dot: float
    popcount: float

    def of(self, limit: Limit) -> float:
        """Return one of the two."""
        return self.int8_dot if limit == "int8_dot" else self.popcount


@dataclass(frozen=True)
class Row:
    """A phase of a layer: a product, held against a limit, or what is not one.

    operations are multiply-accumulates or their binary equals; share is of the limit, 1 at it.
    """

    layer: int | None
    op: str
    phase: str
    ms: float
    limit: Limit | None = None
    operations: int = 0
    per_second: float | None = None
    share: float | None = None


@dataclass(frozen=True)
class Roofline:
    """The fastest of some steps: step_ms, of which share is what it would take at the limits."""

    network: str
    batch: int
    threads: int
    mode: Mode
    isa: str
    steps: int
    limits: Limits
    step_ms: float
    share: float
    rows: tuple[Row, ...]

    def to_json(self) -> str:
        """Return the report as JSON text."""
        return json.dumps(asdict(self), indent=2)


def roofline(
    network: str, batch: int = 100, threads: int = 1, mode: Mode = "bnn", seconds: float = 5.0
) -> Roofline:
    """Measure the limits and the step in turn for a while, and return the fastest of each.

    Raises ConfigError for a name or a number that makes no sense, EngineError and BudgetError as
    the planner does.
    """
    model = find_network(network)
    if mode not in ("bnn", "fsb"):
        raise ConfigError(f"--mode {mode!r} is unknown: choose bnn or fsb")
    chosen = plan(model, batch, mode, micro_batch=batch, threads=threads)
    engine = _native.Engine(chosen.program(), 0, os.environ.get("EDGETRAIN_ISA", ""))
    x, y = examples(model, batch)
    indices = struct.pack(f"<{batch}I", *range(batch))
    found, steps = list[Limits](), list[Times]()
    begun = time.perf_counter()
    while len(steps) < FEWEST_STEPS or time.perf_counter() - begun < seconds:
        found.append(Limits(*_native.limits(engine.isa, threads)))
        start = time.perf_counter()
        raw = engine.profile(x, False, y, indices)
        steps.append(step_times(raw, threads, 1e3 * (time.perf_counter() - start)))
    limits = Limits(
        max(limits.int8_dot for limits in found), max(limits.popcount for limits in found)
    )
    fastest = min(steps, key=lambda times: times["step"])
    return report(chosen, limits, fastest, network=network, isa=engine.isa, steps=len(steps))


def step_times(raw: bytes, threads: int, whole: float) -> Times:
    """Return the milliseconds of every phase, by "layer.phase", of the step and of what is left.

    A norm's share of a forward pass is summed over threads, which run side by side.
    """
    times: Times = {}
    for number, nanoseconds in enumerate(memoryview(raw).cast("Q")):
        layer, phase = divmod(number, len(PHASES))
        times[f"{layer}.{PHASES[phase]}"] = nanoseconds / 1e6
    for layer in range(len(times) // len(PHASES)):
        norm = times.pop(f"{layer}.forward_norm") / threads
        times[f"{layer}.forward"] -= norm
        times[f"{layer}.norm"] = norm + times.pop(f"{layer}.backward_norm")
        times[f"{layer}.gradients"] -= times[f"{layer}.input_gradient"]
    times["rest"] = whole - sum(times.values())
    times["step"] = whole
    return times


def report(
    chosen: Plan, limits: Limits, times: Times, *, network: str, isa: str, steps: int
) -> Roofline:
    """Hold the times against the limits."""
    rows = tuple(
        row for block in chosen.model.blocks() for row in block_rows(block, chosen, limits, times)
    )
    ideal = sum(1e3 * row.operations / limits.of(row.limit) for row in rows if row.limit)
    return Roofline(
        network=network,
        batch=chosen.batch,
        threads=chosen.threads,
        mode=chosen.mode,
        isa=isa,
        steps=steps,
        limits=limits,
        step_ms=times["step"],
        share=ideal / times["step"],
        rows=(*rows, Row(None, "", "loading, loss", times["rest"])),
    )


def block_rows(block: Block, chosen: Plan, limits: Limits, times: Times) -> Iterator[Row]:
    """Yield the phases of one layer."""
    weights, index = block.weights, block.index
    context = next(c for b, op, c in chosen.walk() if b.index == index and op is weights)
    cost = weights.arithmetic(context)
    bits = block.source.kind == "bits" and weights.weight_mode(chosen.mode) == "bnn"
    below = weights.input_gradient_products(context)
    products: Sequence[tuple[str, str, Limit, int]] = [
        ("forward", "forward", "popcount" if bits else "int8_dot", cost.forward)
    ]
    if times[f"{index}.input_gradient"] > 0:
        products = [
            *products,
            ("input gradient", "input_gradient", "int8_dot", below),
            ("weight gradient", "gradients", "int8_dot", cost.backward - below),
        ]
    else:
        name = "weight gradient" if context.first else "both gradients"
        products = [*products, (name, "gradients", "int8_dot", cost.backward)]
    op = f"{weights.name} {weights.outputs}"
    for phase, key, limit, operations in products:
        ms = times[f"{index}.{key}"]
        rate = 1e3 * operations / ms
        yield Row(index, op, phase, ms, limit, operations, rate, rate / limits.of(limit))
    yield Row(index, op, "norms, codes", times[f"{index}.norm"])
