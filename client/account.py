"""What run_task writes into the device's ledger, where it keeps one."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, cast

from edgetrain.client.held import short_of_memory
from edgetrain.client.processes import Ended
from edgetrain.memory_profiler.budget import Budget
from edgetrain.memory_profiler.choose import Choice
from edgetrain.task import PlanSummary, Report, Task

if TYPE_CHECKING:
    from edgetrain.memory_profiler.ledger_line import Intent, Outcome, OutcomeStatus

__all__ = ["accounted", "plan_summary"]

KEY_SUFFIX = ".key"
Settle = Callable[[Report, Ended], Report]


@contextlib.contextmanager
def accounted(
    path: Path | None, key: Path | None, task: Task, choice: Choice, budget: Budget
) -> Iterator[Settle]:
    """Hold the ledger for a task that is about to run; what is yielded takes its report.

    The intent is on the disk when the context is entered, the outcome when the report has been
    taken, with how its process ended; the report is given back with the ledger's digest, signed
    with the key in the file `key`, which is the ledger's name with KEY_SUFFIX unless given. A
    context left without a report leaves an interrupted task. Without a path nothing is written or
    signed. Raises StorageError and PayloadError as Ledger does, ConfigError as device_key does.
    """
    if path is None:
        yield lambda report, _: report
        return
    # Only who keeps a ledger pays for hashlib and for signing.
    from edgetrain.memory_profiler.ledger import Ledger  # noqa: PLC0415
    from edgetrain.memory_profiler.quarantine import Quarantine  # noqa: PLC0415
    from edgetrain.memory_profiler.signature import device_key, signed_digest  # noqa: PLC0415

    with Ledger(path) as ledger:
        signer = device_key(key or path.with_name(path.name + KEY_SUFFIX))
        ledger.begin(intent_of(task, choice, budget))

        def settle(report: Report, ended: Ended) -> Report:
            # First, because whoever is ended in between must not try the plan again.
            if short_of_memory(ended):
                Quarantine(path).lower(task, choice.estimate.memory.high)
            ledger.end(outcome_of(report, ended))
            return replace(report, digest=signed_digest(ledger, signer))

        yield settle


def intent_of(task: Task, choice: Choice, budget: Budget) -> Intent:
    """Return what the task is about to use, as it was chosen inside the owner's budget."""
    from edgetrain.memory_profiler.ledger_line import Intent  # noqa: PLC0415

    expected = choice.estimate
    energy = expected.energy
    return Intent(
        kind=task.kind,
        version=task.version,
        device=task.device,
        plan=plan_summary(choice),
        predicted_peak_bytes=expected.peak_bytes,
        budget=budget,
        joules=energy.middle if energy else None,
        joules_source=expected.energy_source if energy else "none",
    )


def outcome_of(report: Report, ended: Ended) -> Outcome:
    """Return what a task that ran has used; of one that failed, only what was measured."""
    from edgetrain.memory_profiler.ledger_line import Outcome  # noqa: PLC0415

    worked = report.status in ("trained", "evaluated")
    return Outcome(
        status=cast("OutcomeStatus", report.status),
        reason=report.reason,
        measured_peak_bytes=report.measured_peak_bytes,
        examples=report.examples if worked else None,
        # A report that no worker wrote says 0, which is nobody's measurement.
        seconds=report.seconds or None,
        joules=report.joules,
        joules_source=report.energy_source if report.joules is not None else "none",
        enforcement=ended.enforced.enforcement if ended.enforced else None,
        cause=ended.cause if ended.enforced else None,
        cgroup_peak_bytes=ended.enforced.cgroup_peak if ended.enforced else None,
        network=ended.enforced.network if ended.enforced else None,
    )


def plan_summary(choice: Choice) -> PlanSummary:
    """Return the plan that was chosen, as reports and ledgers tell it."""
    plan = choice.plan
    return PlanSummary(plan.mode, plan.micro_batch, plan.threads, plan.peak_bytes)
