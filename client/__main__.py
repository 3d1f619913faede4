"""`edgetrain-client`: the device's side of a fleet, by hand."""

from __future__ import annotations

import json as json_text
from pathlib import Path
from typing import Annotated, Any

from edgetrain.command import fleet_extra, run_command

with fleet_extra("edgetrain-client"):
    import typer
    from rich.console import Console
    from rich.table import Table

from edgetrain.client.run import run_task as do_task
from edgetrain.errors import BudgetError, WorkerError
from edgetrain.memory_profiler.budget import Budget, format_joules, format_seconds
from edgetrain.memory_profiler.device import Device
from edgetrain.sizes import format_size
from edgetrain.storage import map_file
from edgetrain.task import Report, Task

__all__ = ["app", "main"]

app = typer.Typer(
    help="The device's side of a fleet: do a training task inside a budget.",
    no_args_is_help=True,
    add_completion=False,
)


@app.callback()
def commands() -> None:
    """Keep `run-task` a command of its own, because others will stand beside it."""


@app.command()
def run_task(
    *,
    task: Annotated[Path, typer.Option(help="The encoded task, as a coordinator sent it.")],
    data: Annotated[Path, typer.Option(help="The device's data, a .etd file.")],
    report: Annotated[
        Path | None, typer.Option(help="Where to write the report that a coordinator takes.")
    ] = None,
    memory: Annotated[
        str | None, typer.Option(help="Most memory of the training process, e.g. 48MiB.")
    ] = None,
    energy: Annotated[
        str | None, typer.Option(help="Most energy, e.g. 20J; needs --watts and a rate.")
    ] = None,
    seconds: Annotated[
        str | None, typer.Option(help="Stop after this time, e.g. 90s, and keep what was learnt.")
    ] = None,
    threads: Annotated[int, typer.Option(min=1, help="Processor cores to use.")] = 1,
    examples_per_second: Annotated[
        float | None, typer.Option(help="Examples that this device trains on in a second.")
    ] = None,
    watts: Annotated[float | None, typer.Option(help="Power it draws meanwhile.")] = None,
    ledger: Annotated[
        Path | None,
        typer.Option(help="Keep account in this file: what was promised and what was used."),
    ] = None,
    ledger_key: Annotated[
        Path | None,
        typer.Option(help="The key that signs the account; made beside it unless given."),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Do one task on this device's data, in a process of its own, inside a budget.

    Exit code 14: no plan keeps the budget, so nothing was run.

    Exit code 18: the task failed. Either way the report says why.
    """
    done = do_task(
        Task.decode(map_file(task)),
        data,
        Budget.parse(memory, energy, seconds),
        Device(examples_per_second=examples_per_second, watts=watts, threads=threads),
        ledger=ledger,
        ledger_key=ledger_key,
    )
    if report is not None:
        done.write(report)
    show(done, json=json)
    if done.status == "declined":
        raise BudgetError(f"declined: {done.reason}")
    if done.status == "failed":
        raise WorkerError(f"failed: {done.reason}")


def main() -> None:
    """Run the command line."""
    run_command(app)


def show(report: Report, *, json: bool) -> None:
    """Print a report but for its tensors."""
    update_bytes = sum(len(tensor.data) for tensor in report.update.values())
    fields: dict[str, Any] = report.to_fields() | {"update_bytes": update_bytes}
    if json:
        print(json_text.dumps(fields, indent=2))
        return
    table = Table("", "", show_header=False, box=None)
    for name, value in fields.items():
        if value not in (None, ""):
            table.add_row(name.replace("_", " "), written(name, value))
    Console().print(table)


def written(name: str, value: Any) -> str:
    """Return a field of a report as people read it."""
    if name.endswith("_bytes"):
        return format_size(value)
    if name == "plan":
        return ", ".join(f"{key.replace('_', ' ')} {found}" for key, found in value.items())
    if name == "digest":
        return f"{value['tasks']} tasks, signed, {value['head']}"
    if name == "accuracy":
        return f"{value:.1%}"
    if name in ("seconds", "joules"):
        return format_seconds(value) if name == "seconds" else format_joules(value)
    return f"{value:.4f}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    main()
