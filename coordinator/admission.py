"""Which reports are refused, and why: one list that checks, counters, pages and documents go by.

A report is judged twice: when it arrives, by the task that it answers, and when it is about to
count, by what is known of its device and of the round. Both raise RefusedError; what is refused
counts nothing, is counted by the name of its refusal, and the round goes on.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from flwr.app import Message

from edgetrain.client.flower_record import payload_of
from edgetrain.coordinator.aggregate import MAXIMUM_EXAMPLES, MAXIMUM_STATISTIC
from edgetrain.coordinator.allowance import check_digest
from edgetrain.coordinator.answer import Answer, Sent
from edgetrain.coordinator.history import DeviceRecord
from edgetrain.errors import PayloadError, RefusedError
from edgetrain.schema import check_form
from edgetrain.task import Report, Task, one_line
from edgetrain.tensorfile import MAX_HEADER_BYTES, State
from edgetrain.update import check_update, update_bytes, update_schema

__all__ = ["REFUSALS", "Standing", "admitted", "read_report", "refused"]

REFUSALS: Mapping[str, str] = {
    "unknown": "it came from another node than the one that the device is known by now",
    "oversize": "it is larger than any report on its task can be",
    "malformed": "its bytes are no report that answers its task",
    "device": "it says that it is by another device than was asked",
    "version": "it is about another version of the model than was asked about",
    "shape": "its tensors are not those of the model: their names, types or shapes",
    "number": "one of its tensors holds a number that cannot be, such as NaN",
    "digest": "the signed digest of its device's ledger cannot be believed",
    "replayed": "its device's report on that version, or on a newer one, was counted already",
    "stale": "it comes more versions late than the run allows",
    "weight": "it stands for more examples than a round can weigh",
}
"""Every name of a refusal, in the order in which reports are checked, and what it means."""


@contextlib.contextmanager
def refusing(refusal: str) -> Iterator[None]:
    """Turn a PayloadError into the refusal of this name."""
    if refusal not in REFUSALS:
        raise ValueError(f"there is no refusal {refusal!r}")
    try:
        yield
    except PayloadError as error:
        raise RefusedError(str(error), refusal) from error


def read_report(reply: Message, sent: Sent, size: int) -> Report:
    """Return the report in a reply of `size` bytes, which must answer the task that was sent.

    Raises RefusedError.
    """
    task = sent.task
    with refusing("unknown"):
        if reply.metadata.src_node_id != sent.member.node_id:
            raise PayloadError(f"it came from node {reply.metadata.src_node_id}")
    with refusing("oversize"):
        check_size(size, task)
    with refusing("malformed"):
        report = Report.read(payload_of(reply.content))
        report.check_kind(task.kind)
    with refusing("device"):
        if report.device != task.device:
            raise PayloadError(f"it is by {report.device!r}, asked was {task.device!r}")
    with refusing("version"):
        if report.version != task.version:
            raise PayloadError(
                f"it is about version {report.version}, asked was version {task.version}"
            )
    if report.status == "trained":
        with refusing("shape"):
            expected = update_schema(task.model, task.mode, task.codec)
            check_form(report.update, expected, "the update")
        with refusing("number"):
            check_update(report.update, task.model, task.mode, task.codec)
            check_statistics(report.update)
    return report


def check_size(size: int, task: Task) -> None:
    """Raise PayloadError for more bytes than a header and the largest update have."""
    most = MAX_HEADER_BYTES
    if task.kind == "train":
        most += update_bytes(task.model, task.mode, task.codec)
    if size > most:
        raise PayloadError(f"it has {size} bytes, and such a report has {most} at most")


def check_statistics(update: State) -> None:
    """Raise PayloadError for a statistic that no sum of a layer's inputs comes near."""
    for name, tensor in update.items():
        if tensor.dtype == "F32" and any(abs(one) > MAXIMUM_STATISTIC for one in tensor.view()):
            raise PayloadError(f"the update: {name!r} holds a number beyond 2**31")


@dataclass(frozen=True)
class Standing:
    """What a report is judged by before it counts.

    Attributes:
        known: its device's record.
        node_id: the node that the device goes by now.
        version: of the model that the round is about.
        staleness: how many versions a report may be late.
        examples: those that the round weighs already.
    """

    known: DeviceRecord
    node_id: int
    version: int
    staleness: int
    examples: int


def admitted(answer: Answer, standing: Standing) -> Answer:
    """Return an answer as it is, or refused where its report must not count."""
    report = answer.report
    if report is None:
        return answer
    try:
        with refusing("unknown"):
            if answer.member.node_id != standing.node_id:
                raise PayloadError("its device has meanwhile been enrolled anew")
        with refusing("digest"):
            if report.digest is not None:
                check_digest(report.digest, standing.known.digest, answer.member.key)
        if report.status == "trained":
            check_counting(report, standing)
    except RefusedError as error:
        return refused(answer, error)
    return answer


def check_counting(report: Report, standing: Standing) -> None:
    """Raise RefusedError for an update that this round must not fold."""
    counted = standing.known.counted
    with refusing("replayed"):
        if counted is not None and report.version <= counted:
            raise PayloadError(f"its device's report on version {counted} was counted already")
    with refusing("stale"):
        if report.version < standing.version - standing.staleness:
            raise PayloadError(
                f"it is about version {report.version}, and the round about {standing.version}"
            )
    with refusing("weight"):
        if report.examples > MAXIMUM_EXAMPLES - standing.examples:
            raise PayloadError(f"a round weighs at most {MAXIMUM_EXAMPLES} examples")


def refused(answer: Answer, error: RefusedError) -> Answer:
    """Return an answer that is refused, with why; a digest that was not believed is dropped."""
    report = answer.report
    if report is not None and error.refusal in ("unknown", "digest"):
        report = replace(report, digest=None)
    reason = one_line(f"refused, {error.refusal}: {error}")
    return replace(answer, status="refused", refusal=error.refusal, reason=reason, report=report)
