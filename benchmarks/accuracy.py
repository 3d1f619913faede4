"""Accuracy of one multilayer perceptron, 784-256x4-10, batch 100: ours beside a torch BNN.

MNIST for 4 epochs and Fashion-MNIST for 15, learning rates falling linearly. Ours trains int8
latents (bnn) or fixed signs with scales (fsb); torch trains float32 latents with Adam. Fetch the
data first: edgetrain data fetch mnist, edgetrain data fetch fashion.

    python benchmarks/accuracy.py                 every row, three seeds
    python benchmarks/accuracy.py --quick         one seed, one epoch, nothing written
"""

from __future__ import annotations

import json as json_module
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from statistics import fmean
from time import perf_counter
from typing import Annotated

import numpy as np
import torch
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from edgetrain import Trainer, models, plan
from edgetrain.bench import rival
from edgetrain.bench.record import write_record
from edgetrain.command import run_command
from edgetrain.data import Dataset, Splits, load
from edgetrain.ops.op import Mode

RESULTS = Path(__file__).parent / "results" / "accuracy.json"
INPUTS, HIDDEN, CLASSES = 784, (256,) * 4, 10
BATCH = 100
FINAL_RATE = 0.02


@dataclass(frozen=True)
class Set:
    """A data set, how long it is trained on, both learning rates, and the accuracy to reach."""

    name: str
    epochs: int
    our_rate: float
    torch_rate: float
    goal: float


SETS = (Set("mnist", 4, 0.03, 3e-3, 0.960), Set("fashion", 15, 0.02, 1e-3, 0.873))
"""Our rates are the best of 0.02, 0.03 and 0.04: the longer the training, the smaller the steps.
Torch's are the better of 1e-3 and 3e-3."""


@dataclass(frozen=True)
class Row:
    """What one contestant reached on one set, a value a seed."""

    data: str
    epochs: int
    contestant: str
    goal: float | None
    accuracy: list[float]
    seconds: float

    @property
    def mean(self) -> float:
        """The mean over the seeds."""
        return fmean(self.accuracy)


def train_ours(splits: Splits, chosen: Set, seed: int, mode: Mode) -> float:
    """Train the engine and return the accuracy on the test part."""
    model = models.mlp(INPUTS, CLASSES, HIDDEN)
    trainer = Trainer(plan(model, batch=BATCH, mode=mode), seed=seed, learning_rate=chosen.our_rate)
    trainer.fit(splits.train.features, splits.train.labels, epochs=chosen.epochs, schedule="linear")
    return float(trainer.evaluate(splits.test.features, splits.test.labels).accuracy)


def train_torch(splits: Splits, chosen: Set, seed: int) -> float:
    """Train the rival and return the accuracy on the test part."""
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    local = rival.Local(BATCH, chosen.torch_rate, FINAL_RATE, chosen.epochs)
    model = rival.binary_mlp((INPUTS, *HIDDEN, CLASSES))
    rival.train(model, *tensors(splits.train), local, generator)
    return rival.accuracy(model, *tensors(splits.test))


def tensors(data: Dataset) -> tuple[torch.Tensor, torch.Tensor]:
    """Return uint8 pixels (N, features) as float32 in [-1, 1], and labels as int64."""
    x = torch.from_numpy(data.features.astype(np.float32) / 127.5 - 1)
    return x, torch.from_numpy(data.labels.astype(np.int64))


def contestants() -> dict[str, Callable[[Splits, Set, int], float]]:
    """Return train(splits, set, seed) -> accuracy by name; the goal binds the first."""
    return {
        "ours, bnn": partial(train_ours, mode="bnn"),
        "ours, fsb": partial(train_ours, mode="fsb"),
        "torch float32 BNN": train_torch,
    }


def rows(seeds: int, quick: bool, tick: Callable[[str], None]) -> Iterator[Row]:
    """Train everything, and yield a row a set and contestant."""
    for whole in SETS:
        chosen = replace(whole, epochs=1) if quick else whole
        splits = load(chosen.name)
        for number, (name, train) in enumerate(contestants().items()):
            start = perf_counter()
            reached = []
            for seed in range(seeds):
                tick(f"{chosen.name}, {name}, seed {seed}")
                reached.append(train(splits, chosen, seed))
            goal = chosen.goal if number == 0 and not quick else None
            seconds = (perf_counter() - start) / seeds
            yield Row(chosen.name, chosen.epochs, name, goal, reached, seconds)


def table(found: list[Row]) -> Table:
    """Return the rows as a table."""
    result = Table(title="Accuracy, MLP 784-256x4-10, batch 100")
    for heading in ("data", "epochs", "contestant", "accuracy", "seeds", "goal", "seconds a run"):
        result.add_column(heading, justify="left" if heading in ("data", "contestant") else "right")
    for row in found:
        goal = "" if row.goal is None else f"{100 * row.goal:.1f}"
        each = " ".join(f"{100 * value:.2f}" for value in row.accuracy)
        result.add_row(
            row.data,
            str(row.epochs),
            row.contestant,
            f"{100 * row.mean:.2f}",
            each,
            goal,
            f"{row.seconds:.1f}",
        )
    return result


def main(
    seeds: Annotated[int, typer.Option(min=1, help="Seeds of every contestant.")] = 3,
    quick: Annotated[bool, typer.Option(help="One seed, one epoch, no file.")] = False,
    json: Annotated[str, typer.Option("--json", help="Where to; - is standard output.")] = str(
        RESULTS
    ),
) -> None:
    """Train an MLP on MNIST and Fashion-MNIST, ours and torch, and print the accuracies."""
    torch.set_num_threads(1)
    seeds = 1 if quick else seeds
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, TimeElapsedColumn(), console=console, transient=True) as progress:
        task = progress.add_task("", total=seeds * len(SETS) * len(contestants()), completed=-1)
        found = list(
            rows(seeds, quick, lambda what: progress.update(task, description=what, advance=1))
        )
    result = {"batch": BATCH, "rows": [{**asdict(row), "mean": row.mean} for row in found]}
    if json == "-":
        print(json_module.dumps(result, indent=2))
        return
    Console().print(table(found))
    if not quick:
        write_record(Path(json), "python benchmarks/accuracy.py", result)


if __name__ == "__main__":
    app = typer.Typer(add_completion=False)
    app.command()(main)
    run_command(app)
