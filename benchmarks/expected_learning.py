"""What choose expects a plan to teach, against what was learnt: accuracy by the plan's choices.

The watch set, a multilayer perceptron for 10 epochs and har_cnn for 8, batch 100, a rate of 0.04
that falls linearly, three seeds. One choice at a time is varied: the micro-batch, the frozen
layers, the latents, the mode.

    python benchmarks/expected_learning.py              every row, and the record
    python benchmarks/expected_learning.py --quick      one seed, one epoch, nothing written
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import mean
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from edgetrain import Model, Trainer, models, plan
from edgetrain.bench.record import write_record
from edgetrain.command import run_command
from edgetrain.data import load
from edgetrain.freeze import freeze
from edgetrain.memory_profiler.learning import layers_taught
from edgetrain.ops.op import Latent, Mode

RESULTS = Path(__file__).parent / "results" / "expected_learning.json"
BATCH, CLASSES, FEATURES = 100, 7, 768
NETWORKS: dict[str, tuple[Model, int]] = {
    "768-256x3-7": (models.mlp(FEATURES, CLASSES, (256,) * 3), 10),
    "har_cnn": (models.har_cnn(), 8),
}
"""Name -> model, epochs. Both have four layers."""
SEEDS = (0, 1, 2)


@dataclass(frozen=True)
class Chosen:
    """A plan's choices, those of the default unless given."""

    mode: Mode = "bnn"
    latent: Latent = "int8"
    frozen: int = 0
    micro_batch: int = BATCH

    def expected(self, model: Model) -> float:
        """Return the layers' worth that an example is expected to teach."""
        frozen = freeze(model, self.frozen)
        return layers_taught(frozen, self.mode, self.latent, self.micro_batch)


@dataclass(frozen=True)
class Row:
    """What one network was expected to learn by some choices, and its accuracies by seed."""

    network: str
    chosen: Chosen
    expected: float
    accuracies: list[float]


def choices() -> Iterator[Chosen]:
    """Yield the choices, one varied at a time."""
    yield from (Chosen(micro_batch=size) for size in (100, 50, 25, 13, 7, 4, 2))
    yield from (Chosen(frozen=count) for count in (1, 2, 3))
    latents: tuple[Latent, ...] = ("adam16", "bop", "int4")
    yield from (Chosen(latent=latent) for latent in latents)
    yield Chosen(mode="fsb")


def learn(network: str, chosen: Chosen, quick: bool) -> Row:
    """Return what a network has learnt by some choices."""
    model, epochs = NETWORKS[network]
    splits = load("watch")
    compiled = plan(
        freeze(model, chosen.frozen),
        BATCH,
        chosen.mode,
        latent=chosen.latent,
        micro_batch=chosen.micro_batch,
    )
    accuracies = []
    for seed in SEEDS[:1] if quick else SEEDS:
        trainer = Trainer(compiled, seed=seed)
        x, y = splits.train.features, splits.train.labels
        trainer.fit(x, y, epochs=1 if quick else epochs, schedule="linear")
        judged = trainer.evaluate(splits.test.features, splits.test.labels)
        accuracies.append(round(judged.accuracy, 4))
    return Row(network, chosen, round(chosen.expected(model), 3), accuracies)


def rank_correlation(first: list[float], second: list[float]) -> float:
    """Return Spearman's rank correlation; equals share the mean of their ranks."""

    def ranks(values: list[float]) -> list[float]:
        ordered = sorted(values)
        return [ordered.index(v) + (ordered.count(v) - 1) / 2 for v in values]

    pairs = list(zip(ranks(first), ranks(second), strict=True))
    middle = (len(pairs) - 1) / 2
    joint = sum((a - middle) * (b - middle) for a, b in pairs)
    alone = [sum((pair[side] - middle) ** 2 for pair in pairs) for side in (0, 1)]
    return joint / (alone[0] * alone[1]) ** 0.5


def table(rows: list[Row]) -> Table:
    """Return the rows as a table, a network's together."""
    found = Table("network", "choices", "expected", "accuracy", "by seed")
    for row in rows:
        told = ", ".join(str(value) for value in asdict(row.chosen).values())
        seeds = " ".join(f"{accuracy:.1%}" for accuracy in row.accuracies)
        found.add_row(
            row.network, told, f"{row.expected:.2f}", f"{mean(row.accuracies):.1%}", seeds
        )
    return found


def main(
    quick: Annotated[bool, typer.Option(help="One seed, one epoch, no record.")] = False,
) -> None:
    """Hold what each choice is expected to teach against what was learnt."""
    with ProcessPoolExecutor(2) as pool:
        running = [
            pool.submit(learn, network, chosen, quick)
            for network in NETWORKS
            for chosen in choices()
        ]
        rows = [future.result() for future in running]
    console = Console()
    console.print(table(rows))
    correlations = {}
    for network in NETWORKS:
        own = [row for row in rows if row.network == network]
        expected = [row.expected for row in own]
        correlations[network] = round(
            rank_correlation(expected, [mean(row.accuracies) for row in own]), 3
        )
    console.print(f"rank correlation of expected and learnt: {correlations}")
    if not quick:
        record = {"rows": [asdict(row) for row in rows], "rank_correlation": correlations}
        write_record(RESULTS, "python benchmarks/expected_learning.py", record)


if __name__ == "__main__":
    app = typer.Typer(add_completion=False)
    app.command()(main)
    run_command(app)
