"""Accuracy of one multilayer perceptron, 784-256x4-10, batch 100, by the kind of its latents.

MNIST for 4 epochs and Fashion-MNIST for 15, learning rates falling linearly, the last layer in
int8. Fetch the data first: edgetrain data fetch mnist, edgetrain data fetch fashion.

    python benchmarks/latents.py                  every row, and the record
    python benchmarks/latents.py --quick          one epoch, nothing written
"""

from __future__ import annotations

import json as json_module
import sys
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from time import process_time
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from edgetrain import Trainer, models, plan
from edgetrain.bench.record import write_record
from edgetrain.command import run_command
from edgetrain.data import load
from edgetrain.ops.op import Latent

RESULTS = Path(__file__).parent / "results" / "latents.json"
INPUTS, HIDDEN, CLASSES = 784, (256,) * 4, 10
BATCH, SEED = 100, 0
BYTES: dict[Latent, float] = {"int8": 1, "int4": 0.5, "bop": 1.125, "adam16": 6}


@dataclass(frozen=True)
class Run:
    """A set, how long it is trained on, the kind of latents and the learning rate."""

    data: str
    epochs: int
    latent: Latent
    rate: float


RATES: dict[str, dict[Latent, tuple[float, ...]]] = {
    "mnist": {
        "int8": (0.03,),
        "int4": (0.01, 0.03, 0.06),
        "bop": (0.02, 0.04, 0.08),
        "adam16": (0.04, 0.12),
    },
    "fashion": {"int8": (0.02,), "int4": (0.01, 0.02), "bop": (0.02, 0.04), "adam16": (0.04,)},
}
EPOCHS = {"mnist": 4, "fashion": 15}


@dataclass(frozen=True)
class Row:
    """What a run reached, and the processor's seconds that it took."""

    run: Run
    accuracy: float
    seconds: float


def train(run: Run) -> Row:
    """Train the engine and judge the test part."""
    splits, begun = load(run.data), process_time()
    chosen = plan(models.mlp(INPUTS, CLASSES, HIDDEN), batch=BATCH, latent=run.latent)
    trainer = Trainer(chosen, seed=SEED, learning_rate=run.rate)
    trainer.fit(splits.train.features, splits.train.labels, epochs=run.epochs, schedule="linear")
    judged = trainer.evaluate(splits.test.features, splits.test.labels)
    return Row(run, float(judged.accuracy), process_time() - begun)


def runs(quick: bool) -> list[Run]:
    """Return every run, those that take longest first."""
    every = [
        Run(data, EPOCHS[data], latent, rate)
        for data, kinds in RATES.items()
        for latent, rates in kinds.items()
        for rate in rates
    ]
    every.sort(key=lambda run: (-run.epochs, -BYTES[run.latent]))
    return [replace(run, epochs=1) for run in every] if quick else every


def table(rows: Iterable[Row]) -> Table:
    """Return the rows as a table."""
    result = Table(title="Accuracy by latents, MLP 784-256x4-10, batch 100, one seed")
    for heading in ("data", "latents", "bytes a weight", "rate", "accuracy", "cpu seconds"):
        result.add_column(heading, justify="left" if heading in ("data", "latents") else "right")
    for row in rows:
        result.add_row(
            row.run.data,
            row.run.latent,
            f"{BYTES[row.run.latent]:g}",
            f"{row.run.rate:g}",
            f"{100 * row.accuracy:.2f}",
            f"{row.seconds:.1f}",
        )
    return result


def main(
    workers: Annotated[int, typer.Option(min=1, help="Runs at a time.")] = 2,
    quick: Annotated[bool, typer.Option(help="One epoch, no file.")] = False,
    json: Annotated[str, typer.Option("--json", help="Where to; - is standard output.")] = str(
        RESULTS
    ),
) -> None:
    """Train an MLP with every kind of latents and print the accuracies."""
    every, found = runs(quick), dict[Run, Row]()
    with ProcessPoolExecutor(workers) as pool:
        for done in as_completed([pool.submit(train, run) for run in every]):
            row = done.result()
            found[row.run] = row
            print(f"{len(found)} of {len(every)}: {row}", file=sys.stderr, flush=True)
    rows = [found[run] for run in sorted(every, key=lambda run: list(RATES).index(run.data))]
    result = {"batch": BATCH, "seed": SEED, "rows": [asdict(row) for row in rows]}
    if json == "-":
        print(json_module.dumps(result, indent=2))
        return
    Console().print(table(rows))
    if not quick:
        write_record(Path(json), "python benchmarks/latents.py", result)


if __name__ == "__main__":
    app = typer.Typer(add_completion=False)
    app.command()(main)
    run_command(app)
