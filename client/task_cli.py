"""`edgetrain-client run-task`: one task by hand."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgetrain.client.console import Commands, add_command, in_words, show

if TYPE_CHECKING:
    from edgetrain.task import Report

__all__ = ["add_budget", "add_commands"]


def add_commands(commands: Commands) -> None:
    """Add the command to a parser."""
    parser = add_command(commands, "run-task", run_task)
    parser.add_argument(
        "--task", type=Path, required=True, help="the encoded task, as a coordinator sent it"
    )
    parser.add_argument("--data", type=Path, required=True, help="the device's data, a .etd file")
    parser.add_argument(
        "--report", type=Path, help="where to write the report that a coordinator takes"
    )
    add_budget(parser)
    parser.add_argument("--ledger-key", type=Path, help="the key that signs the account")


def add_budget(parser: argparse.ArgumentParser) -> None:
    """Add the options by which an owner says what a task may use, and on which machine."""
    parser.add_argument(
        "--memory", metavar="SIZE", help="most memory of the training process, e.g. 48MiB"
    )
    parser.add_argument(
        "--energy", metavar="JOULES", help="most energy, e.g. 20J; needs --watts and a rate"
    )
    parser.add_argument(
        "--seconds", metavar="TIME", help="stop after this time, e.g. 90s, and keep what was learnt"
    )
    parser.add_argument("--threads", type=int, metavar="N", help="processor cores to use")
    parser.add_argument(
        "--examples-per-second", type=float, metavar="RATE", help="how fast this device trains"
    )
    parser.add_argument("--watts", type=float, metavar="POWER", help="power it draws meanwhile")
    parser.add_argument(
        "--battery", type=float, metavar="SHARE", help="begin only with this charge, 0 to 1"
    )
    parser.add_argument(
        "--charger",
        action="store_const",
        const="connected",
        help="begin only if a charger is connected",
    )
    parser.add_argument(
        "--celsius", type=float, metavar="DEGREES", help="begin only if no part is hotter"
    )
    parser.add_argument(
        "--ledger",
        metavar="FILE",
        help="keep account in this file: what was promised and what was used",
    )


def run_task(options: argparse.Namespace) -> None:
    """Do one task on this device's data, in a process of its own, inside a budget.

    Exit code 14: no plan keeps the budget, or this is not the time, so nothing was run.
    Exit code 18: the task failed. Either way the report says why.
    """
    # The other commands do without the planner.
    from edgetrain.client.run import run_task as do_task  # noqa: PLC0415
    from edgetrain.errors import BudgetError, WorkerError  # noqa: PLC0415
    from edgetrain.memory_profiler.budget import Budget  # noqa: PLC0415
    from edgetrain.memory_profiler.device import Device  # noqa: PLC0415
    from edgetrain.memory_profiler.enforce.admission import Policy  # noqa: PLC0415
    from edgetrain.storage import map_file  # noqa: PLC0415
    from edgetrain.task import Task  # noqa: PLC0415

    device = Device(
        examples_per_second=options.examples_per_second,
        watts=options.watts,
        threads=options.threads or 1,
    )
    done = do_task(
        Task.decode(map_file(options.task)),
        options.data,
        Budget.parse(options.memory, options.energy, options.seconds),
        device,
        ledger=None if options.ledger is None else Path(options.ledger),
        ledger_key=options.ledger_key,
        policy=Policy(
            battery=options.battery, charger=bool(options.charger), celsius=options.celsius
        ),
    )
    if options.report is not None:
        done.write(options.report)
    show_report(done, as_json=options.json)
    if done.status == "declined":
        raise BudgetError(f"declined: {done.reason}")
    if done.status == "failed":
        raise WorkerError(f"failed: {done.reason}")


def show_report(report: Report, *, as_json: bool) -> None:
    """Print a report but for its tensors."""
    update_bytes = sum(len(tensor.data) for tensor in report.update.values())
    fields = report.to_fields() | {"update_bytes": update_bytes}
    if not as_json:
        fields = {
            name: None if value is None else written(name, value) for name, value in fields.items()
        }
    show(fields, as_json=as_json)


def written(name: str, value: Any) -> str:
    """Return a field of a report as people read it."""
    from edgetrain.memory_profiler.budget import format_joules, format_seconds  # noqa: PLC0415
    from edgetrain.sizes import format_size  # noqa: PLC0415

    if name.endswith("_bytes"):
        return format_size(value)
    if name == "digest":
        return f"{value['tasks']} tasks, signed, {value['head']}"
    if name == "accuracy":
        return f"{value:.1%}"
    if name in ("seconds", "joules"):
        return format_seconds(value) if name == "seconds" else format_joules(value)
    return f"{value:.4f}" if isinstance(value, float) else in_words(value)
