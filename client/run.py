"""run_task: one task on one device's data, in a process of its own, inside the owner's budget."""

from __future__ import annotations

import signal
import subprocess
import tempfile
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

from edgetrain.client.worker import Job, debug_wanted
from edgetrain.data import store
from edgetrain.errors import (
    BudgetError,
    ConfigError,
    EdgetrainError,
    ModelError,
    PayloadError,
    WorkerError,
)
from edgetrain.memory_profiler.budget import Budget
from edgetrain.memory_profiler.choose import Choice, choose
from edgetrain.memory_profiler.device import Device
from edgetrain.memory_profiler.memory import WORKER, worker_command
from edgetrain.model import Model
from edgetrain.storage import replace_file
from edgetrain.task import Kind, Mode, PlanSummary, Report, Status, Task, one_line

__all__ = ["GRACE_SECONDS", "plan_task", "run_task"]

GRACE_SECONDS = 2.0
"""From the request to stop to the end of the process: time for one micro-batch and the report."""
HANGING_SECONDS = 3600.0
"""No task may take longer, even where no clock but a simulated one judges it."""
PLANS_REMEMBERED = 512


@dataclass(frozen=True)
class Outcome:
    """How a worker process ended: its exit code, the last line it wrote, when it was stopped."""

    code: int
    line: str
    stopped_after: float | None


def run_task(
    task: Task,
    dataset: Path | str | None,
    budget: Budget,
    device: Device | None = None,
    *,
    folder: Path | None = None,
    virtual_clock: bool = False,
) -> Report:
    """Return the report of a task, done in a worker process of its own.

    A plan is chosen that keeps the budget; where none does, or where the device has no examples
    (`dataset` None), the report politely declines. Whatever goes wrong with the data or with the
    process is a "failed" report that names the cause. Raises StorageError alone, when the task
    cannot be written for the worker.

    `device` is this machine unless given. The owner's seconds and the task's deadline stop the
    worker, which then reports what it has learnt so far; with `virtual_clock` the owner's seconds
    are judged by the device's modelled speed alone, and the deadline by the caller. Task and
    report lie in `folder` and stay there, safely on the disk; without it they are temporary.
    """
    try:
        choice = plan_task(task, dataset, budget, device or Device())
    except (BudgetError, ConfigError, ModelError) as error:
        return refusal(task, "declined", error)
    except EdgetrainError as error:
        return refusal(task, "failed", error)
    if choice is None:
        return refusal(task, "declined", "no examples")
    limit = HANGING_SECONDS if virtual_clock else time_limit(task, budget)
    with place(folder) as there:
        job = Job(
            task=str(Path(there) / "task"),
            data=str(dataset),
            report=str(Path(there) / "report"),
            micro_batch=choice.plan.micro_batch,
            threads=choice.plan.threads,
            durable=folder is not None,
        )
        Path(job.report).unlink(missing_ok=True)
        replace_file(Path(job.task), [task.encode()], durable=job.durable)
        report = collect(task, Path(job.report), run_worker(job, limit))
    return with_expectations(report, choice)


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


def run_worker(job: Job, limit: float) -> Outcome:
    """Run a worker to its end, and stop it when `limit` seconds have passed.

    SIGTERM lets it report what it has; GRACE_SECONDS later SIGKILL ends it. A group of its own
    keeps it from a terminal's Ctrl-C, which is this process's to handle.
    """
    debug = debug_wanted()
    try:
        process = subprocess.Popen(
            worker_command(WORKER, job.to_json()),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=None if debug else subprocess.PIPE,
            text=True,
            errors="replace",
            process_group=0,
        )
    except OSError as error:
        return Outcome(WorkerError.exit_code, f"cannot start a process: {error.strerror}", None)
    stopped_after = None
    try:
        for seconds, stop in ((limit, process.terminate), (GRACE_SECONDS, process.kill)):
            try:
                _, text = process.communicate(timeout=seconds)
                break
            except subprocess.TimeoutExpired:
                stopped_after = limit
                stop()
        else:
            _, text = process.communicate()
    except BaseException:
        process.kill()
        process.wait()
        raise
    line = (text or "").strip().rpartition("\n")[2]
    return Outcome(process.returncode, line.removeprefix("error: "), stopped_after)


def collect(task: Task, path: Path, outcome: Outcome) -> Report:
    """Return the report that the worker left, or one that says why it left none."""
    if not path.exists():
        return refusal(task, "failed", cause_of(outcome))
    try:
        report = Report.decode(path.read_bytes(), task)
    except (PayloadError, OSError) as error:
        return refusal(task, "failed", f"the worker's report cannot be read: {error}")
    if report.status == "trained" and outcome.stopped_after is not None:
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


def with_expectations(report: Report, choice: Choice) -> Report:
    """Return the report with what the plan was expected to use beside what it used."""
    expected = choice.estimate
    energy = expected.energy
    plan = choice.plan
    return replace(
        report,
        plan=PlanSummary(plan.mode, plan.micro_batch, plan.threads, plan.peak_bytes),
        predicted_peak_bytes=expected.peak_bytes,
        joules=energy.middle * report.examples / expected.examples if energy else None,
        energy_source=expected.source if energy else "none",
    )
