"""run_task: one task on one device's data, in a process of its own, inside the owner's budget."""

from __future__ import annotations

import signal
import tempfile
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

from edgetrain.client.account import accounted, plan_summary
from edgetrain.client.processes import Outcome, run_fresh, run_warm
from edgetrain.client.worker import Job
from edgetrain.data import store
from edgetrain.errors import (
    BudgetError,
    ConfigError,
    EdgetrainError,
    ModelError,
    PayloadError,
)
from edgetrain.memory_profiler.budget import Budget
from edgetrain.memory_profiler.choose import Choice, choose
from edgetrain.memory_profiler.device import Device
from edgetrain.model import Model
from edgetrain.storage import replace_file
from edgetrain.task import Kind, Mode, PlanSummary, Report, Status, Task, one_line

__all__ = ["plan_task", "run_task"]

HANGING_SECONDS = 3600.0
"""No task may take longer, even where no clock but a simulated one judges it."""
PLANS_REMEMBERED = 512
Shape = tuple[str, str, Kind, str, Model, PlanSummary]
"""All that the peak memory of a task depends on: who, which data, what is asked, which plan."""
PEAKS: dict[Shape, int] = {}
"""Peaks of simulated devices, each measured by a fresh worker."""


def run_task(
    task: Task,
    dataset: Path | str | None,
    budget: Budget,
    device: Device | None = None,
    *,
    folder: Path | None = None,
    simulated: bool = False,
    ledger: Path | None = None,
    ledger_key: Path | None = None,
) -> Report:
    """Return the report of a task, done in a worker process.

    A plan is chosen that keeps the budget; where none does, or where the device has no examples
    (`dataset` None), the report politely declines. Whatever goes wrong with the data or with the
    process is a "failed" report that names the cause. Raises StorageError when the task cannot be
    written for the worker or the ledger cannot be written, PayloadError when `ledger` is none,
    ConfigError when the key cannot be used.

    `device` is this machine unless given. The owner's seconds and the task's deadline stop the
    worker, which then reports what it has learnt so far. Task and report lie in `folder` and stay
    there, safely on the disk; without it they are temporary. `simulated` is for a device that is
    not this machine: its time is not judged by this machine's clock (the owner's seconds are by
    the modelled speed, the deadline by the caller), and its worker may have done other tasks. Its
    peak memory is that of the first task of the same shape, which a fresh worker does.
    `ledger` is the file that keeps account: the intent is on the disk before the worker starts,
    the outcome before this returns; a task that declines uses nothing and is not written. Another
    task with the same ledger waits meanwhile. The report carries the ledger's digest, signed with
    the key in `ledger_key`: beside the ledger, and made when it is missing, unless given.
    """
    try:
        choice = plan_task(task, dataset, budget, device or Device())
    except (BudgetError, ConfigError, ModelError) as error:
        return refusal(task, "declined", error)
    except EdgetrainError as error:
        return refusal(task, "failed", error)
    if choice is None:
        return refusal(task, "declined", "no examples")
    shape = (task.device, str(dataset), task.kind, task.codec, task.model, plan_summary(choice))
    run = run_warm if simulated and shape in PEAKS else run_fresh
    limit = HANGING_SECONDS if simulated else time_limit(task, budget)
    with accounted(ledger, ledger_key, task, choice, budget) as settle, place(folder) as there:
        job = Job(
            task=str(Path(there) / "task"),
            data=str(dataset),
            report=str(Path(there) / "report"),
            micro_batch=choice.plan.micro_batch,
            threads=choice.plan.threads,
            recompute=choice.plan.recomputed > 0,
            durable=folder is not None,
        )
        Path(job.report).unlink(missing_ok=True)
        replace_file(Path(job.task), [task.encode()], durable=job.durable)
        found = collect(task, Path(job.report), run(job, limit))
        report = with_expectations(found, choice, simulated=simulated)
        if simulated:
            report = with_fresh_peak(report, shape)
        return settle(report)


def plan_task(
    task: Task, dataset: Path | str | None, budget: Budget, device: Device
) -> Choice | None:
    """Return the plan for a task and what it should use, or None where there are no examples.

    Seconds are part of the choice only where the device's speed is known. Raises BudgetError
    when nothing fits, DataError for a file that cannot be used.
    """
    if dataset is None:
        return None
    with store.open(dataset) as data:
        examples = data.examples
    passes = task.local_epochs if task.kind == "train" else 1
    if device.operations_per_second is None and device.examples_per_second is None:
        budget = replace(budget, seconds=None)
    size = Path(dataset).stat().st_size
    return choose_plan(
        task.model,
        task.mode,
        task.batch,
        task.codec,
        task.kind,
        passes * examples,
        size,
        budget,
        device,
    )


@lru_cache(maxsize=PLANS_REMEMBERED)
def choose_plan(  # noqa: PLR0917 - a cache does best without keywords
    model: Model,
    mode: Mode,
    batch: int,
    codec: str,
    kind: Kind,
    examples: int,
    dataset_bytes: int,
    budget: Budget,
    device: Device,
) -> Choice:
    """Return the best plan; a device chooses once, not in every round."""
    return choose(
        model,
        budget,
        device,
        batch=batch,
        modes=(mode,),
        # A fleet averages latents of int8, of the layers that its task trains.
        latents=("int8",),
        fewest_trained=None,
        examples=examples,
        dataset_bytes=dataset_bytes,
        codec=codec,
        kind=kind,
    )


def time_limit(task: Task, budget: Budget) -> float:
    """Return the seconds after which a worker is stopped."""
    limits = [limit for limit in (budget.seconds, task.deadline) if limit is not None]
    return min([*limits, HANGING_SECONDS])


def place(folder: Path | None) -> AbstractContextManager[Path | str]:
    """Return a context that holds the folder for task and report."""
    return nullcontext(folder) if folder else tempfile.TemporaryDirectory(prefix="edgetrain-")


def collect(task: Task, path: Path, outcome: Outcome) -> Report:
    """Return the report that the worker left, or one that says why it left none."""
    if not path.exists():
        return refusal(task, "failed", cause_of(outcome))
    try:
        report = Report.decode(path.read_bytes(), task)
    except (PayloadError, OSError) as error:
        return refusal(task, "failed", f"the worker's report cannot be read: {error}")
    if report.examples and report.reason and outcome.stopped_after is not None:
        return replace(report, reason=f"stopped early, after {outcome.stopped_after:g} s")
    return report


def cause_of(outcome: Outcome) -> str:
    """Return why a worker ended without a report, and what may help."""
    if outcome.code == -signal.SIGKILL and outcome.stopped_after is not None:
        return f"took longer than {outcome.stopped_after:g} s and did not stop: allow it more time"
    if outcome.code == -signal.SIGKILL:
        return "the worker was killed, most likely for want of memory: allow it less"
    if outcome.code < 0:
        name = signal.Signals(-outcome.code).name
        return f"the worker was ended by {name}: run it with EDGETRAIN_DEBUG=1 to see where"
    return outcome.line or f"the worker ended with {outcome.code} and without a report"


def refusal(task: Task, status: Status, reason: object) -> Report:
    """Return a report with zero examples and a reason."""
    return Report(status, task.version, task.device, reason=one_line(reason))


def with_expectations(report: Report, choice: Choice, *, simulated: bool) -> Report:
    """Return the report with what the plan was expected to use beside what it used.

    The seconds of a simulated device are the modelled ones: this machine's would say nothing
    about it, and would make two reports of one task differ in length.
    """
    expected = choice.estimate
    energy = expected.energy
    share = report.examples / expected.examples
    modelled = share * expected.seconds.middle if expected.seconds else 0.0
    # A task that failed has used energy as well; nobody knows how much.
    known = energy is not None and report.examples > 0
    return replace(
        report,
        plan=plan_summary(choice),
        predicted_peak_bytes=expected.peak_bytes,
        seconds=modelled if simulated else report.seconds,
        joules=share * energy.middle if energy and known else None,
        energy_source=expected.source if known else "none",
    )


def with_fresh_peak(report: Report, shape: Shape) -> Report:
    """Return the report with the peak that a fresh worker needed for a task of this shape.

    The kernel counts a process's pages on each processor apart, in lots of 32. That count drifts
    in a process that lives through many tasks: its VmHWM was seen to be off by up to 0.6 MiB,
    where its real memory, read to the page, had grown by less than 0.1 MiB.
    """
    if report.measured_peak_bytes is None or report.status == "failed":
        return report
    return replace(report, measured_peak_bytes=PEAKS.setdefault(shape, report.measured_peak_bytes))
