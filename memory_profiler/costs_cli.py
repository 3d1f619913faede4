"""`edgetrain-profile costs`: what every layer of a model costs."""

from __future__ import annotations

import json as json_text
from dataclasses import asdict
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from edgetrain.freeze import freeze as freeze_model
from edgetrain.memory_profiler.choose import summarise
from edgetrain.memory_profiler.costs import Cost, Costs, costs
from edgetrain.memory_profiler.reference_networks import ReferenceNetwork, pokebnn, resnet50
from edgetrain.models.named import named_model
from edgetrain.options import (
    Batch,
    Freeze,
    Hidden,
    Json,
    LatentOption,
    Memory,
    ModelArgument,
    ModeOption,
)
from edgetrain.planner import plan
from edgetrain.sizes import format_size

__all__ = ["costs_command"]

PREFIXES = ((1e9, "G"), (1e6, "M"), (1e3, "k"))


def costs_command(
    model: ModelArgument = "mlp",
    *,
    inputs: Annotated[int, typer.Option(help="Features of an example, for mlp.")] = 784,
    classes: Annotated[int, typer.Option(help="Classes, for a model by name.")] = 10,
    hidden: Hidden = "256,256,256,256",
    mode: ModeOption = "bnn",
    latent: LatentOption = "int8",
    freeze: Freeze = 0,
    batch: Batch = 100,
    memory: Memory = None,
    json: Json = False,
) -> None:
    """Count what every layer costs: multiply-accumulates, ACE, operations, bytes moved.

    MODEL is a name that `edgetrain plan --help` lists or a file of a model's JSON.

    Multiply-accumulates and ACE are those of an inference. ACE weighs each by the bits of its
    weight times those of its activation, as the PokeBNN paper does, and leaves out work on single
    elements. Operations and bytes are those of one training step on a micro-batch, as the ops
    declare them: they are counted, not measured.
    """
    built = freeze_model(named_model(model, inputs, classes, hidden), freeze)
    compiled = plan(built, batch, mode, latent=latent, memory=memory)
    counted, references = costs(compiled), (resnet50(), pokebnn())
    title = f"{model}: {summarise(compiled)}"
    if json:
        fields = {"plan": title, **costs_fields(counted, references)}
        typer.echo(json_text.dumps(fields, indent=2))
        return
    console = Console(highlight=False)
    console.print(costs_table(title, counted))
    for reference in references:
        times = reference.ace / counted.total.ace
        console.print(f"{reference.name}: {reference.ace:,} ACE, {times:,.1f} times this model's")


def costs_fields(counted: Costs, references: tuple[ReferenceNetwork, ...]) -> dict[str, Any]:
    """Return the costs as JSON-ready fields."""
    return {
        "layers": [
            {"layer": layer.layer, "ops": list(layer.ops), **cost_fields(layer.cost)}
            for layer in counted.layers
        ],
        "total": cost_fields(counted.total),
        "references": {reference.name: reference.ace for reference in references},
    }


def cost_fields(cost: Cost) -> dict[str, Any]:
    """Return one cost as JSON-ready fields."""
    return {
        **asdict(cost),
        "bytes_moved": cost.arithmetic.bytes_moved,
        "bytes_per_example": cost.bytes_per_example,
        "operations_per_byte": cost.intensity,
    }


def costs_table(title: str, counted: Costs) -> Table:
    """Return a table of a layer a row, and their sum."""
    total = counted.total
    table = Table(
        title=title,
        caption="a layer with its pooling, normalisation and sign; MACs and ACE of an inference, "
        "operations and bytes of a training step",
        show_footer=True,
    )
    table.add_column("layer", "sum", no_wrap=True)
    for name, foot in zip(
        ("MACs", "ACE", "share", "operations", "bytes", "share"),
        cost_cells(total, total),
        strict=True,
    ):
        table.add_column(name, foot, justify="right")
    for layer in counted.layers:
        table.add_row(f"{layer.layer}  {layer.ops[0]}", *cost_cells(layer.cost, total))
    return table


def cost_cells(cost: Cost, total: Cost) -> tuple[str, ...]:
    """Return a cost and its shares of the total as a row has them."""
    moved = cost.arithmetic.bytes_moved
    return (
        format_count(cost.multiply_accumulates),
        format_count(cost.ace),
        f"{cost.ace / total.ace:.1%}",
        format_count(cost.arithmetic.operations),
        format_size(moved),
        f"{moved / total.arithmetic.bytes_moved:.1%}",
    )


def format_count(count: float) -> str:
    """Return a count in three digits or more, e.g. "151 M"."""
    for unit, prefix in PREFIXES:
        if count >= unit:
            scaled = count / unit
            return f"{scaled:,.{0 if scaled >= 100 else 2}f} {prefix}"
    return f"{count:g}"
