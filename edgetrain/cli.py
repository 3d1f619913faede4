"""`edgetrain`: plan, train, simulate, measure."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

from edgetrain.command import fleet_extra, run_command

with fleet_extra("edgetrain"):
    import typer

from edgetrain._version import __version__
from edgetrain.bench.cli import app as bench_app
from edgetrain.data.cli import app as data_app
from edgetrain.freeze import freeze as freeze_model
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
from edgetrain.planner import Plan
from edgetrain.planner import plan as make_plan
from edgetrain.train_command import train

__all__ = ["app", "main"]

app = typer.Typer(
    help="Federated training of binary neural networks inside a memory budget.",
    no_args_is_help=True,
    add_completion=False,
)
app.add_typer(data_app, name="data")
app.add_typer(bench_app, name="bench")


def show_version(wanted: bool) -> None:
    """Print the version and end."""
    if wanted:
        print(f"edgetrain {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=show_version, is_eager=True, help="Show it.")
    ] = False,
) -> None:
    """Federated training of binary neural networks inside a memory budget."""


@app.command("plan")
def plan_command(
    *,
    model: ModelArgument = "mlp",
    inputs: Annotated[int, typer.Option(help="Features of an example.")] = 784,
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
    as_json: Json = False,
) -> None:
    """Show where every byte of a training step lies, before it runs."""
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
    print(json.dumps(plan_fields(chosen)) if as_json else chosen.explain())


app.command()(train)


@app.command()
def simulate(
    config: Annotated[Path, typer.Argument(help="The fleet's TOML file.")],
    report: Annotated[Path | None, typer.Option(help="Write a report there, as HTML.")] = None,
    checkpoints: Annotated[
        Path | None, typer.Option(help="Keep every version there, and go on from the newest.")
    ] = None,
    json_path: Annotated[
        str | None, typer.Option("--json", help="Write JSON there; - is standard output.")
    ] = None,
) -> None:
    """Run a simulated fleet: every device a real worker process, its time and energy modelled."""
    # The fleet brings Flower, which the other commands do without.
    from edgetrain.config import FleetConfig  # noqa: PLC0415
    from edgetrain.coordinator.simulation.simulate import simulate as run  # noqa: PLC0415

    result = run(FleetConfig.from_toml(config), checkpoints=checkpoints, progress=True)
    if report is not None:
        result.to_html(report)
    if json_path == "-":
        print(result.to_json())
        return
    if json_path is not None:
        result.to_json(Path(json_path))
    result.print()
    if report is not None:
        print(f"report: {report}")


def plan_fields(plan: Plan) -> dict[str, object]:
    """Return a plan as JSON-ready fields."""
    return {
        "mode": plan.mode,
        "latent": plan.latent,
        "gradient": plan.gradient.format.name,
        "draws": plan.gradient.draws,
        "batch": plan.batch,
        "micro_batch": plan.micro_batch,
        "threads": plan.threads,
        "peak_bytes": plan.peak_bytes,
        "lower_bound_bytes": plan.lower_bound_bytes,
        "tensors": [
            {
                "name": placement.tensor.name,
                "first": placement.tensor.first,
                "last": placement.tensor.last,
                "offset": placement.offset,
                "bytes": placement.tensor.bytes,
            }
            for placement in plan.placements
        ],
    }


def main() -> None:
    """Run the command line."""
    run_command(app)
