"""Asking devices over a Flower Grid: push a task to each, take the answers as they come.

Everything that can go wrong between a coordinator and a device ends as an Answer with a status
and a reason in one line; nothing is raised for what a device did or failed to do.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any, Protocol

from flwr.app import Error, Message
from flwr.common.constant import ErrorCode
from flwr.serverapp import Grid

from edgetrain.client.flower_record import record_to_report, task_to_record
from edgetrain.errors import PayloadError
from edgetrain.task import Report, Task, one_line

__all__ = [
    "POLL_SECONDS",
    "Answer",
    "Clock",
    "Member",
    "RealClock",
    "ask",
    "content_bytes",
    "converse",
]

POLL_SECONDS = 1.0
"""How often a coordinator looks for answers; a virtual clock jumps to the next one at once."""
DEFAULT_TTL = 12 * 3600.0
"""Seconds that a message lives where no deadline is set; Flower's own default."""
PUSH_AT_ONCE = 32
"""Messages handed to the Grid together: bounds how many copies of a task exist at a time."""

LATE, UNSENT = "late", "failed"
REASONS = {
    LATE: "late: no answer by the deadline",
    UNSENT: "failed: the SuperLink did not take the task; its log says why",
}


class Clock(Protocol):
    """Seconds that pass; real or virtual."""

    def now(self) -> float:
        """Return the time in seconds since some fixed moment."""
        ...

    def wait(self, seconds: float) -> None:
        """Let time pass, `seconds` at most."""
        ...


class RealClock:
    """The machine's own monotonic clock."""

    def now(self) -> float:
        """Return the time in seconds since some fixed moment."""
        return time.monotonic()

    def wait(self, seconds: float) -> None:
        """Sleep."""
        time.sleep(seconds)


@dataclass(frozen=True)
class Member:
    """A device that has said who it is.

    `examples` is what it holds, `features` and `classes` what each example is; 0 without data.
    `key` is the public key that it was enrolled with, as a LedgerDigest names it, or None.
    """

    node_id: int
    name: str
    device_class: str
    role: str
    examples: int
    features: int
    classes: int
    memory: int | None
    key: str | None = None


@dataclass(frozen=True)
class Answer:
    """How one device answered one task.

    `status` is the report's, or "absent" (not reachable), "late" (not by the deadline), "refused"
    (not a valid report), "failed" or "withheld" (it was not asked). `reason` says why it did not
    count, else it is empty.
    """

    member: Member
    status: str
    reason: str = ""
    report: Report | None = None
    uplink_bytes: int = 0
    downlink_bytes: int = 0


def ask(
    grid: Grid,
    clock: Clock,
    members: Sequence[Member],
    task_for: Callable[[Member], Task],
    *,
    group: str,
    deadline: float | None,
) -> Iterator[Answer]:
    """Send each member its task and yield the answers in the order of arrival.

    `group` names the round for Flower; `deadline` is in seconds from now. Every member is
    answered for exactly once.
    """
    tasks = {member.name: task_for(member) for member in members}
    sent: dict[str, int] = {}

    def message_for(member: Member) -> Message:
        task = tasks[member.name]
        message = Message(
            task_to_record(task),
            member.node_id,
            task.kind,
            ttl=DEFAULT_TTL if deadline is None else deadline,
            group_id=group,
        )
        sent[member.name] = content_bytes(message)
        return message

    for member, reply in converse(grid, clock, members, message_for, deadline):
        yield read_reply(member, reply, tasks[member.name], sent[member.name])


def converse(
    grid: Grid,
    clock: Clock,
    members: Iterable[Any],
    message_for: Callable[[Any], Message],
    deadline: float | None,
) -> Iterator[tuple[Any, Message | str]]:
    """Push one message a member and yield (member, reply) as replies arrive.

    Every member is yielded once: with a word in place of the reply, UNSENT when its message could
    not be pushed and LATE when `deadline` seconds have passed without one.
    """
    end = None if deadline is None else clock.now() + deadline
    pending: dict[str, Any] = {}
    queue = list(members)
    for start in range(0, len(queue), PUSH_AT_ONCE):
        batch = queue[start : start + PUSH_AT_ONCE]
        identities = list(grid.push_messages([message_for(one) for one in batch]))
        # Flower returns fewer, or None among them, for messages that its SuperLink did not take.
        for member, identity in zip_longest(batch, identities[: len(batch)]):
            if identity:
                pending[identity] = member
            else:
                yield member, UNSENT
    while pending:
        for reply in grid.pull_messages(list(pending)):
            # An error that Flower itself makes carries its own node id: only this field is right.
            member = pending.pop(reply.metadata.reply_to_message_id, None)
            if member is not None:
                yield member, reply
        left = float("inf") if end is None else end - clock.now()
        if left <= 0:
            break
        if pending:
            clock.wait(min(POLL_SECONDS, left))
    for member in pending.values():
        yield member, LATE


def read_reply(member: Member, reply: Message | str, task: Task, sent: int) -> Answer:
    """Return the answer that a reply to a task is."""
    if isinstance(reply, str):
        downlink = sent if reply == LATE else 0
        return Answer(member, reply, REASONS[reply], downlink_bytes=downlink)
    if reply.has_error():
        status, reason = read_error(reply.error)
        downlink = 0 if status == "absent" else sent
        return Answer(member, status, reason, downlink_bytes=downlink)
    uplink = content_bytes(reply)
    try:
        report = record_to_report(reply.content, task)
    except PayloadError as error:
        reason = one_line(f"refused: {error}")
        return Answer(member, "refused", reason, None, uplink, sent)
    worked = report.status in ("trained", "evaluated")
    reason = report.reason if worked else one_line(f"{report.status}: {report.reason}")
    return Answer(member, report.status, reason, report, uplink, sent)


def read_error(error: Error) -> tuple[str, str]:
    """Return the status and reason that Flower's error stands for."""
    if error.code == ErrorCode.NODE_UNAVAILABLE:
        return "absent", "absent: not reachable"
    if error.code in (ErrorCode.MESSAGE_UNAVAILABLE, ErrorCode.REPLY_MESSAGE_UNAVAILABLE):
        return LATE, "late: task or answer expired on the way"
    return "failed", one_line(f"failed: {error.reason or f'Flower error {error.code}'}")


def content_bytes(message: Message) -> int:
    """Return the bytes of the arrays that a message carries; 0 for an error.

    What Flower wraps around them, some hundreds of bytes, is left out.
    """
    if not message.has_content():
        return 0
    records = message.content.array_records.values()
    return sum(len(array.data) for record in records for array in record.values())
