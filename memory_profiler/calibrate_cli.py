"""`edgetrain-profile calibrate`: what a machine draws, and what an operation and a byte cost it."""

from __future__ import annotations

import json as json_text
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import fmean
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table

from edgetrain.errors import ConfigError
from edgetrain.memory_profiler.budget import format_joules
from edgetrain.memory_profiler.calibrate import Instruments, Schedule, Tally, run_suite
from edgetrain.memory_profiler.energy.fit_file import Runs, load_runs, save_fit, save_runs
from edgetrain.memory_profiler.energy.fitting import Run, fit_runs
from edgetrain.memory_profiler.energy.law import EnergyFit
from edgetrain.memory_profiler.energy.meter import MEASURING, Meter, open_meter
from edgetrain.memory_profiler.meters_cli import Root
from edgetrain.options import Json, Threads

__all__ = ["calibrate_command"]

AUTO, NONE = "auto", "none"
CHOICES = (AUTO, *MEASURING, "fake", NONE)
OUTSIDE_METER, OUTSIDE_SCOPE = "outside", "system"
"""What runs say of a meter that a person reads, until that person says something better."""
BY_HAND = (
    "hold a meter to its plug: calibrate --meter none --seconds 60 --save-runs FILE, write the "
    "joules of each run into FILE, then calibrate --readings FILE"
)
NO_PROOF = "simulated: this proves the procedure, and says nothing about this machine"


def calibrate_command(
    *,
    meter: Annotated[
        str,
        typer.Option(
            help=f"What tells joules: {', '.join(CHOICES)}. auto takes the first that measures, "
            "fake simulates, none leaves joules to be written in."
        ),
    ] = AUTO,
    readings: Annotated[
        Path | None, typer.Option(help="Fit the runs in this file, and run nothing.")
    ] = None,
    save_runs_to: Annotated[
        Path | None, typer.Option("--save-runs", help="Keep the runs in this file.")
    ] = None,
    out: Annotated[Path, typer.Option(help="The file for the fit.")] = Path("energy.json"),
    seconds: Annotated[float, typer.Option(min=0.01, help="Length of a run.")] = 2.0,
    repeats: Annotated[int, typer.Option(min=1, help="Runs of each workload.")] = 6,
    threads: Threads = 1,
    root: Root = Path("/"),
    json: Json = False,
) -> None:
    """Fit E = P t + e_op operations + e_byte bytes to this machine, and keep the fit.

    Five workloads take turns: idle, a copy of memory, large and thin products, and depthwise
    convolutions. Leave the machine alone meanwhile. The fit is refused where the runs do not tell
    time, operations and bytes apart. docs/energy.md has the whole protocol.

    Exit code 11: no meter works here. Exit code 12: the readings allow no fit.
    """
    if readings is not None:
        told = load_runs(readings)
    else:
        if meter == NONE and save_runs_to is None:
            raise ConfigError("--meter none measures no joules: name a file with --save-runs")
        tally = Tally()
        instruments = Instruments(find_meter(meter, tally, root), tally)
        told = measured(Schedule(seconds, repeats, threads), instruments)
        if save_runs_to is not None:
            save_runs(save_runs_to, told.runs, told.meter, told.scope)
        if meter == NONE:
            say_what_is_missing(told, save_runs_to, json)
            return
    fit = fit_runs(told.runs, told.meter, told.scope)
    save_fit(out, fit)
    if json:
        fields = asdict(fit) | {"simulated": fit.simulated, "path": str(out)}
        told_runs = [run.to_fields() for run in told.runs]
        typer.echo(json_text.dumps(fields | {"measured": told_runs}, indent=2))
        return
    show(told.runs, fit, out)


def measured(schedule: Schedule, instruments: Instruments) -> Runs:
    """Run the suite, with a bar of how far it is."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    runs: list[Run] = []
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("starting", total=schedule.runs)

        def starting(workload: str) -> None:
            progress.update(task, description=workload)

        for run in run_suite(schedule, instruments, starting):
            runs.append(run)
            progress.advance(task)
    meter = instruments.meter
    if meter is None:
        return Runs(tuple(runs), OUTSIDE_METER, OUTSIDE_SCOPE)
    return Runs(tuple(runs), meter.name, meter.scope)


def find_meter(name: str, tally: Tally, root: Path) -> Meter | None:
    """Return the meter of that name, or the first that measures; None where none is wanted.

    Raises ConfigError, with what stands in each meter's way, where none works.
    """
    if name not in CHOICES:
        raise ConfigError(f"--meter {name!r} is unknown: choose one of {', '.join(CHOICES)}")
    if name == NONE:
        return None
    opened = open_meter(MEASURING if name == AUTO else (name,), root, work=tally)
    if opened.meter is None:
        reasons = "; ".join(f"{meter}: {reason}" for meter, reason in opened.obstacles.items())
        raise ConfigError(f"no meter works here ({reasons}): {BY_HAND}")
    return opened.meter


def say_what_is_missing(told: Runs, path: Path | None, json: bool) -> None:
    """Print where the runs are that somebody has to write joules into."""
    if json:
        fields = {"runs": len(told.runs), "path": str(path), "fit": None}
        typer.echo(json_text.dumps(fields, indent=2))
        return
    Console(highlight=False).print(
        f"{len(told.runs)} runs are in {path}: write the joules that the meter counted into each, "
        f"then edgetrain-profile calibrate --readings {path}",
        soft_wrap=True,
    )


def show(runs: Sequence[Run], fit: EnergyFit, out: Path) -> None:
    """Print how the law fits each workload, and what it says."""
    table = Table(title=f"{len(runs)} runs, joules of {fit.meter} ({fit.scope})")
    table.add_column("workload")
    for name in ("seconds", "operations", "bytes", "measured", "by the law", "off by"):
        table.add_column(name, justify="right")
    for workload in dict.fromkeys(run.workload for run in runs):
        table.add_row(*row_of(workload, [run for run in runs if run.workload == workload], fit))
    law, console = fit.law, Console(highlight=False)
    console.print(table)
    console.print(
        f"static {law.static_watts:.3g} W, {1e12 * law.joules_per_operation:.3g} pJ an operation, "
        f"{1e12 * law.joules_per_byte:.3g} pJ a byte; single runs scatter by "
        f"{fit.relative_error:.1%}, condition number {fit.condition:.1f}",
        soft_wrap=True,
    )
    if fit.simulated:
        console.print(f"[bold]{NO_PROOF}[/bold]", soft_wrap=True)
    console.print(f"the fit is in {out}", soft_wrap=True)


def row_of(workload: str, runs: Sequence[Run], fit: EnergyFit) -> tuple[str, ...]:
    """Return the means of a workload's runs, and how far the law is off them."""
    joules = fmean(run.joules or 0.0 for run in runs)
    modelled = fmean(fit.law.joules(run.usage) for run in runs)
    return (
        workload,
        f"{fmean(run.usage.seconds for run in runs):.2f}",
        f"{fmean(run.usage.operations for run in runs):.3g}",
        f"{fmean(run.usage.bytes_moved for run in runs):.3g}",
        format_joules(joules),
        format_joules(modelled),
        f"{modelled / joules - 1:+.1%}",
    )
