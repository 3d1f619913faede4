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
from edgetrain.bench.roofline import Roofline
from edgetrain.bench.roofline import roofline as measure_roofline
from edgetrain.bench.step import Comparison, StepReport, compare
from edgetrain.gradient import GRADIENT
from edgetrain.models import MODELS
from edgetrain.options import Draws, GradientOption, ModeOption
from edgetrain.sizes import format_size

__all__ = ["app"]

app = typer.Typer(
    help="Measure a training step against a rival or the machine.", no_args_is_help=True
)


@app.callback()
def bench() -> None:
    """Measure a training step against a rival or the machine."""


@app.command()
def step(  # noqa: PLR0917 - a command's options, given by name
    network: Annotated[str, typer.Argument(help=f"The network: {', '.join(MODELS)}.")] = "mlp",
    batch: Annotated[int, typer.Option(help="Examples a step.")] = 100,
    threads: Annotated[int, typer.Option(help="Threads of either side.")] = 1,
    against: Annotated[str, typer.Option(help="The rival: torch, or none.")] = "torch",
    mode: Annotated[str, typer.Option(help="How ours trains: bnn or fsb.")] = "bnn",
    gradient: GradientOption = "luq4",
    draws: Draws = 1,
    recompute: Annotated[
        str, typer.Option(help="Whether ours computes things again for memory: always or never.")
    ] = "never",
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
    request = Request(
        network,
        batch,
        threads,
        seconds=seconds,
        mode=mode,
        gradient=gradient,
        draws=draws,
        recompute=recompute,
    )
    comparison = Comparison(request, against, pairs, limit)
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
        if (gradient, draws) != (GRADIENT.format.name, GRADIENT.draws):
            command += f" --gradient {gradient} --draws {draws}"
        if recompute != "never":
            command += f" --recompute {recompute}"
        write_record(Path(json), f"{command} --mode {mode} --against {against}", asdict(report))
    Console().print(step_table(report))


def step_table(report: StepReport) -> Table:
    """Return the report as a table."""
    threads = "1 thread" if report.threads == 1 else f"{report.threads} threads"
    trained = f"{report.mode}, {report.gradient}"
    table = Table(
        title=f"{report.network}, {trained}, batch {report.batch}, {threads}, {report.isa}, "
        f"recompute {report.recompute}",
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


@app.command()
def roofline(  # noqa: PLR0917 - a command's options, given by name
    network: Annotated[str, typer.Argument(help=f"The network: {', '.join(MODELS)}.")] = "mlp",
    batch: Annotated[int, typer.Option(help="Examples a step.")] = 100,
    threads: Annotated[int, typer.Option(help="Threads of the step and of the limits.")] = 1,
    mode: ModeOption = "bnn",
    seconds: Annotated[float, typer.Option(help="Seconds to measure.")] = 5.0,
    json: Annotated[
        str | None, typer.Option("--json", help="Write JSON there; - is standard output.")
    ] = None,
) -> None:
    """Hold every layer of a training step against the processor's int8 and popcount limits."""
    report = measure_roofline(network, batch, threads, mode, seconds)
    if json == "-":
        typer.echo(report.to_json())
        return
    if json is not None:
        command = f"edgetrain bench roofline {network} --batch {batch} --threads {threads}"
        write_record(Path(json), f"{command} --mode {mode}", asdict(report))
    Console().print(roofline_table(report))


def roofline_table(report: Roofline) -> Table:
    """Return the report as a table."""
    limits = report.limits
    table = Table(
        title=f"{report.network}, {report.mode}, batch {report.batch}, {report.threads} "
        f"thread{'s' if report.threads > 1 else ''}, {report.isa}",
        caption=f"the fastest of {report.steps} steps; limits, 10^9/s: "
        f"int8 dot {limits.int8_dot / 1e9:.0f}, popcount {limits.popcount / 1e9:.0f}",
    )
    for name in ("layer", "", "phase"):
        table.add_column(name)
    for name in ("ms", "10^9/s", "limit", "share"):
        table.add_column(name, justify="right")
    for row in report.rows:
        opening = row.phase == "forward"
        named = (str(row.layer), row.op) if opening else ("", "")
        figures = list[str]()
        if row.limit and row.per_second and row.share:
            figures = [f"{row.per_second / 1e9:.0f}", row.limit, f"{row.share:.0%}"]
        table.add_row(*named, row.phase, f"{row.ms:.3f}", *figures)
    table.add_row("", "", "whole step", f"{report.step_ms:.3f}", "", "", f"{report.share:.0%}")
    return table
