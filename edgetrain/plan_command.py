"""`edgetrain plan`: where every byte of a training step lies, before it runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from edgetrain.freeze import freeze as freeze_model
from edgetrain.larger import larger_plans
from edgetrain.models.named import named_model
from edgetrain.options import (
    Batch,
    Draws,
    Freeze,
    GradientOption,
    Hidden,
    Json,
    LatentOption,
    Memory,
    ModelArgument,
    ModeOption,
    Outer,
    RecomputeOption,
    Threads,
)
from edgetrain.page.arena import render
from edgetrain.plan_report import print_larger, print_plan
from edgetrain.planner import Plan
from edgetrain.planner import plan as make_plan
from edgetrain.sizes import parse_size
from edgetrain.storage import replace_file
from edgetrain.timeline import PURPOSES, owners, peak, timeline

__all__ = ["plan"]


def plan(
    *,
    model: ModelArgument = "mlp",
    inputs: Annotated[int, typer.Option(help="Features of an example, for mlp.")] = 784,
    classes: Annotated[int, typer.Option(help="Classes to tell apart.")] = 10,
    hidden: Hidden = "256,256,256,256",
    first: Outer = "auto",
    last: Outer = "int8",
    mode: ModeOption = "bnn",
    latent: LatentOption = "int8",
    freeze: Freeze = 0,
    gradient: GradientOption = "luq4",
    draws: Draws = 1,
    batch: Batch = 100,
    threads: Threads = 1,
    memory: Memory = None,
    recompute: RecomputeOption = "auto",
    tensors: Annotated[bool, typer.Option("--tensors", help="List every tensor as well.")] = False,
    html: Annotated[
        Path | None, typer.Option(help="Draw the arena there: time across, offset upwards.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Show where every byte of a training step lies, before it runs.

    A table has what each layer holds at most, a chart what is alive at each step.
    """
    built = named_model(model, inputs, classes, hidden, first=first, last=last)
    chosen = make_plan(
        freeze_model(built, freeze),
        batch,
        mode,
        latent=latent,
        gradient=gradient,
        draws=draws,
        threads=threads,
        memory=memory,
        recompute=recompute,
    )
    if html is not None:
        replace_file(html, [render(chosen, model).encode("utf-8")])
    larger = [] if memory is None else larger_plans(chosen, recompute)
    if as_json:
        told = [plan_choice(other) for other in larger]
        print(json.dumps(plan_fields(chosen) | {"larger": told}))
        return
    if tensors:
        print(chosen.explain())
    console = Console(highlight=False)
    print_plan(chosen, console)
    if memory is not None:
        print_larger(chosen, larger, parse_size(memory), console)
    if html is not None:
        print(f"arena: {html}")


def plan_choice(plan: Plan) -> dict[str, Any]:
    """Return what the planner has chosen itself, and the arena that comes of it."""
    return {
        "micro_batch": plan.micro_batch,
        "remade": sorted(plan.remade),
        "streamed": sorted(plan.streamed),
        "gathered": plan.gathered,
        "peak_bytes": plan.peak_bytes,
    }


def plan_fields(plan: Plan) -> dict[str, Any]:
    """Return a plan as JSON-ready fields."""
    moments, owner = timeline(plan), owners(plan)
    return {
        "mode": plan.mode,
        "latent": plan.latent,
        "gradient": plan.gradient.format.name,
        "draws": plan.gradient.draws,
        "batch": plan.batch,
        "threads": plan.threads,
        **plan_choice(plan),
        "lower_bound_bytes": plan.lower_bound_bytes,
        "peak_step": peak(moments).step,
        "steps": [
            {
                "step": moment.step,
                "name": moment.name,
                "alive_bytes": moment.bytes,
                **{purpose: moment.used(purpose) for purpose in PURPOSES},
            }
            for moment in moments
        ],
        "tensors": [
            {
                "name": placement.tensor.name,
                "purpose": owner[placement.tensor.name].purpose,
                "first": placement.tensor.first,
                "last": placement.tensor.last,
                "offset": placement.offset,
                "bytes": placement.tensor.bytes,
            }
            for placement in plan.placements
        ],
    }
