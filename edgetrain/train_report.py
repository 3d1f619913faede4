"""What a run of `edgetrain train` says: its epochs, its memory, and how to go on with it."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path

from rich.console import Console

from edgetrain.memory_profiler.memory import peak_bytes
from edgetrain.metrics import Metrics
from edgetrain.sizes import format_size
from edgetrain.train import Trainer

__all__ = [
    "Row",
    "arena_bytes",
    "epoch_fields",
    "epoch_line",
    "growth",
    "print_end",
    "resume_command",
]

Row = dict[str, float | None]
"""The figures of an epoch, as JSON has them."""


def growth(before: int | None) -> int | None:
    """Return the bytes by which this process's peak has grown, where that can be measured."""
    after = peak_bytes()
    return None if before is None or after is None else after - before


def arena_bytes(trainer: Trainer) -> int | None:
    """Return the bytes planned for the arena; the oracle has none."""
    return trainer.plan.peak_bytes if trainer.engine == "native" else None


def print_end(
    console: Console, planned: int | None, grown: int | None, save: Path | None, again: str | None
) -> None:
    """Print what memory was planned and used, and where the run was saved."""
    measured = (
        "the peak of this process cannot be measured here"
        if grown is None
        else f"the process's peak grew by {format_size(grown)} beside the data"
    )
    arena = "no arena" if planned is None else f"{format_size(planned)} planned for the arena"
    console.print(f"memory: {arena}; {measured}")
    if save is not None:
        console.print(f"saved {save}", markup=False)
    if again is not None:
        console.print(f"go on with: {again}", markup=False)


def epoch_fields(epoch: int, learnt: Metrics, test: Metrics | None) -> Row:
    """Return one epoch's figures as JSON-ready fields."""
    return {
        "epoch": epoch,
        "loss": learnt.loss,
        "train_accuracy": learnt.accuracy,
        "test_accuracy": None if test is None else test.accuracy,
        "examples": learnt.examples,
    }


def epoch_line(row: Row, epochs: int, count: int) -> str:
    """Return one epoch's figures as a line of text; count is the examples of a whole epoch."""
    start = f"epoch {row['epoch']}/{epochs}: "
    if not row["examples"]:
        learnt = "nothing trained"
    else:
        learnt = f"loss {row['loss']:.3f}, training {row['train_accuracy']:.1%}"
    if row["test_accuracy"] is not None:
        return f"{start}{learnt}, test {row['test_accuracy']:.1%}"
    if row["examples"] == count:
        return f"{start}{learnt} (stopped before its test)"
    return f"{start}{learnt} (stopped after {row['examples']} of {count} examples)"


def resume_command(options: Mapping[str, object], test_groups: list[int]) -> str:
    """Return the command that goes on with a run; an option of None is left out."""
    words = ["edgetrain", "train"]
    for name, value in options.items():
        if value is not None:
            words += [name, str(value)]
    for group in test_groups:
        words += ["--test-group", str(group)]
    return shlex.join(words)
