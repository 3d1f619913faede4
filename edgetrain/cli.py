"""`edgetrain`: plan, train, simulate, measure."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Literal

from edgetrain.command import fleet_extra, run_command

with fleet_extra("edgetrain"):
    import typer
    from rich.console import Console

from edgetrain._version import __version__
from edgetrain.bench.cli import app as bench_app
from edgetrain.data import load as load_data
from edgetrain.data.cli import app as data_app
from edgetrain.errors import ConfigError
from edgetrain.memory_profiler.memory import peak_bytes, reset_peak
from edgetrain.models import MODELS
from edgetrain.models.named import named_model
from edgetrain.planner import Plan
from edgetrain.planner import plan as make_plan
from edgetrain.sizes import format_size
from edgetrain.train import LEARNING_RATE, Metrics, Trainer
from edgetrain.train import load as load_checkpoint

__all__ = ["app", "main"]

app = typer.Typer(
    help="Federated training of binary neural networks inside a memory budget.",
    no_args_is_help=True,
    add_completion=False,
)
app.add_typer(data_app, name="data")
app.add_typer(bench_app, name="bench")

ModelArgument = Annotated[
    str, typer.Argument(help=f"{', '.join(MODELS)}, or a JSON file that describes a model.")
]
Hidden = Annotated[str, typer.Option(help="Widths of the hidden layers, with commas.")]
ModeOption = Annotated[
    Literal["bnn", "fsb"], typer.Option(help="bnn trains latents, fsb scales of fixed signs.")
]
Outer = Annotated[
    Literal["auto", "int8"], typer.Option(help="How this layer is trained: as the mode, or int8.")
]
Batch = Annotated[int, typer.Option(help="Examples a step.")]
Threads = Annotated[int, typer.Option(help="Threads of the engine.")]
Memory = Annotated[
    str | None, typer.Option(help="Most memory for the arena, e.g. 64MiB; smaller steps fit it.")
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON and nothing else.")]


def show_version(wanted: bool) -> None:
    """Print the version and end."""
    if wanted:
        print(f"edgetrain {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=show_version, is_eager=True, help="Show it.")
    ] = False,
) -> None:
    """Federated training of binary neural networks inside a memory budget."""


@app.command("plan")
def plan_command(
    *,
    model: ModelArgument = "mlp",
    inputs: Annotated[int, typer.Option(help="Features of an example.")] = 784,
    classes: Annotated[int, typer.Option(help="Classes to tell apart.")] = 10,
    hidden: Hidden = "256,256,256,256",
    first: Outer = "auto",
    last: Outer = "int8",
    mode: ModeOption = "bnn",
    batch: Batch = 100,
    threads: Threads = 1,
    memory: Memory = None,
    as_json: Json = False,
) -> None:
    """Show where every byte of a training step lies, before it runs."""
    built = named_model(model, inputs, classes, hidden, first=first, last=last)
    chosen = make_plan(built, batch, mode, threads=threads, memory=memory)
    print(json.dumps(plan_fields(chosen)) if as_json else chosen.explain())


@app.command()
def train(
    *,
    model: ModelArgument = "mlp",
    data: Annotated[str, typer.Option(help="A set's name, or a folder with x.npy and y.npy.")],
    epochs: Annotated[int, typer.Option(min=1, help="Passes over the data.")] = 3,
    hidden: Hidden = "256,256,256,256",
    first: Outer = "auto",
    last: Outer = "int8",
    mode: ModeOption = "bnn",
    batch: Batch = 100,
    threads: Threads = 1,
    memory: Memory = None,
    learning_rate: Annotated[float, typer.Option(help="At the start; it falls to 2 %.")] = (
        LEARNING_RATE
    ),
    seed: Annotated[int, typer.Option(help="Of weights, signs and every draw.")] = 0,
    test_group: Annotated[list[int] | None, typer.Option(help="A subject to hold out.")] = None,
    test_fraction: Annotated[float | None, typer.Option(help="A share to hold out.")] = None,
    save: Annotated[Path | None, typer.Option(help="Keep a checkpoint there.")] = None,
    resume: Annotated[bool, typer.Option(help="Go on from the checkpoint in --save.")] = False,
    as_json: Json = False,
) -> None:
    """Train a model on one machine; Ctrl-C ends the run after the step at hand and saves."""
    splits = load_data(data, test_groups=test_group, test_fraction=test_fraction, seed=seed)
    x, y = splits.train.features, splits.train.labels
    reset_peak()
    before, rows = peak_bytes(), list[dict[str, float]]()
    if resume:
        trainer = load_checkpoint(require_checkpoint(save), threads=threads)
    else:
        built = named_model(model, x.shape[1], splits.classes, hidden, first=first, last=last)
        chosen = make_plan(built, batch, mode, threads=threads, memory=memory)
        trainer = Trainer(chosen, seed, learning_rate)
    console = Console(stderr=as_json, soft_wrap=True)
    with stop_on_interrupt() as stopped:
        while trainer.epochs < epochs and not stopped:
            learnt = trainer.fit(
                x,
                y,
                schedule="linear",
                schedule_epochs=epochs,
                progress=True,
                should_stop=lambda: bool(stopped),
            )
            test = trainer.evaluate(splits.test.features, splits.test.labels)
            rows.append(epoch_fields(trainer.epochs, learnt, test))
            console.print(epoch_line(rows[-1], epochs, bool(stopped)))
            if save is not None:
                trainer.save(save)
    arena = trainer.plan.peak_bytes
    memory_line = {"planned_bytes": arena, "measured_bytes": (peak_bytes() or 0) - (before or 0)}
    if as_json:
        print(json.dumps({"epochs": rows, "stopped": bool(stopped), **memory_line}))
        return
    console.print(
        f"memory: {format_size(arena)} planned for the arena; the process grew by "
        f"{format_size(memory_line['measured_bytes'])} in all, data and display included"
    )
    if save is not None:
        console.print(f"saved {save}{'; go on with --resume' if stopped else ''}")


@app.command()
def simulate(
    config: Annotated[Path, typer.Argument(help="The fleet's TOML file.")],
    report: Annotated[Path | None, typer.Option(help="Write a report there, as HTML.")] = None,
    checkpoints: Annotated[
        Path | None, typer.Option(help="Keep every version there, and go on from the newest.")
    ] = None,
    json_path: Annotated[
        str | None, typer.Option("--json", help="Write JSON there; - is standard output.")
    ] = None,
) -> None:
    """Run a simulated fleet: every device a real worker process, its time and energy modelled."""
    # The fleet brings Flower, which the other commands do without.
    from edgetrain.config import FleetConfig  # noqa: PLC0415
    from edgetrain.coordinator.simulation.simulate import simulate as run  # noqa: PLC0415

    result = run(FleetConfig.from_toml(config), checkpoints=checkpoints, progress=True)
    if report is not None:
        result.to_html(report)
    if json_path == "-":
        print(result.to_json())
        return
    if json_path is not None:
        result.to_json(Path(json_path))
    result.print()
    if report is not None:
        print(f"report: {report}")


def plan_fields(plan: Plan) -> dict[str, object]:
    """Return a plan as JSON-ready fields."""
    return {
        "mode": plan.mode,
        "batch": plan.batch,
        "micro_batch": plan.micro_batch,
        "threads": plan.threads,
        "peak_bytes": plan.peak_bytes,
        "lower_bound_bytes": plan.lower_bound_bytes,
        "tensors": [
            {
                "name": placement.tensor.name,
                "first": placement.tensor.first,
                "last": placement.tensor.last,
                "offset": placement.offset,
                "bytes": placement.tensor.bytes,
            }
            for placement in plan.placements
        ],
    }


def epoch_fields(epoch: int, learnt: Metrics, test: Metrics) -> dict[str, float]:
    """Return one epoch's figures as JSON-ready fields."""
    return {
        "epoch": epoch,
        "loss": learnt.loss,
        "train_accuracy": learnt.accuracy,
        "test_accuracy": test.accuracy,
        "examples": learnt.examples,
    }


def epoch_line(fields: dict[str, float], epochs: int, stopped: bool) -> str:
    """Return one epoch's figures as a line of text."""
    note = " (stopped within the epoch)" if stopped else ""
    return (
        f"epoch {fields['epoch']:.0f}/{epochs}: loss {fields['loss']:.3f}, training "
        f"{fields['train_accuracy']:.1%}, test {fields['test_accuracy']:.1%}{note}"
    )


def require_checkpoint(path: Path | None) -> Path:
    """Return the checkpoint to go on from. Raises ConfigError where there is none."""
    if path is None or not path.exists():
        raise ConfigError(f"nothing to resume: {path or '--save'} does not name a checkpoint")
    return path


@contextmanager
def stop_on_interrupt() -> Iterator[list[int]]:
    """Collect the first Ctrl-C in the list that is yielded; a second one interrupts as usual."""
    asked: list[int] = []

    def ask(number: int, _: object) -> None:
        asked.append(number)
        print("stopping after this step; Ctrl-C again to abandon it", file=sys.stderr)
        signal.signal(signal.SIGINT, before)

    before = signal.signal(signal.SIGINT, ask)
    try:
        yield asked
    finally:
        signal.signal(signal.SIGINT, before)


def main() -> None:
    """Run the command line."""
    run_command(app)
