"""What happened: one record a round and one a device, small enough to live in every checkpoint.

Nothing here grows with rounds times devices.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from edgetrain.digest import LedgerDigest
from edgetrain.errors import PayloadError

__all__ = ["NOT_ASKED", "DeviceRecord", "History", "RoundRecord"]

NOT_ASKED = "not asked"
"""How a reason begins that kept a task from being sent."""


@dataclass(frozen=True)
class RoundRecord:
    """One round of the fleet.

    Attributes:
        round: its number, from 1; also the version of the model that it made.
        asked, reported: devices that were asked to train, and whose updates were counted.
        examples: examples used by those.
        training_loss: their mean loss while training, weighted by examples, or None.
        accuracy, loss: of the new version on the held-out devices, or None if not judged.
        judged: examples that they were judged on.
        uplink_bytes, downlink_bytes: bytes of reports and of tasks, all devices together.
        seconds: how long the round took by the loop's clock (virtual in a simulation).
        losses: how many answers did not count, by their status: {"absent": 2}; "withheld" are
            devices that were not asked, because they have used what they were allowed, and
            "unneeded" tasks that were given up because the round had enough without them.
        stale: how many of the reported updates began with an older version of the model.
        refusals: how many reports were refused, by the name of the rule: a key of
            admission.REFUSALS.
    """

    round: int
    asked: int = 0
    reported: int = 0
    examples: int = 0
    training_loss: float | None = None
    accuracy: float | None = None
    loss: float | None = None
    judged: int = 0
    uplink_bytes: int = 0
    downlink_bytes: int = 0
    seconds: float = 0.0
    losses: Mapping[str, int] = field(default_factory=dict)
    stale: int = 0
    refusals: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class DeviceRecord:
    """One device over all rounds.

    Attributes:
        name, device_class, role: who it is, and whether it trains or evaluates.
        memory: its budget in bytes, or None for no limit.
        held: examples that it holds.
        asked, answered: tasks that it was sent and that it did.
        examples: examples used, all tasks together.
        counted: the newest version of the model for which its update was counted; reports on it
            and on older ones cannot count again. None before the first.
        status: how its last task ended: trained, evaluated, declined, failed, absent, late,
            unneeded or refused; "withheld" where it may not be asked again; "unasked" before the
            first.
        absences: how many tasks did not reach it.
        reasons: every reason why a task of its own did not count or was not sent, and how often.
        plan: the plan that it chose last, in words; None before it did.
        predicted_peak_bytes: the largest promised peak of its training process.
        measured_peak_bytes: the largest measured one.
        seconds: time that its tasks took by its own clock, which is modelled in a simulation.
        joules: energy, None if nobody knows; energy_source says where the figure comes from.
        uplink_bytes, downlink_bytes: bytes of its reports and of its tasks.
        accuracy: what it measured last, on its own examples.
        digest: what its ledger says in all, as it was last signed; None where it keeps none.
    """

    name: str
    device_class: str = ""
    role: str = "train"
    memory: int | None = None
    held: int = 0
    asked: int = 0
    answered: int = 0
    examples: int = 0
    status: str = "unasked"
    absences: int = 0
    reasons: Mapping[str, int] = field(default_factory=dict)
    plan: str | None = None
    predicted_peak_bytes: int | None = None
    measured_peak_bytes: int | None = None
    seconds: float = 0.0
    joules: float | None = None
    energy_source: str = "none"
    uplink_bytes: int = 0
    downlink_bytes: int = 0
    accuracy: float | None = None
    digest: LedgerDigest | None = None
    counted: int | None = None

    def __post_init__(self) -> None:
        if isinstance(self.digest, Mapping):  # as JSON has it
            object.__setattr__(self, "digest", LedgerDigest(**self.digest))


@dataclass(frozen=True)
class History:
    """All rounds so far, in order, and every device by its name."""

    rounds: tuple[RoundRecord, ...] = ()
    devices: Mapping[str, DeviceRecord] = field(default_factory=dict)

    @property
    def seconds(self) -> float:
        """How long all rounds took by the loop's clock."""
        return sum(record.seconds for record in self.rounds)

    def to_json(self) -> str:
        """Return the history as JSON; equal histories give equal text."""
        document = {
            "rounds": [asdict(record) for record in self.rounds],
            "devices": [asdict(self.devices[name]) for name in sorted(self.devices)],
        }
        return json.dumps(document, sort_keys=True, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> History:
        """Return the history that `to_json` wrote. Raises PayloadError for anything else."""
        try:
            document = json.loads(text)
            rounds = tuple(rebuild(RoundRecord, record) for record in document["rounds"])
            devices = [rebuild(DeviceRecord, record) for record in document["devices"]]
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise PayloadError(f"this is not a history: {error}") from error
        return cls(rounds, {record.name: record for record in devices})


def rebuild(kind: type[Any], record: Mapping[str, Any]) -> Any:
    """Return a record of its class, without the fields that a later build may have added."""
    known = {one.name for one in fields(kind)}
    return kind(**{name: value for name, value in record.items() if name in known})
