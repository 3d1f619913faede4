"""`edgetrain-coordinator`: run a federation, look into its checkpoints, take its model out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

from edgetrain.command import fleet_extra, run_command

with fleet_extra("edgetrain-coordinator"):
    import typer

from edgetrain.coordinator.audit_command import audit
from edgetrain.coordinator.checkpoint import Checkpoint, newest_file, read_checkpoint
from edgetrain.coordinator.control import commands as control
from edgetrain.coordinator.service.commands import DEFAULT_FOLDER, Folder, placed, register
from edgetrain.coordinator.service.status import checkpoints_of

__all__ = ["app", "main"]

app = typer.Typer(
    help="The coordinator's side of a fleet: run a federation, and look after its model.",
    no_args_is_help=True,
    add_completion=False,
)

register(app)
control.register(app)
app.command()(audit)

CheckpointArgument = Annotated[
    Path, typer.Argument(help="A checkpoint, or a folder of them: then the newest.")
]


@app.command()
def inspect(
    checkpoint: CheckpointArgument,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON and nothing else.")] = False,
) -> None:
    """Show which version a checkpoint holds and how it came about."""
    path = newest_file(checkpoint)
    found = describe(path, read_checkpoint(path))
    if as_json:
        print(json.dumps(found))
        return
    width = max(map(len, found))
    for name, value in found.items():
        shown = ", ".join(map(str, value)) if isinstance(value, list) else value
        print(f"{name.replace('_', ' '):<{width}}  {shown}")


@app.command()
def export(
    model: Annotated[Path, typer.Argument(help="Where to write the model.")],
    checkpoint: Annotated[
        Path | None,
        typer.Argument(help="A checkpoint or a folder of them; the federation's, without."),
    ] = None,
    *,
    folder: Folder = DEFAULT_FOLDER,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON and nothing else.")] = False,
) -> None:
    """Write the fleet's model as a checkpoint that `edgetrain.load` and `edgetrain train` read.

    Without a CHECKPOINT, it is the newest version of the federation's run.
    """
    from edgetrain.planner import plan  # noqa: PLC0415 - the engine, for this command alone
    from edgetrain.train import Trainer  # noqa: PLC0415

    path = newest_file(checkpoint or checkpoints_of(placed(folder)))
    kept = read_checkpoint(path)
    training = kept.fleet["training"]
    trainer = Trainer(
        plan(kept.model.model, training["batch"], kept.model.mode),
        training["seed"],
        training["learning_rate"],
    )
    trainer.load_state(kept.model.state())
    trainer.save(model)
    version = kept.model.version
    told = json.dumps({"file": str(model), "version": version})
    print(told if as_json else f"wrote version {version} to {model}")


def describe(path: Path, checkpoint: Checkpoint) -> dict[str, Any]:
    """Return what a checkpoint holds as JSON's types."""
    model, history = checkpoint.model, checkpoint.history
    judged = [record.accuracy for record in history.rounds if record.accuracy is not None]
    return {
        "file": str(path),
        "version": model.version,
        "rounds": checkpoint.fleet["training"]["rounds"],
        "mode": model.mode,
        "layers": [list(array.shape) for array in model.weights.values()],
        "parameters": sum(array.size for array in model.weights.values()),
        "devices": len(history.devices),
        "examples": sum(record.examples for record in history.rounds),
        "final_accuracy": judged[-1] if judged else None,
        "accuracy": [record.accuracy for record in history.rounds],
    }


def main() -> None:
    """Run the command line."""
    run_command(app)


if __name__ == "__main__":
    main()
