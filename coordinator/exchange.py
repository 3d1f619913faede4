"""Asking devices over a Flower Grid: push a task to each, take the answers as they come.

Everything that can go wrong between a coordinator and a device ends as an Answer with a status
and a reason in one line; nothing is raised for what a device did or failed to do.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import zip_longest
from typing import Protocol, get_args

from flwr.app import Error, Message
from flwr.common.constant import ErrorCode
from flwr.serverapp import Grid

from edgetrain.client.flower_record import task_to_record
from edgetrain.coordinator.admission import read_report, refused
from edgetrain.coordinator.answer import Answer, Member, Sent
from edgetrain.errors import RefusedError
from edgetrain.task import Kind, Task, one_line

__all__ = [
    "LATE",
    "POLL_SECONDS",
    "Clock",
    "Exchange",
    "RealClock",
    "content_bytes",
]

POLL_SECONDS = 1.0
"""How often a coordinator looks for answers; a virtual clock jumps to the next one at once."""
DEFAULT_LIFE = 12 * 3600.0
"""Seconds that a message lives where no deadline is set; Flower's own default. No round can last
longer for want of an answer."""
PUSH_AT_ONCE = 32
"""Messages handed to the Grid together: bounds how many copies of a task exist at a time."""
PULL_AT_ONCE = 64
"""Tasks after whose answers the Grid is asked together: bounds how many reports are held."""

LATE, UNSENT = "late", "failed"
UNSENT_REASON = "failed: the SuperLink did not take the task: revoked, or see its log"


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


def any_task(_: Task) -> bool:
    """Choose every task."""
    return True


class Exchange:
    """The tasks that are out, and the answers that have come and were not taken yet.

    Every task is answered for exactly once, by `next` or by `give_up`, also where it could not be
    sent. At most PULL_AT_ONCE reports are held.
    """

    def __init__(self, grid: Grid, clock: Clock) -> None:
        self.grid = grid
        self.clock = clock
        self._out: dict[str, Sent] = {}
        self._arrived: dict[Kind, deque[Answer]] = {kind: deque() for kind in get_args(Kind)}

    def send(
        self,
        members: Sequence[Member],
        task_for: Callable[[Member], Task],
        *,
        group: str,
        life: float | None,
    ) -> None:
        """Push each member its task.

        `group` names the round for Flower; after `life` seconds a message is no longer delivered.
        """
        for start in range(0, len(members), PUSH_AT_ONCE):
            batch = members[start : start + PUSH_AT_ONCE]
            tasks = [task_for(member) for member in batch]
            messages = [
                Message(
                    task_to_record(task),
                    member.node_id,
                    task.kind,
                    ttl=DEFAULT_LIFE if life is None else life,
                    group_id=group,
                )
                for member, task in zip(batch, tasks, strict=True)
            ]
            sent = [
                Sent(member, task, content_bytes(message))
                for member, task, message in zip(batch, tasks, messages, strict=True)
            ]
            identities = list(self.grid.push_messages(messages))[: len(sent)]
            # Flower returns fewer, or None among them, for messages that were not taken.
            for one, identity in zip_longest(sent, identities):
                if identity:
                    self._out[identity] = one
                else:
                    unsent = Answer(one.member, UNSENT, UNSENT_REASON, task=one.task)
                    self._arrived[one.task.kind].append(unsent)

    def out(self, kind: Kind) -> list[Sent]:
        """Return the tasks of a kind that are out, the oldest first."""
        return [one for one in self._out.values() if one.task.kind == kind]

    def next(
        self, kind: Kind, end: float | None, awaited: Callable[[Task], bool] = any_task
    ) -> Answer | None:
        """Return the next answer to a task of this kind, or None when there is none to wait for.

        That is when no task that is `awaited` is out any more, and at the time `end`. What has
        arrived by then is still returned.
        """
        arrived = self._arrived[kind]
        while not arrived and not self._pull(kind):
            left = math.inf if end is None else end - self.clock.now()
            if left <= 0 or not any(awaited(one.task) for one in self.out(kind)):
                return None
            self.clock.wait(min(POLL_SECONDS, left))
        return arrived.popleft()

    def give_up(
        self, kind: Kind, status: str, reason: str, chosen: Callable[[Task], bool] = any_task
    ) -> list[Answer]:
        """Stop waiting for the chosen tasks; return an answer of this status for each."""
        gone = [
            identity
            for identity, one in self._out.items()
            if one.task.kind == kind and chosen(one.task)
        ]
        sent = [self._out.pop(identity) for identity in gone]
        answers = [
            Answer(one.member, status, reason, downlink_bytes=one.size, task=one.task)
            for one in sent
        ]
        arrived = list(self._arrived[kind])
        self._arrived[kind].clear()
        for answer in arrived:
            if answer.task is None or not chosen(answer.task):
                self._arrived[kind].append(answer)
            elif answer.report is None:
                answers.append(answer)
            else:
                answers.append(replace(answer, status=status, reason=reason, report=None))
        return answers

    def _pull(self, kind: Kind) -> bool:
        """Take in some answers that have arrived; say whether there were any."""
        arrived = self._arrived[kind]
        identities = [identity for identity, one in self._out.items() if one.task.kind == kind]
        for start in range(0, len(identities), PULL_AT_ONCE):
            for reply in self.grid.pull_messages(identities[start : start + PULL_AT_ONCE]):
                # An error that Flower itself makes carries its own node id: only this is right.
                sent = self._out.pop(reply.metadata.reply_to_message_id, None)
                if sent is not None:
                    arrived.append(read_reply(reply, sent))
            if arrived:
                return True
        return False


def read_reply(reply: Message, sent: Sent) -> Answer:
    """Return the answer that a reply to a task is."""
    answer = Answer(sent.member, "failed", downlink_bytes=sent.size, task=sent.task)
    if reply.has_error():
        status, reason = read_error(reply.error)
        downlink = 0 if status == "absent" else sent.size
        return replace(answer, status=status, reason=reason, downlink_bytes=downlink)
    size = content_bytes(reply)
    answer = replace(answer, uplink_bytes=size)
    try:
        report = read_report(reply, sent, size)
    except RefusedError as error:
        return refused(answer, error)
    worked = report.status in ("trained", "evaluated")
    reason = report.reason if worked else one_line(f"{report.status}: {report.reason}")
    return replace(answer, status=report.status, reason=reason, report=report)


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
