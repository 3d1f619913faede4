"""Accuracy by format of the gradient: an MLP 784-256x4-10 on MNIST, 4 epochs, batch 100.

What the native engine runs, it trains; the formats that are studied train in the numpy oracle, some
twenty milliseconds a step on one core. Fetch the data first: edgetrain data fetch mnist.

    OPENBLAS_NUM_THREADS=1 python benchmarks/gradient_formats.py      three seeds, one in the oracle
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean
from time import perf_counter
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from edgetrain import Trainer, models, plan
from edgetrain.bench.record import write_record
from edgetrain.command import run_command
from edgetrain.data import Splits, load
from edgetrain.gradient import GRADIENT_FORMATS, MOST_DRAWS, Gradient

RESULTS = Path(__file__).parent / "results" / "gradient_formats.json"
BATCH, EPOCHS, RATE = 100, 4, 0.03


@dataclass(frozen=True)
class Row:
    """What one choice reached, a value a seed, and the seconds of a run."""

    gradient: str
    draws: int
    engine: str
    accuracy: list[float]
    mean: float
    seconds: float


def choices() -> Iterator[Gradient]:
    """Yield every format, and several draws of those that are drawn."""
    for form in GRADIENT_FORMATS.values():
        for draws in (1, 2, MOST_DRAWS) if form.random else (1,):
            yield Gradient(form, draws)


def train(splits: Splits, gradient: Gradient, seed: int) -> tuple[float, Trainer]:
    """Train and return the accuracy on the test part, and the trainer."""
    form = gradient.format
    chosen = plan(models.mlp(784, 10, (256,) * 4), BATCH, gradient=form.name, draws=gradient.draws)
    trainer = Trainer(chosen, seed, RATE, engine=form.engines[0])
    trainer.fit(splits.train.features, splits.train.labels, epochs=EPOCHS, schedule="linear")
    return float(trainer.evaluate(splits.test.features, splits.test.labels).accuracy), trainer


def measure(splits: Splits, gradient: Gradient, seeds: int, console: Console) -> Row:
    """Train a choice from every seed."""
    begun = perf_counter()
    reached = []
    for seed in range(seeds):
        accuracy, trainer = train(splits, gradient, seed)
        reached.append(accuracy)
        console.print(f"{gradient.describe()}, seed {seed}: {accuracy:.2%}")
    return Row(
        gradient.format.name,
        gradient.draws,
        trainer.engine,
        reached,
        fmean(reached),
        (perf_counter() - begun) / seeds,
    )


def table(rows: list[Row]) -> Table:
    """Return the rows as a table."""
    result = Table(title=f"MNIST, MLP 784-256x4-10, {EPOCHS} epochs, by format of the gradient")
    for heading in ("gradient", "draws", "engine", "accuracy", "seeds", "seconds a run"):
        result.add_column(heading)
    for row in rows:
        result.add_row(
            row.gradient,
            str(row.draws),
            row.engine,
            f"{100 * row.mean:.2f}",
            " ".join(f"{100 * value:.2f}" for value in row.accuracy),
            f"{row.seconds:.1f}",
        )
    return result


def main(
    seeds: Annotated[int, typer.Option(min=1, help="Seeds of what the native engine runs.")] = 3,
    oracle_seeds: Annotated[int, typer.Option(min=1, help="Seeds of the others.")] = 1,
) -> None:
    """Train an MLP on MNIST with every format of the gradient, and print the accuracies."""
    splits, console = load("mnist"), Console(stderr=True)
    rows = [
        measure(
            splits,
            gradient,
            seeds if "native" in gradient.format.engines else oracle_seeds,
            console,
        )
        for gradient in choices()
    ]
    Console().print(table(rows))
    result = {
        "data": "mnist",
        "batch": BATCH,
        "epochs": EPOCHS,
        "learning_rate": RATE,
        "rows": [asdict(row) for row in rows],
    }
    write_record(RESULTS, "python benchmarks/gradient_formats.py", result)


if __name__ == "__main__":
    app = typer.Typer(add_completion=False)
    app.command()(main)
    run_command(app)
