"""A device, a task that it was sent, and how it answered."""

from __future__ import annotations

from dataclasses import dataclass, field

from edgetrain.task import Report, Task

__all__ = ["Answer", "Member", "Sent"]


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
class Sent:
    """A task that is out: to whom, what, and how many bytes of arrays it took."""

    member: Member
    task: Task
    size: int


@dataclass(frozen=True)
class Answer:
    """How one device answered one task.

    `status` is the report's, or "absent" (not reachable), "late" (not in time), "unneeded" (the
    round had enough without it, which is no fault and has no reason), "refused" (not a valid
    report), "failed" or "withheld" (it was not asked, and `task` is None). `reason` says why it
    did not count, else it is empty; `refusal` is the name of the rule by which a report was
    refused, a key of admission.REFUSALS.
    """

    member: Member
    status: str
    reason: str = ""
    report: Report | None = None
    uplink_bytes: int = 0
    downlink_bytes: int = 0
    task: Task | None = field(default=None, repr=False)
    refusal: str = ""
