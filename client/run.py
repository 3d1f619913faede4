"""run_task: one task on one device's data, in a process of its own, inside the owner's budget."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

from edgetrain.client.account import accounted, plan_summary
from edgetrain.client.held import admitted, counted, early, held_to, why_killed
from edgetrain.client.job import Job, Workplace
from edgetrain.client.processes import Ended, run_fresh, run_warm
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
from edgetrain.memory_profiler.enforce.admission import Policy
from edgetrain.memory_profiler.enforce.joules import Counted
from edgetrain.memory_profiler.enforce.limits import Limits
from edgetrain.model import Model
from edgetrain.storage import replace_file
from edgetrain.task import Kind, Mode, PlanSummary, Report, Status, Task, one_line

__all__ = ["plan_task", "run_task"]

HANGING_SECONDS = 3600.0
"""No task may take longer, even where no clock but a simulated one judges it."""
PLANS_REMEMBERED = 512
ANY_TIME = Policy()
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
    workplace: Workplace | None = None,
    simulated: bool = False,
    ledger: Path | None = None,
    ledger_key: Path | None = None,
    policy: Policy = ANY_TIME,
) -> Report:
    """Return the report of a task, done in a worker process.

    A plan is chosen that keeps the budget; where none does, or where the device has no examples
    (`dataset` None), the report politely declines. Whatever goes wrong with the data or with the
    process is a "failed" report that names the cause. Raises StorageError when the task cannot be
    written for the worker or the ledger cannot be written, PayloadError when `ledger` is none,
    ConfigError when the key cannot be used.

    `device` is this machine unless given. A task begins only where this machine has the memory left
    and `policy` allows it (see enforce.admission). The worker is held to the budget's memory and
    energy, the owner's seconds and the task's deadline: where it passes one it is stopped, and
    reports what it has learnt so far; a plan that was killed for its memory is not tried again
    with the same ledger. Task and report are temporary without a `workplace`; with one that names a
    checkpoint a training goes on where it was cut off, is limited anew, and reports the time and
    the joules of its last part. `simulated` is for a device that is not this machine: it is held
    to no limit, its time is not judged by this machine's clock (the owner's seconds are by the
    modelled speed, the deadline by the caller), and its worker may have done other tasks. Its
    peak memory is that of the first task of the same shape, which a fresh worker does.
    `ledger` is the file that keeps account: the intent is on the disk before the worker starts,
    the outcome before this returns; a task that declines uses nothing and is not written. Another
    task with the same ledger waits meanwhile. The report carries the ledger's digest, signed with
    the key in `ledger_key`: beside the ledger, and made when it is missing, unless given.
    """
    device = device or Device()
    try:
        choice = plan_unlike_killed(task, dataset, budget, device, ledger)
        if choice is not None and not simulated:
            admitted(choice.estimate, policy)
    except (BudgetError, ConfigError, ModelError) as error:
        return refusal(task, "declined", error)
    except EdgetrainError as error:
        return refusal(task, "failed", error)
    if choice is None:
        return refusal(task, "declined", "no examples")
    shape = (task.device, str(dataset), task.kind, task.codec, task.model, plan_summary(choice))
    limits = Limits(seconds=HANGING_SECONDS)
    if not simulated:
        limits = held_to(choice, budget, device, time_limit(task, budget))
    with accounted(ledger, ledger_key, task, choice, budget) as settle, place(workplace) as there:
        job = job_of(task, dataset, choice, there, durable=workplace is not None)
        if simulated:
            ended = run_warm(job, limits) if shape in PEAKS else run_fresh(job, limits)
            report = with_modelled_use(collect(task, Path(job.report), ended, limits), choice)
            return settle(with_fresh_peak(report, shape), ended)
        energy = counted(device)
        ended = run_fresh(job, limits, energy.joules if energy else None)
        report = with_use(collect(task, Path(job.report), ended, limits), choice, energy)
        return settle(report, ended)


def plan_unlike_killed(
    task: Task, dataset: Path | str | None, budget: Budget, device: Device, ledger: Path | None
) -> Choice | None:
    """Return the plan for a task as plan_task does, but none that was killed for its memory.

    Raises PayloadError when the quarantine beside the ledger is damaged.
    """
    if ledger is None:
        return plan_task(task, dataset, budget, device)
    from edgetrain.memory_profiler.quarantine import Quarantine  # noqa: PLC0415  (loads hashlib)

    quarantine = Quarantine(ledger)
    ceiling = quarantine.ceiling(task)
    if ceiling is None or (budget.memory is not None and budget.memory <= ceiling):
        return plan_task(task, dataset, budget, device)
    try:
        return plan_task(task, dataset, replace(budget, memory=ceiling), device)
    except BudgetError as error:
        raise BudgetError(
            f"larger plans were killed here, and {error}; or remove {quarantine.path} to try again"
        ) from None


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


@contextmanager
def place(workplace: Workplace | None) -> Iterator[Workplace]:
    """Yield where the files of a task lie; without such a place they are gone at the end."""
    if workplace is not None:
        yield workplace
        return
    with tempfile.TemporaryDirectory(prefix="edgetrain-") as folder:
        yield Workplace(Path(folder))


def job_of(
    task: Task, dataset: Path | str | None, choice: Choice, there: Workplace, *, durable: bool
) -> Job:
    """Return the job of a task, whose file is there, and no report yet."""
    report, encoded = there.folder / "report", there.encoded or there.folder / "task"
    report.unlink(missing_ok=True)
    if there.encoded is None:
        replace_file(encoded, [task.encode()], durable=durable)
    return Job(
        task=str(encoded),
        data=str(dataset),
        report=str(report),
        micro_batch=choice.plan.micro_batch,
        threads=choice.plan.threads,
        recompute=choice.plan.recomputed > 0,
        durable=durable,
        checkpoint=str(there.checkpoint) if there.checkpoint else None,
        checkpoint_seconds=there.checkpoint_seconds,
    )


def collect(task: Task, path: Path, ended: Ended, limits: Limits) -> Report:
    """Return the report that the worker left, or one that says why it left none."""
    if not path.exists():
        return refusal(task, "failed", why_killed(ended, limits))
    try:
        report = Report.decode(path.read_bytes(), task)
    except (PayloadError, OSError) as error:
        return refusal(task, "failed", f"the worker's report cannot be read: {error}")
    if report.examples and report.reason:
        return replace(report, reason=early(ended, limits) or report.reason)
    return report


def refusal(task: Task, status: Status, reason: object) -> Report:
    """Return a report with zero examples and a reason."""
    return Report(status, task.version, task.device, reason=one_line(reason))


def with_use(report: Report, choice: Choice, energy: Counted | None) -> Report:
    """Return the report with its plan, and the joules that were counted beside what it tells."""
    used = energy.used() if energy else None
    return replace(
        report,
        plan=plan_summary(choice),
        predicted_peak_bytes=choice.estimate.peak_bytes,
        joules=used,
        energy_source=energy.source if energy and used is not None else "none",
    )


def with_modelled_use(report: Report, choice: Choice) -> Report:
    """Return a simulated device's report with what the plan was expected to use.

    The seconds are the modelled ones: this machine's would say nothing about that device, and would
    make two reports of one task differ in length.
    """
    expected = choice.estimate
    energy = expected.energy
    share = report.examples / expected.examples
    # A task that failed has used energy as well; nobody knows how much.
    known = energy is not None and report.examples > 0
    return replace(
        report,
        plan=plan_summary(choice),
        predicted_peak_bytes=expected.peak_bytes,
        seconds=share * expected.seconds.middle if expected.seconds else 0.0,
        joules=share * energy.middle if energy and known else None,
        energy_source=expected.energy_source if known else "none",
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
