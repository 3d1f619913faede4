"""`edgetrain train`: train on one machine, stop at Ctrl-C, go on where it stopped."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from edgetrain.data import Splits
from edgetrain.data import load as load_data
from edgetrain.errors import ConfigError
from edgetrain.freeze import freeze as freeze_model
from edgetrain.freeze import frozen_state
from edgetrain.memory_profiler.memory import peak_bytes, reset_peak
from edgetrain.models.named import check_features, named_model
from edgetrain.options import (
    Batch,
    Draws,
    EngineOption,
    Freeze,
    GradientOption,
    Hidden,
    Json,
    LatentOption,
    Memory,
    ModelArgument,
    ModeOption,
    Outer,
    RecomputeOption,
    Threads,
)
from edgetrain.planner import plan as make_plan
from edgetrain.schedule import FLOOR, SCHEDULES, check_schedule
from edgetrain.step import FLIP_THRESHOLD
from edgetrain.train import LEARNING_RATE, Trainer
from edgetrain.train import load as load_checkpoint
from edgetrain.train_report import (
    Row,
    arena_bytes,
    epoch_fields,
    epoch_line,
    growth,
    print_end,
    resume_command,
)

__all__ = ["train"]

INTERRUPTED = 130
"""Exit code of a run that Ctrl-C ended, as shells have it: 128 and the signal's number."""
SHOW_CURSOR = "\x1b[?25h"


def train(
    *,
    model: ModelArgument = "mlp",
    data: Annotated[str, typer.Option(help="A set's name, or a folder with x.npy and y.npy.")],
    epochs: Annotated[int, typer.Option(min=1, help="Passes over the data, in all.")] = 3,
    hidden: Hidden = "256,256,256,256",
    first: Outer = "auto",
    last: Outer = "int8",
    mode: ModeOption = "bnn",
    latent: LatentOption = "int8",
    freeze: Freeze = 0,
    gradient: GradientOption = "luq4",
    draws: Draws = 1,
    engine: EngineOption = "native",
    batch: Batch = 100,
    threads: Threads = 1,
    memory: Memory = None,
    recompute: RecomputeOption = "auto",
    learning_rate: Annotated[float, typer.Option(help="The highest of the schedule.")] = (
        LEARNING_RATE
    ),
    flip_threshold: Annotated[
        float, typer.Option(help="bop: the average of gradients' signs beyond which one flips.")
    ] = FLIP_THRESHOLD,
    schedule: Annotated[
        str,
        typer.Option(
            help=f"{', '.join(SCHEDULES)}: the rate over all epochs; it falls to {FLOOR:.0%}."
        ),
    ] = "linear",
    warmup: Annotated[float, typer.Option(help="Epochs over which the rate rises first.")] = 0.0,
    seed: Annotated[int, typer.Option(help="Of weights, signs and every draw.")] = 0,
    test_group: Annotated[list[int] | None, typer.Option(help="A subject to hold out.")] = None,
    test_fraction: Annotated[float | None, typer.Option(help="A share to hold out.")] = None,
    save: Annotated[
        Path | None, typer.Option(help="Keep a checkpoint there, every epoch and at Ctrl-C.")
    ] = None,
    start: Annotated[
        Path | None, typer.Option(help="Take over what this checkpoint of the model learnt.")
    ] = None,
    resume: Annotated[
        Path | None,
        typer.Option(
            help="Go on from this checkpoint, with its model, mode, batch and learning rate, and "
            "save there unless --save says where."
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Train a model on one machine.

    Ctrl-C ends the run after the micro-batch at hand, saves it and says how to go on, with exit
    code 130; a second one ends it at once. A run that goes on ends at the very bits of one that
    was never stopped.
    """
    save = save or resume
    check_schedule(schedule, epochs, warmup)
    check_paths(save, resume, start)
    splits = load_data(data, test_groups=test_group, test_fraction=test_fraction, seed=seed)
    # Mapped data are read once before the count begins, or they would pass for training's.
    for part in (splits.train, splits.test):
        part.features.max(initial=0)
    before = peak_bytes() if reset_peak() else None
    if resume is not None:
        trainer = resumed(resume, threads, seed)
    else:
        features = splits.train.features.shape[1]
        built = named_model(model, features, splits.classes, hidden, first=first, last=last)
        chosen = make_plan(
            freeze_model(built, freeze),
            batch,
            mode,
            latent=latent,
            gradient=gradient,
            draws=draws,
            threads=threads,
            memory=memory,
            recompute=recompute,
        )
        trainer = Trainer(chosen, seed, learning_rate, flip_threshold=flip_threshold, engine=engine)
        take_over(trainer, start)
    check_features(trainer.plan.model, splits.feature_shape)
    # Its data are scaled already; who exports the model scales by the same constants.
    trainer.scaling = trainer.scaling or splits.scaling
    console = Console(stderr=as_json, soft_wrap=True, highlight=False)
    rows = run(
        trainer, splits, epochs=epochs, schedule=schedule, warmup=warmup, save=save, console=console
    )
    stopped = rows[-1]["test_accuracy"] is None
    planned, grown = arena_bytes(trainer), growth(before)
    again = None
    if stopped and save is not None:
        options = {"--resume": save, "--data": data, "--epochs": epochs, "--schedule": schedule}
        options |= {"--warmup": warmup or None, "--seed": seed or None}
        options |= {"--threads": threads if threads > 1 else None, "--test-fraction": test_fraction}
        again = resume_command(options, test_group or [])
    if as_json:
        fields = {"epochs": rows, "stopped": stopped, "resume": again, "planned_bytes": planned}
        print(json.dumps({**fields, "measured_bytes": grown}))
    else:
        print_end(console, planned, grown, save, again)
    if stopped:
        raise typer.Exit(INTERRUPTED)


def run(
    trainer: Trainer,
    splits: Splits,
    *,
    epochs: int,
    schedule: str,
    warmup: float,
    save: Path | None,
    console: Console,
) -> list[Row]:
    """Train until all epochs are done or Ctrl-C is pressed; return the figures of each epoch.

    Those of an epoch that was stopped, or not judged because of a stop, have no test accuracy.
    """
    rows = list[Row]()
    x, y = splits.train.features, splits.train.labels
    with stop_on_interrupt(save) as stopped:

        def should_stop() -> bool:
            return bool(stopped)

        while True:
            # A checkpoint whose epochs are all done is judged again and no more.
            if trainer.epochs < epochs:
                trainer.fit(
                    x,
                    y,
                    schedule=schedule,
                    schedule_epochs=epochs,
                    warmup=warmup,
                    progress=True,
                    should_stop=should_stop,
                )
                if save is not None:
                    trainer.save(save)
            test = trainer.evaluate(
                splits.test.features, splits.test.labels, should_stop=should_stop
            )
            judged = test.examples == len(splits.test.labels)
            finished = trainer.metrics.examples == len(y)
            number = min(trainer.epochs + (not finished), epochs)
            rows.append(epoch_fields(number, trainer.metrics, test if judged else None))
            console.print(epoch_line(rows[-1], epochs, len(y)))
            if trainer.epochs >= epochs or not judged:
                return rows


def take_over(trainer: Trainer, path: Path | None) -> None:
    """Load the state that a checkpoint holds, if one is given, whatever of it was frozen since."""
    if path is None:
        return
    found = load_checkpoint(path)
    mode, latent = found.plan.mode, found.plan.latent
    if (mode, latent) != (trainer.plan.mode, trainer.plan.latent):
        raise ConfigError(f"{path} was trained with --mode {mode} --latent {latent}: give the same")
    trainer.load_state(frozen_state(found.state(), found.plan.model, mode, trainer.plan.model))
    trainer.scaling = found.scaling


def check_paths(save: Path | None, resume: Path | None, start: Path | None) -> None:
    """Refuse, before any work, paths that cannot be read or written. Raises ConfigError."""
    if start is not None and not start.is_file():
        raise ConfigError(f"nothing to start from: {start} is no checkpoint: check the path")
    if resume is not None and not resume.is_file():
        raise ConfigError(f"nothing to resume: {resume} is no checkpoint: check the path")
    if save is not None and not save.parent.is_dir():
        raise ConfigError(f"--save {save}: there is no folder {save.parent}: make it first")


def resumed(path: Path, threads: int, seed: int) -> Trainer:
    """Return the trainer of a checkpoint. Raises ConfigError for another seed than its own."""
    trainer = load_checkpoint(path, threads=threads)
    if trainer.seed != seed:
        raise ConfigError(
            f"{path} was trained with --seed {trainer.seed}, which also decides what is held out: "
            "give the same"
        )
    return trainer


@contextmanager
def stop_on_interrupt(save: Path | None) -> Iterator[list[int]]:
    """Collect the first Ctrl-C in the list that is yielded; a second one ends the process."""
    asked: list[int] = []

    def ask(number: int, _: object) -> None:
        asked.append(number)
        # Not Python's own handler: that would wait for the micro-batch at hand.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        saved = "" if save is None else " and saving"
        cursor = SHOW_CURSOR if sys.stderr.isatty() else ""
        print(f"{cursor}stopping{saved}; Ctrl-C again ends at once", file=sys.stderr, flush=True)

    before = signal.signal(signal.SIGINT, ask)
    try:
        yield asked
    finally:
        signal.signal(signal.SIGINT, before)
