"""A fleet that learns from watches: ours beside float32 federated averaging in torch.

The fleet is examples/watch_mlp.toml: a device is one subject's one side; subjects 3, 6 and 9 are
held out. Every contestant has the same schedule: rounds, local epochs, batch, all devices in every
round, updates weighted by examples, the learning rate falling linearly over the rounds and
constant within one. Ours runs through `edgetrain simulate`, on devices without limits, so that
nobody is left out. Rivals average float32 weights and batch norm statistics; their optimizers
start anew in every round, as ours does.

    python benchmarks/federated_watch.py            three seeds
    python benchmarks/federated_watch.py --quick    one seed, five rounds, nothing written
"""

from __future__ import annotations

import json as json_module
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from pathlib import Path
from statistics import fmean
from time import perf_counter
from typing import Annotated, Literal

import numpy as np
import torch
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from torch import Tensor, nn

from edgetrain.bench import rival
from edgetrain.bench.record import write_record
from edgetrain.command import run_command
from edgetrain.config import DeviceConfig, FleetConfig
from edgetrain.coordinator.simulation.simulate import simulate
from edgetrain.data import Dataset, Splits, load
from edgetrain.data.partition import partition

ROOT = Path(__file__).parents[1]
FLEET = ROOT / "examples" / "watch_mlp.toml"
RESULTS = ROOT / "benchmarks" / "results" / "federated_watch.json"
QUICK_ROUNDS = 5
TEST_SUBJECTS = (3, 6, 9)
UNLIMITED = DeviceConfig.from_table({"name": "unlimited", "memory": "1GiB"})
FULL_SCALE = 127.0
"""int8 data as float: the range becomes [-1, 1]."""


@dataclass(frozen=True)
class Result:
    """One run: accuracy after every round (0 to 1), bytes a device sends in a round, seconds."""

    accuracy: list[float]
    update_bytes: int
    seconds: float


@dataclass(frozen=True)
class Row:
    """One contestant over all seeds."""

    contestant: str
    bits_up: float
    runs: list[Result]

    @property
    def finals(self) -> list[float]:
        """The accuracy after the last round, a value a seed."""
        return [run.accuracy[-1] for run in self.runs]

    def mean_after(self, share: float) -> float:
        """The mean accuracy after that share of the rounds."""
        return fmean(run.accuracy[round(share * len(run.accuracy)) - 1] for run in self.runs)


@dataclass(frozen=True)
class Averaged:
    """A rival: its network, and the learning rate of Adam on a device.

    The rates are the best of a scan on pairs of held-out training subjects, under the schedule of
    examples/watch_mlp.toml: 1e-3 and 3e-3 (and 1e-2 at first) for the binary nets; 3e-4, 1e-3,
    3e-3, and SGD with momentum at 0.02, 0.03 and 0.1, for the net that is not binary.
    """

    make: Callable[[Sequence[int]], nn.Sequential]
    learning_rate: float


def outer_float_mlp(widths: Sequence[int]) -> nn.Sequential:
    """Return the binary network whose first and last weights are float32, as ours are int8."""
    return rival.binary_mlp(widths, first_binary=False, last_binary=False)


BNNS = {
    "float32 FedAvg, same BNN": Averaged(outer_float_mlp, 3e-3),
    "float32 FedAvg, all binary": Averaged(rival.binary_mlp, 3e-3),
}
RIVALS = {**BNNS, "float32 FedAvg, not binary": Averaged(rival.float_mlp, 3e-4)}
OURS: dict[str, Literal["bnn", "fsb"]] = {"ours, bnn": "bnn", "ours, fsb": "fsb"}


def run_ours(fleet: FleetConfig, mode: Literal["bnn", "fsb"], seed: int) -> Result:
    """Simulate the fleet in one mode, every device without limits."""
    report = simulate(
        replace(
            fleet,
            model=replace(fleet.model, mode=mode),
            training=replace(fleet.training, seed=seed, fraction=1.0, evaluate_every=1),
            devices=(UNLIMITED,),
        )
    )
    accuracy = [value for value in report.accuracy if value is not None]
    return Result(accuracy, report.update_bytes, report.seconds)


def run_averaged(fleet: FleetConfig, splits: Splits, chosen: Averaged, seed: int) -> Result:
    """Run float32 federated averaging under the fleet's schedule."""
    start = perf_counter()
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    widths = (splits.train.feature_count, *fleet.model.hidden, splits.classes)
    devices = [tensors(splits.train.take(part)) for part in partition(splits.train, "group")]
    test = tensors(splits.test)
    model, local_model = chosen.make(widths), chosen.make(widths)
    accuracy = []
    for number in range(fleet.training.rounds):
        share = fleet.training.rate(number) / fleet.training.learning_rate
        local = rival.Local(
            batch=fleet.training.batch,
            learning_rate=chosen.learning_rate * share,
            epochs=fleet.training.local_epochs,
        )
        model.load_state_dict(average(model, local_model, devices, local, generator))
        accuracy.append(rival.accuracy(model, *test))
    sent = 4 * sum(value.numel() for value in model.state_dict().values())
    return Result(accuracy, sent, perf_counter() - start)


def average(
    model: nn.Module,
    local_model: nn.Module,
    devices: list[tuple[Tensor, Tensor]],
    local: rival.Local,
    generator: torch.Generator,
) -> dict[str, Tensor]:
    """Train on every device from the model's state; return the mean weighted by examples."""
    begin = model.state_dict()
    examples = sum(len(labels) for _, labels in devices)
    total = {name: torch.zeros_like(value, dtype=torch.float64) for name, value in begin.items()}
    for x, y in devices:
        local_model.load_state_dict(begin)
        rival.train(local_model, x, y, local, generator)
        for name, value in local_model.state_dict().items():
            total[name] += value * (len(y) / examples)
    return {name: value.to(begin[name].dtype) for name, value in total.items()}


def tensors(data: Dataset) -> tuple[Tensor, Tensor]:
    """Return int8 features as float32 in [-1, 1], labels as int64."""
    x = torch.from_numpy(data.features.astype(np.float32) / FULL_SCALE)
    return x, torch.from_numpy(data.labels.astype(np.int64))


def table(rows: list[Row], fleet: FleetConfig) -> Table:
    """Return the rows as a table, with the distance to the better float BNN."""
    schedule = fleet.training
    hidden = "-".join(str(width) for width in fleet.model.hidden)
    result = Table(
        title=f"Watch, MLP 768-{hidden}-7, held-out subjects {TEST_SUBJECTS}: {schedule.rounds} "
        f"rounds, {schedule.local_epochs} local epochs, batch {schedule.batch}",
        caption="accuracy in %, mean over seeds; spread: lowest to highest seed; to BNN: distance "
        "to the better float32 BNN; up: bits a weight and kB a device, each round",
    )
    headings = ("contestant", "accuracy", "spread", "half-way", "to BNN", "bits up", "kB up")
    for heading in headings:
        result.add_column(heading, justify="left" if heading == "contestant" else "right")
    goal = max(fmean(row.finals) for row in rows if row.contestant in BNNS)
    for row in rows:
        result.add_row(
            row.contestant,
            f"{100 * fmean(row.finals):.1f}",
            f"{100 * min(row.finals):.1f} to {100 * max(row.finals):.1f}",
            f"{100 * row.mean_after(0.5):.1f}",
            f"{100 * (fmean(row.finals) - goal):+.1f}",
            f"{row.bits_up:.2f}",
            f"{row.runs[0].update_bytes / 1e3:.0f}",
        )
    return result


def contestants(fleet: FleetConfig, splits: Splits) -> dict[str, Callable[[int], Result]]:
    """Return run(seed) by name."""
    found: dict[str, Callable[[int], Result]] = {}
    for name, mode in OURS.items():
        found[name] = lambda seed, mode=mode: run_ours(fleet, mode, seed)  # type: ignore[misc]
    for name, chosen in RIVALS.items():
        found[name] = lambda seed, chosen=chosen: run_averaged(  # type: ignore[misc]
            fleet, splits, chosen, seed
        )
    return found


def main(
    seeds: Annotated[int, typer.Option(min=1, help="Seeds of every contestant.")] = 3,
    quick: Annotated[bool, typer.Option(help="One seed, five rounds, no file.")] = False,
    config: Annotated[Path, typer.Option(help="The fleet, as TOML.")] = FLEET,
    json: Annotated[str, typer.Option("--json", help="Where to; - is standard output.")] = str(
        RESULTS
    ),
) -> None:
    """Train the watch fleet, ours and torch under one schedule, and print the accuracies."""
    torch.set_num_threads(1)
    fleet = FleetConfig.from_toml(config)
    if quick:
        seeds = 1
        fleet = replace(fleet, training=replace(fleet.training, rounds=QUICK_ROUNDS))
    splits = load("watch", test_groups=TEST_SUBJECTS)
    runs = contestants(fleet, splits)
    rows = []
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    console = Console(stderr=True)
    with Progress(*columns, TimeElapsedColumn(), console=console, transient=True) as progress:
        task = progress.add_task("", total=seeds * len(runs))
        weights = weight_count(fleet, splits)
        for name, run in runs.items():
            results = []
            for seed in range(seeds):
                progress.update(task, description=f"{name}, seed {seed}")
                results.append(run(seed))
                progress.advance(task)
            rows.append(Row(name, 8 * results[0].update_bytes / weights, results))
    found = {
        "fleet": fleet.to_table(),
        "rows": [{**asdict(row), "mean": fmean(row.finals), "finals": row.finals} for row in rows],
    }
    if json == "-":
        print(json_module.dumps(found, indent=2))
        return
    Console().print(table(rows, fleet))
    if not quick:
        write_record(Path(json), "python benchmarks/federated_watch.py", found)


def weight_count(fleet: FleetConfig, splits: Splits) -> int:
    """Return the weights of the network, which bits up are counted by."""
    widths = (splits.train.feature_count, *fleet.model.hidden, splits.classes)
    return sum(a * b for a, b in pairwise(widths))


if __name__ == "__main__":
    app = typer.Typer(add_completion=False)
    app.command()(main)
    run_command(app)
