"""Time to an accuracy on the watch fleet: rounds that wait for everybody beside buffered ones.

The fleets are examples/watch.toml and examples/watch_async.toml, and the same two with one of the
eight slow devices ten times slower. Time is the fleet's own, which is modelled; training is real.

    python benchmarks/asynchronous_rounds.py    seed 0; a few minutes
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from itertools import accumulate
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from edgetrain.bench.record import write_record
from edgetrain.command import run_command
from edgetrain.config import FleetConfig
from edgetrain.coordinator.simulation.report import SimulationReport
from edgetrain.coordinator.simulation.simulate import simulate

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "asynchronous_rounds.json"
GOALS = (0.60, 0.70, 0.75, 0.78, 0.80)
SLOW_CLASS, TIMES_SLOWER = "pi-zero", 10
DEADLINE = 4.0
"""Seconds: twice what the slow class needs."""


@dataclass(frozen=True)
class Result:
    """One run: when an accuracy was first judged, in seconds by goal, and what that cost."""

    fleet: str
    final_accuracy: float | None
    seconds: float
    reached: dict[str, float | None]
    reports: int
    stale: int
    uplink_bytes: int
    joules: float


def measure(name: str, fleet: FleetConfig) -> Result:
    """Run a fleet and return its result."""
    report = simulate(fleet)
    return Result(
        name,
        report.final_accuracy,
        round(report.virtual_seconds, 1),
        {f"{goal:.0%}": reached(report, goal) for goal in GOALS},
        sum(one.reported for one in report.rounds),
        sum(one.stale for one in report.rounds),
        report.uplink_bytes,
        round(sum(device.joules or 0 for device in report.devices), 1),
    )


def reached(report: SimulationReport, goal: float) -> float | None:
    """Return the fleet's time at which it was first judged this good."""
    times = accumulate(one.seconds for one in report.rounds)
    for time, one in zip(times, report.rounds, strict=True):
        if one.accuracy is not None and one.accuracy >= goal:
            return round(time, 1)
    return None


def with_straggler(fleet: FleetConfig) -> FleetConfig:
    """Return the fleet with one device of the slow class in a slower class of its own."""
    found = []
    for one in fleet.devices:
        if one.name == SLOW_CLASS and one.count:
            speed = one.examples_per_second / TIMES_SLOWER
            found.append(replace(one, count=one.count - 1))
            found.append(replace(one, name="straggler", count=1, examples_per_second=speed))
        else:
            found.append(one)
    return replace(fleet, devices=tuple(found))


def main(
    json: Annotated[Path, typer.Option(help="Where the results go.")] = RESULTS,
) -> None:
    """Measure all fleets, print a table and write the results."""
    waiting = FleetConfig.from_toml(ROOT / "examples" / "watch.toml")
    buffered = FleetConfig.from_toml(ROOT / "examples" / "watch_async.toml")
    slow = with_straggler(waiting)
    in_time = replace(slow, training=replace(slow.training, deadline=DEADLINE))
    fleets = {
        "synchronous": waiting,
        "buffered": buffered,
        "synchronous, straggler": slow,
        f"synchronous, straggler, deadline {DEADLINE:g} s": in_time,
        "buffered, straggler": with_straggler(buffered),
    }
    results = [measure(name, fleet) for name, fleet in fleets.items()]
    goals = [f"{goal:.0%}" for goal in GOALS]
    table = Table("seconds to", *goals, "final", "took", "reports", "joules")
    for one in results:
        times = ["-" if time is None else f"{time:.1f}" for time in one.reached.values()]
        final = "-" if one.final_accuracy is None else f"{one.final_accuracy:.1%}"
        price = (f"{one.seconds:.1f}", str(one.reports), f"{one.joules:.0f}")
        table.add_row(one.fleet, *times, final, *price)
    Console().print(table)
    command = "python benchmarks/asynchronous_rounds.py"
    write_record(json, command, {"fleets": [asdict(one) for one in results]})


if __name__ == "__main__":
    typer_app = typer.Typer(add_completion=False)
    typer_app.command()(main)
    run_command(typer_app)
