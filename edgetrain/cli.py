"""`edgetrain`: plan, train, simulate, measure."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from edgetrain.command import fleet_extra, run_command

with fleet_extra("edgetrain"):
    import typer

from edgetrain._version import __version__
from edgetrain.bench.cli import app as bench_app
from edgetrain.data.cli import app as data_app
from edgetrain.export_command import export
from edgetrain.plan_command import plan
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


app.command()(plan)
app.command()(train)
app.command()(export)


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


def main() -> None:
    """Run the command line."""
    run_command(app)
