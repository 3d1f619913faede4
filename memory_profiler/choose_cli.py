"""`edgetrain-profile choose`: the plan that learns most inside a budget, and why not the others."""

from __future__ import annotations

import json as json_text
from dataclasses import asdict
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.padding import Padding
from rich.text import Text

from edgetrain.errors import ConfigError
from edgetrain.memory_profiler.budget import Budget
from edgetrain.memory_profiler.choose import MODES, Choice, choose
from edgetrain.memory_profiler.estimate_cli import estimate_fields, print_estimate
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
from edgetrain.ops.weights import LATENTS

__all__ = ["choose_command"]

TRAINABLE = {"any": 1, "all": None}


def choose_command(
    model: ModelName = "mlp",
    *,
    inputs: Inputs = 784,
    classes: Classes = 10,
    hidden: Hidden = "256,256,256,256",
    batch: Batch = 100,
    mode: Annotated[str, typer.Option(help="bnn, fsb, or any to choose.")] = "any",
    latent: Annotated[
        str, typer.Option(help=f"{', '.join(LATENTS)}, or any; a fleet averages int8 alone.")
    ] = "any",
    trainable: Annotated[
        str, typer.Option(help="Layers that must train at least: a number, all, or any.")
    ] = "any",
    partial: Annotated[
        bool, typer.Option("--partial", help="A round may end early, when joules or time run out.")
    ] = False,
    memory: Memory = None,
    energy: Annotated[str | None, typer.Option(help="Most energy a round, e.g. 20J.")] = None,
    seconds: Annotated[str | None, typer.Option(help="Most time a round, e.g. 2min.")] = None,
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
    """Pick the plan that learns most inside a budget, with a reason for every other.

    MODEL is a name that `edgetrain plan --help` lists or a file of a model's JSON.

    A plan is worth its examples times the layers that they train; of those that are worth alike the
    one is taken that costs fewest joules, seconds or operations, whichever are known.
    """
    budget = Budget.parse(memory, energy, seconds)
    choice = choose(
        named_model(model, inputs, classes, hidden),
        budget,
        device_of(None, threads, examples_per_second, watts, base, calibration=calibration),
        batch=batch,
        modes=one_or_any("mode", mode, MODES),
        latents=one_or_any("latents", latent, LATENTS),
        fewest_trained=fewest_of(trainable),
        partial=partial,
        examples=examples,
        dataset_bytes=size_of(dataset) or 0,
        codec=codec,
    )
    if json:
        typer.echo(json_text.dumps(choice_fields(choice), indent=2))
        return
    print_estimate(choice.estimate, f"chosen: {summarise(choice.plan)}", budget.memory)
    print_choice(choice, budget)


def fewest_of(trainable: str) -> int | None:
    """Return the fewest layers that must train, None for all. Raises ConfigError for no number."""
    if trainable in TRAINABLE:
        return TRAINABLE[trainable]
    if not (trainable.isascii() and trainable.isdecimal()):
        raise ConfigError(f"--trainable {trainable!r} is no number of layers: write 3, all or any")
    return int(trainable)


def print_choice(choice: Choice, budget: Budget) -> None:
    """Print what the choice teaches and costs, and every other plan with what would make it fit."""
    console = Console(highlight=False)
    console.print(f"{choice.objective()}\n", soft_wrap=True)
    total = sum(other.plans for other in choice.rejected)
    console.print(f"not chosen: {total:,} plans, with {budget.describe()} allowed", style="italic")
    for other in choice.rejected:
        console.print(Text(other.plan, style="bold"))
        console.print(Padding(other.reason, (0, 0, 0, 4)))
        if other.cures:
            cures = ", or ".join(other.cures)
            console.print(Padding(f"would fit with (cheapest first) {cures}", (0, 0, 0, 4)))


def choice_fields(choice: Choice) -> dict[str, Any]:
    """Return a choice as JSON-ready fields; what is unknown is null."""
    plan = choice.plan
    return {
        "plan": {
            "mode": plan.mode,
            "latent": plan.latent,
            "batch": plan.batch,
            "micro_batch": plan.micro_batch,
            "threads": plan.threads,
            "layers_frozen": plan.model.lowest_trained,
            "remade": sorted(plan.remade),
            "streamed": sorted(plan.streamed),
            "arena_bytes": plan.peak_bytes,
        },
        "asked": choice.asked,
        "layers_taught": choice.layers_taught,
        "cost": {"value": choice.cost, "unit": choice.cost_unit},
        "estimate": estimate_fields(choice.estimate),
        "rejected": [asdict(other) for other in choice.rejected],
    }
