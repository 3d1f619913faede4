"""Bookkeeping: how each answer changes the record of its round and of its device."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

from edgetrain.coordinator.allowance import WITHHELD
from edgetrain.coordinator.answer import Answer, Member
from edgetrain.coordinator.history import DeviceRecord, RoundRecord
from edgetrain.sizes import format_size
from edgetrain.task import PlanSummary, Report

__all__ = ["Means", "answered", "introduced", "plan_text", "tallied"]


def tallied(record: RoundRecord, answer: Answer) -> RoundRecord:
    """Return the record of a round with one more answer in it."""
    losses = dict(record.losses)
    if answer.status not in ("trained", "evaluated"):
        losses[answer.status] = losses.get(answer.status, 0) + 1
    refusals = dict(record.refusals)
    if answer.refusal:
        refusals[answer.refusal] = refusals.get(answer.refusal, 0) + 1
    return replace(
        record,
        uplink_bytes=record.uplink_bytes + answer.uplink_bytes,
        downlink_bytes=record.downlink_bytes + answer.downlink_bytes,
        losses=losses,
        refusals=refusals,
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


class Means:
    """The mean loss and accuracy of many reports, by examples: exact sums, in any order.

    Fractions hold every float exactly, and their size does not grow with the number of reports.
    """

    def __init__(self) -> None:
        self.examples = 0
        self._right = 0
        self._loss = Fraction(0)

    def add(self, answer: Answer, status: str) -> None:
        """Add what an answer says, if it has that status."""
        report = answer.report
        if report is None or answer.status != status or report.loss is None:
            return
        self.examples += report.examples
        self._right += round((report.accuracy or 0.0) * report.examples)
        self._loss += Fraction(report.loss) * report.examples

    @property
    def loss(self) -> float | None:
        """The mean loss of an example, or None without any."""
        return float(self._loss / self.examples) if self.examples else None

    @property
    def accuracy(self) -> float | None:
        """The share of examples that were right, or None without any."""
        return self._right / self.examples if self.examples else None


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
        counted=report.version if counted and report.update else record.counted,
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
