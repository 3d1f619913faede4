"""Which shortcut a small residual network learns with best: test accuracy after the same few steps.

The network is resnet18_binary of a quarter of the width, without its last stage and with a stem of
stride 2; 200 steps of batch 100 on CIFAR-10, the rate falling linearly from 0.04. Fetch the data
first: edgetrain data fetch cifar10.

    python benchmarks/shortcuts.py                every variant, two seeds
    python benchmarks/shortcuts.py --quick        one seed, 20 steps, nothing written
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from edgetrain import Trainer, plan
from edgetrain.bench.record import write_record
from edgetrain.command import run_command
from edgetrain.data import Splits, load
from edgetrain.models import resnet18_binary
from edgetrain.models.resnet18_binary import ShortcutKind

RESULTS = Path(__file__).parent / "results" / "shortcuts.json"
WIDTHS, STEM_STRIDE = (32, 64, 128), 2
BATCH, STEPS, SEEDS = 100, 200, 2
QUICK_STEPS = 20
JUDGED = 2000
"""Examples of the test part that are judged."""
VARIANTS: tuple[tuple[ShortcutKind, float], ...] = (
    *(("none", 0.0), ("xnor", 0.0), ("or", 0.0), ("boolnet", 0.0)),
    *(("add", 1.0), ("add", 2.0), ("add2", 1.0), ("add2", 2.0), ("add2", 4.0)),
)
"""Kinds of shortcut and, for those that add, the gain."""


@dataclass(frozen=True)
class Row:
    """What one variant reached, a value a seed."""

    shortcut: str
    gain: float
    loss: list[float]
    accuracy: list[float]


def learn(splits: Splits, kind: ShortcutKind, gain: float, seed: int, steps: int) -> Row:
    """Train one variant from one seed: its mean loss over the steps, its accuracy after them."""
    model = resnet18_binary(shortcut=kind, gain=gain or 1.0, widths=WIDTHS, stem_stride=STEM_STRIDE)
    trainer = Trainer(plan(model, BATCH), seed=seed)
    train, test = splits.train, splits.test
    count = steps * BATCH
    learnt = trainer.fit(train.features[:count], train.labels[:count], schedule="linear")
    judged = trainer.evaluate(test.features[:JUDGED], test.labels[:JUDGED])
    return Row(kind, gain, [learnt.loss], [judged.accuracy])


def rows(splits: Splits, seeds: int, steps: int) -> Iterator[Row]:
    """Yield every variant with the values of all seeds."""
    for kind, gain in VARIANTS:
        runs = [learn(splits, kind, gain, seed, steps) for seed in range(seeds)]
        losses, accuracies = [run.loss[0] for run in runs], [run.accuracy[0] for run in runs]
        yield Row(kind, gain, losses, accuracies)


def main(
    *,
    quick: Annotated[bool, typer.Option("--quick", help="One seed, few steps.")] = False,
) -> None:
    """Train every variant and print what it reached."""
    steps, seeds = (QUICK_STEPS, 1) if quick else (STEPS, SEEDS)
    table = Table("shortcut", "gain", "loss", "test accuracy", title=f"{steps} steps")
    done = []
    for row in rows(load("cifar10"), seeds, steps):
        done.append(row)
        loss, accuracy = f"{fmean(row.loss):.3f}", f"{fmean(row.accuracy):.1%}"
        table.add_row(row.shortcut, f"{row.gain:g}", loss, accuracy)
    Console().print(table)
    if not quick:
        found = {"steps": steps, "batch": BATCH, "widths": WIDTHS, "rows": [*map(asdict, done)]}
        write_record(RESULTS, "python benchmarks/shortcuts.py", found)


if __name__ == "__main__":
    app = typer.Typer(add_completion=False)
    app.command()(main)
    run_command(app)
