"""`edgetrain-profile inference`: how fast this machine infers, and how efficiently."""

from __future__ import annotations

import json as json_text
from dataclasses import asdict
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from edgetrain.errors import ConfigError
from edgetrain.examples import random_examples
from edgetrain.memory_profiler.budget import Interval
from edgetrain.memory_profiler.choose import summarise
from edgetrain.memory_profiler.energy.law import SIMULATED
from edgetrain.memory_profiler.energy.meter import Meter, open_meter
from edgetrain.memory_profiler.inference import GIVEN, InferenceReport, measure_inference
from edgetrain.memory_profiler.meters_cli import KINDS
from edgetrain.models.named import named_model
from edgetrain.options import Hidden, Json, LatentOption, ModelArgument, ModeOption, Threads
from edgetrain.planner import plan
from edgetrain.train import Trainer

__all__ = ["inference_command"]

MEASURES = {
    "inferences_per_second": "inferences/s",
    "watts": "W",
    "inferences_per_second_per_watt": "inferences/s/W",
    "millijoules_per_inference": "mJ/inference",
}
"""Properties of a report, and the units that they have in a table."""


def inference_command(
    model: ModelArgument = "mlp",
    *,
    inputs: Annotated[int, typer.Option(help="Features of an example, for mlp.")] = 784,
    classes: Annotated[int, typer.Option(help="Classes, for a model by name.")] = 10,
    hidden: Hidden = "256,256,256,256",
    mode: ModeOption = "bnn",
    latent: LatentOption = "int8",
    batch: Annotated[int, typer.Option(min=1, help="Examples that are inferred at a time.")] = 100,
    threads: Threads = 1,
    seconds: Annotated[float, typer.Option(help="Seconds to measure.")] = 3.0,
    watts: Annotated[
        float | None, typer.Option(help="Power that the machine draws meanwhile, if known.")
    ] = None,
    meter: Annotated[
        str | None,
        typer.Option(help="One of `edgetrain-profile meters`; the first that works unless given."),
    ] = None,
    json: Json = False,
) -> None:
    """Measure the forward pass of a model on this machine, over random examples.

    MODEL is a name that `edgetrain plan --help` lists or a file of a model's JSON.

    Inferences a second, watts, inferences a second a watt and millijoules an inference all follow
    from one count, one time and one energy. The time is measured. So is the energy where a meter
    works (see `edgetrain-profile meters`); --watts models it from a power that you know. Without
    either it is unknown.
    """
    counting = _meter(meter, watts)
    compiled = plan(
        named_model(model, inputs, classes, hidden),
        batch,
        mode,
        latent=latent,
        micro_batch=batch,
        threads=threads,
    )
    trainer = Trainer(compiled)
    x, y = random_examples(compiled.model.input_features, compiled.model.classes, batch)
    report = measure_inference(trainer, x, y, seconds, meter=counting)
    if watts is not None:
        report = report.powered(watts)
    title = f"{model}: {summarise(compiled)}, {trainer.isa}"
    if json:
        typer.echo(json_text.dumps({"plan": title, **report_fields(report)}, indent=2))
        return
    console = Console(highlight=False)
    console.print(title)
    console.print(report_table(report))
    console.print(f"{report.inferences:,} inferences in {interval_text(report.seconds)} s")
    console.print(energy_text(report))


def _meter(name: str | None, watts: float | None) -> Meter | None:
    """Return the meter that is named or, unless a power is given, the first that measures here."""
    if name is None:
        return open_meter().meter if watts is None else None
    if watts is not None:
        raise ConfigError(f"--watts and --meter {name} both say what is drawn: give one of them")
    opened = open_meter((name,))
    if opened.meter is None:
        raise ConfigError(f"meter {name} does not work here: {opened.obstacles[name]}")
    return opened.meter


def report_fields(report: InferenceReport) -> dict[str, Any]:
    """Return a report as JSON-ready fields; what is unknown is null."""
    measures = {name: getattr(report, name) for name in MEASURES}
    return {
        **asdict(report),
        **{name: None if found is None else asdict(found) for name, found in measures.items()},
    }


def report_table(report: InferenceReport) -> Table:
    """Return a report as a table of a measure a row."""
    table = Table(show_header=False)
    table.add_column()
    table.add_column(justify="right")
    for name, unit in MEASURES.items():
        table.add_row(unit, interval_text(getattr(report, name)))
    return table


def energy_text(report: InferenceReport) -> str:
    """Return where the energy comes from, or what would make it known."""
    if report.joules is None:
        return "energy unknown: no meter tells it here; give --watts if you know the power"
    if report.joules_scope == SIMULATED:
        return f"energy {SIMULATED}: no machine has used it"
    if report.joules_source == GIVEN:
        return "energy modelled, from the power given"
    return f"energy of the {report.joules_scope}: {KINDS[report.joules_source]}"


def interval_text(found: Interval | None) -> str:
    """Return the bounds as people read them, one where both are equal, "unknown" without any."""
    if found is None:
        return "unknown"
    low, high = (significant(bound) for bound in (found.low, found.high))
    return low if low == high else f"{low} to {high}"


def significant(value: float) -> str:
    """Return a number in four significant digits, never as a power of ten."""
    return f"{value:,.0f}" if value >= 1000 else f"{value:.4g}"
