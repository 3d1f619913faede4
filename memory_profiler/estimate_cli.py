"""`edgetrain-profile estimate`: what one plan will use."""

from __future__ import annotations

import json as json_text
from collections.abc import Callable
from dataclasses import asdict
from typing import Annotated, Any, get_args

import typer
from rich.console import Console
from rich.table import Table

from edgetrain.freeze import freeze as freeze_model
from edgetrain.memory_profiler.budget import Interval, format_joules, format_seconds
from edgetrain.memory_profiler.estimate import Estimate, estimate
from edgetrain.memory_profiler.options import (
    Base,
    Batch,
    Calibration,
    Classes,
    Codec,
    Dataset,
    Examples,
    Hidden,
    Inputs,
    Json,
    Memory,
    ModelName,
    Rate,
    Threads,
    Watts,
    device_of,
    one_or_any,
    size_of,
)
from edgetrain.memory_profiler.variants import summarise
from edgetrain.models.named import named_model
from edgetrain.ops.op import Mode
from edgetrain.options import Freeze, LatentOption, RecomputeOption
from edgetrain.planner import plan
from edgetrain.sizes import format_size

__all__ = ["estimate_command", "estimate_fields", "print_estimate"]


def estimate_command(
    model: ModelName = "mlp",
    *,
    inputs: Inputs = 784,
    classes: Classes = 10,
    hidden: Hidden = "256,256,256,256",
    batch: Batch = 100,
    mode: Annotated[str, typer.Option(help="How layers are trained: bnn or fsb.")] = "bnn",
    latent: LatentOption = "int8",
    freeze: Freeze = 0,
    recompute: RecomputeOption = "never",
    micro_batch: Annotated[
        int | None, typer.Option(min=1, help="Examples at a time; the whole batch unless given.")
    ] = None,
    memory: Memory = None,
    threads: Threads = 1,
    examples: Examples = None,
    dataset: Dataset = None,
    codec: Codec = "luq4",
    examples_per_second: Rate = None,
    watts: Watts = None,
    calibration: Calibration = None,
    base: Base = None,
    json: Json = False,
) -> None:
    """Say what one plan will use: memory part by part, and time and energy where known.

    MODEL is a name that `edgetrain plan --help` lists or a file of a model's JSON. With --memory,
    also says whether the plan fits.
    """
    rate = examples_per_second
    device = device_of(memory, threads, rate, watts, base, calibration=calibration)
    compiled = plan(
        freeze_model(named_model(model, inputs, classes, hidden), freeze),
        batch,
        one_or_any("mode", mode, get_args(Mode))[0],
        latent=latent,
        micro_batch=micro_batch or batch,
        threads=threads,
        recompute=recompute,
    )
    expected = estimate(
        compiled, device, examples=examples, dataset_bytes=size_of(dataset) or 0, codec=codec
    )
    fits = None if device.memory is None else expected.memory.high <= device.memory
    if json:
        told = {"plan": summarise(compiled), **estimate_fields(expected), "fits": fits}
        typer.echo(json_text.dumps(told, indent=2))
        return
    print_estimate(expected, summarise(compiled), device.memory)


def estimate_fields(expected: Estimate) -> dict[str, Any]:
    """Return an estimate as JSON-ready fields; what is unknown is null."""
    return {
        "peak_bytes": expected.peak_bytes,
        "memory": asdict(expected.memory),
        "seconds": asdict(expected.seconds) if expected.seconds else None,
        "energy": asdict(expected.energy) if expected.energy else None,
        "parts": {part.name: part.bytes for part in expected.parts},
        "examples": expected.examples,
        "source": expected.source,
        "energy_source": expected.energy_source,
    }


def print_estimate(expected: Estimate, title: str, allowed: int | None) -> None:
    """Print the parts of an estimate, its intervals, and whether it fits the memory allowed."""
    console = Console(highlight=False)
    console.print(title, style="italic", soft_wrap=True)
    table = Table("part", "bytes", show_footer=True)
    table.columns[1].justify = "right"
    table.columns[0].footer = "peak memory"
    table.columns[1].footer = f"{expected.peak_bytes:,}"
    for part in expected.parts:
        table.add_row(part.name, f"{part.bytes:,}")
    low, high = format_size(expected.memory.low), format_size(expected.memory.high)
    verdict = ""
    if allowed is not None:
        fits = "fits" if expected.memory.high <= allowed else "does not fit"
        verdict = f", {fits} the {format_size(allowed)} allowed"
    console.print(table)
    console.print(f"memory {low} to {high}{verdict}")
    told = f"for {expected.examples} examples"
    console.print(_line("time", expected.seconds, format_seconds, f"{told} ({expected.source})"))
    source = expected.energy_source
    console.print(_line("energy", expected.energy, format_joules, f"{told} ({source})"))


def _line(name: str, interval: Interval | None, show: Callable[[float], str], told: str) -> str:
    if interval is None:
        return f"{name} unknown: see --examples-per-second, --watts and --calibration"
    return f"{name} {show(interval.low)} to {show(interval.high)} {told}"
