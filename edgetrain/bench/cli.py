"""`edgetrain bench`: the commands that measure."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table

from edgetrain.bench.measure import Request
from edgetrain.bench.record import write_record
from edgetrain.bench.step import Comparison, StepReport, compare
from edgetrain.models import MODELS
from edgetrain.sizes import format_size

__all__ = ["app"]

app = typer.Typer(help="Measure a training step against a rival.", no_args_is_help=True)


@app.callback()
def bench() -> None:
    """Measure a training step against a rival."""


@app.command()
def step(  # noqa: PLR0917 - a command's options, given by name
    network: Annotated[str, typer.Argument(help=f"The network: {', '.join(MODELS)}.")] = "mlp",
    batch: Annotated[int, typer.Option(help="Examples a step.")] = 100,
    threads: Annotated[int, typer.Option(help="Threads of either side.")] = 1,
    against: Annotated[str, typer.Option(help="The rival: torch, or none.")] = "torch",
    mode: Annotated[str, typer.Option(help="How ours trains: bnn or fsb.")] = "bnn",
    pairs: Annotated[int, typer.Option(help="Fresh processes of each side, in turn.")] = 5,
    seconds: Annotated[float, typer.Option(help="Seconds to time in each process.")] = 1.0,
    limit: Annotated[
        float, typer.Option(help="Seconds after which no further pair of processes begins.")
    ] = 600.0,
    json: Annotated[
        str | None, typer.Option("--json", help="Write JSON there; - is standard output.")
    ] = None,
) -> None:
    """Time one training step, and the growth of peak memory, in fresh processes."""
    comparison = Comparison(
        Request(network, batch, threads, seconds=seconds, mode=mode), against, pairs, limit
    )
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("starting", total=comparison.processes)
        begun = 0

        def tick(what: str) -> None:
            nonlocal begun
            progress.update(task, description=what, completed=begun)
            begun += 1

        report = compare(comparison, tick)
    if json == "-":
        typer.echo(report.to_json())
        return
    if json is not None:
        command = f"edgetrain bench step {network} --batch {batch} --threads {threads}"
        write_record(Path(json), f"{command} --mode {mode} --against {against}", asdict(report))
    Console().print(step_table(report))


def step_table(report: StepReport) -> Table:
    """Return the report as a table."""
    threads = "1 thread" if report.threads == 1 else f"{report.threads} threads"
    table = Table(
        title=f"{report.network}, {report.mode}, batch {report.batch}, {threads}, {report.isa}",
        caption=f"medians of {report.pairs} fresh processes of each side, in turn",
    )
    for name in ("", "step", "peak memory, growth"):
        table.add_column(name, justify="left" if not name else "right")
    ours, rival = report.ours, report.torch
    table.add_row("ours", f"{ours.step_ms:.3f} ms", format_size(ours.peak_growth_bytes))
    table.add_row("  planned", "", format_size(ours.planned_bytes))
    if rival is not None:
        table.add_row(
            f"torch float32 BNN\n  fastest: {rival.variant}\n  leanest: {rival.peak_variant}",
            f"{rival.step_ms:.3f} ms",
            format_size(rival.peak_growth_bytes),
        )
        table.add_row(
            "torch / ours", f"{report.ratio['step']:.1f}x", f"{report.ratio['peak']:.1f}x"
        )
    table.add_row("ours / planned", "", f"{report.ratio['planned']:.3f}")
    return table
