"""Bookkeeping: how each answer changes the record of its round and of its device."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from edgetrain.coordinator.aggregate import Accumulator
from edgetrain.coordinator.allowance import WITHHELD
from edgetrain.coordinator.exchange import Answer, Member
from edgetrain.coordinator.history import DeviceRecord, RoundRecord
from edgetrain.sizes import format_size
from edgetrain.task import PlanSummary, Report, one_line

__all__ = [
    "Loss",
    "answered",
    "folded",
    "introduced",
    "mean",
    "plan_text",
    "tallied",
    "weighed",
]


def tallied(record: RoundRecord, answer: Answer) -> RoundRecord:
    """Return the record of a round with one more answer in it."""
    losses = dict(record.losses)
    if answer.status not in ("trained", "evaluated"):
        losses[answer.status] = losses.get(answer.status, 0) + 1
    return replace(
        record,
        uplink_bytes=record.uplink_bytes + answer.uplink_bytes,
        downlink_bytes=record.downlink_bytes + answer.downlink_bytes,
        losses=losses,
    )


def introduced(member: Member, before: DeviceRecord | None = None) -> DeviceRecord:
    """Return the record of a member that has just said who it is, or said so again."""
    return replace(
        before or DeviceRecord(member.name),
        device_class=member.device_class,
        role=member.role,
        memory=member.memory,
        held=member.examples,
    )


MOST_REASONS = 8
"""Different reasons that a device's record names; a hostile device could invent any number."""
OTHER_REASONS = "other reasons"


@dataclass(frozen=True)
class Loss:
    """What the means of a round need of one report; they are ordered by the device's name."""

    device: str
    examples: int
    loss: float
    right: int


def weighed(answer: Answer, status: str) -> list[Loss]:
    """Return the answer's loss in a list, which is empty unless it has that status."""
    report = answer.report
    if report is None or answer.status != status or report.loss is None:
        return []
    right = round((report.accuracy or 0.0) * report.examples)
    return [Loss(report.device, report.examples, report.loss, right)]


def mean(losses: Sequence[Loss]) -> float | None:
    """Return the loss an example, summed by name: floats must not feel the order of arrival."""
    total = sum(one.examples for one in losses)
    ordered = sorted(losses, key=lambda one: one.device)
    return sum(one.loss * one.examples for one in ordered) / total if total else None


def folded(accumulator: Accumulator, answer: Answer) -> Answer:
    """Return an answer after its update, if it has one, was added to the round's sum."""
    if answer.report is None or answer.status != "trained":
        return answer
    refused = accumulator.fold(answer.report, answer.task.state if answer.task else None)
    if refused is None:
        return answer
    return replace(answer, status="refused", reason=one_line(f"refused: {refused}"))


def answered(record: DeviceRecord, answer: Answer) -> DeviceRecord:
    """Return a device's record after one more answer of its own."""
    reasons = dict(record.reasons)
    if answer.reason:
        known = answer.reason in reasons or len(reasons) < MOST_REASONS
        reason = answer.reason if known else OTHER_REASONS
        reasons[reason] = reasons.get(reason, 0) + 1
    record = replace(
        record,
        asked=record.asked + (answer.status != WITHHELD),
        absences=record.absences + (answer.status == "absent"),
        status=answer.status,
        reasons=reasons,
        uplink_bytes=record.uplink_bytes + answer.uplink_bytes,
        downlink_bytes=record.downlink_bytes + answer.downlink_bytes,
    )
    if answer.report is None:
        return record
    return reported(record, answer.report, counted=answer.status in ("trained", "evaluated"))


def reported(record: DeviceRecord, report: Report, *, counted: bool) -> DeviceRecord:
    """Return a device's record with what its report says; examples only where it `counted`."""
    joules = record.joules
    if report.joules is not None:
        joules = (joules or 0.0) + report.joules
    return replace(
        record,
        answered=record.answered + counted,
        examples=record.examples + counted * report.examples,
        plan=record.plan if report.plan is None else plan_text(report.plan),
        predicted_peak_bytes=largest(record.predicted_peak_bytes, report.predicted_peak_bytes),
        measured_peak_bytes=largest(record.measured_peak_bytes, report.measured_peak_bytes),
        seconds=record.seconds + report.seconds,
        joules=joules,
        digest=report.digest or record.digest,
        energy_source=report.energy_source if report.joules is not None else record.energy_source,
        accuracy=record.accuracy if report.accuracy is None else report.accuracy,
    )


def largest(one: int | None, other: int | None) -> int | None:
    """Return the larger of two numbers of which either may be unknown."""
    return max((value for value in (one, other) if value is not None), default=None)


def plan_text(plan: PlanSummary) -> str:
    """Return a plan in words, e.g. "bnn, 32 at a time, 1 thread, arena 0.9 MiB"."""
    threads = "1 thread" if plan.threads == 1 else f"{plan.threads} threads"
    arena = format_size(plan.arena_bytes)
    return f"{plan.mode}, {plan.micro_batch} at a time, {threads}, arena {arena}"
