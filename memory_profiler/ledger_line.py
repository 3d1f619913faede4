"""One line of a ledger: what a task may use or has used, the sums so far, and two checksums.

A line is a JSON object, `{"ledger":5,"number":..,"previous":..,"time":..,"intent":{..} or
"outcome":{..},"totals":{..},"sha256":..}`. `previous` is the sha256 of the whole line before it,
newline included, which chains the lines; `sha256` is that of all bytes of this line before itself,
so that the last line is covered as well. What is unknown is null, never 0.

This module loads hashlib, which a worker must not pay for: nothing that a worker imports may
import it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from hashlib import sha256
from typing import Any, ClassVar, Literal, get_args

from edgetrain.errors import ConfigError, PayloadError
from edgetrain.fields import Rule, check_fields, choice, maybe, real, text, whole
from edgetrain.memory_profiler.budget import Budget
from edgetrain.memory_profiler.device import Device
from edgetrain.memory_profiler.enforce.enforced import CAUSES, Cause, Enforcement, Network
from edgetrain.task import (
    MAX_COUNT,
    MAX_JOULES,
    MAX_NAME,
    MAX_REASON,
    MAX_SECONDS,
    Kind,
    PlanSummary,
)
from edgetrain.tensorfile import parse_json

__all__ = [
    "MAX_LINE",
    "PREFIX",
    "START",
    "Intent",
    "Line",
    "Outcome",
    "OutcomeStatus",
    "Totals",
    "digest",
]

VERSION = 5
READABLE = 2
"""The oldest version that is read."""
LATER = {"enforcement": None, "cause": None, "cgroup_peak_bytes": None, "network": None}
"""What outcomes of older versions do not say, or not all of it."""
PREFIX = b'{"ledger":'
"""How every line begins."""
MAX_LINE = 1 << 13
"""Bytes of the longest line: names and reasons are bounded, so that lines are."""
START = "0" * 64
"""What stands for the line before the first."""
SEAL = b',"sha256":"'
MIXED = "mixed"
"""The source of a sum of joules that come from several."""

OutcomeStatus = Literal["trained", "evaluated", "failed", "interrupted"]

COUNT = whole(0, MAX_COUNT)
SECONDS = maybe(real(0, MAX_SECONDS))
JOULES = maybe(real(0, MAX_JOULES))
SOURCE = choice("none", *Device.SOURCES)


def budget_of(name: str, value: Any) -> Budget:
    """Return the budget that JSON holds; a rule like those of edgetrain.fields."""
    rules = {"memory": maybe(COUNT), "energy": JOULES, "seconds": SECONDS}
    try:
        return Budget(**check_fields(value, rules, name))
    except ConfigError as error:
        raise PayloadError(f"{name}: {error}") from error


@dataclass(frozen=True)
class Intent:
    """What a task is about to use, written before it runs.

    Attributes:
        kind, version, device: of the task.
        plan: the plan that was chosen.
        predicted_peak_bytes: peak memory expected of the training process.
        budget: what the owner allows the task; null is no limit.
        joules, joules_source: the energy expected, or null and "none".
    """

    kind: Kind
    version: int
    device: str
    plan: PlanSummary
    predicted_peak_bytes: int
    budget: Budget
    joules: float | None = None
    joules_source: str = "none"

    RULES: ClassVar[Mapping[str, Rule]] = {
        "kind": choice(*get_args(Kind)),
        "version": COUNT,
        "device": text(MAX_NAME),
        "plan": PlanSummary.from_fields,
        "predicted_peak_bytes": COUNT,
        "budget": budget_of,
        "joules": JOULES,
        "joules_source": SOURCE,
    }


@dataclass(frozen=True)
class Outcome:
    """What became of the task of the line before.

    Attributes:
        status: as of a Report, or "interrupted": nobody knows, because whoever ran it was ended.
        reason: why it failed or was cut short; else empty.
        measured_peak_bytes, examples, seconds: what the training process used, or null.
        joules, joules_source: the energy and where the figure comes from, or null and "none".
        enforcement: whether the kernel held the process to its memory, "hard", or a watch, "soft";
            null where nobody knows.
        cause: why the process ended, a key of enforce.enforced.CAUSES, or null.
        cgroup_peak_bytes: the most charged to the control group of the process, or null; it is
            another measure than measured_peak_bytes, which are those resident.
        network: "none" where the process could make no socket, "open" where it could, or null.
    """

    status: OutcomeStatus
    reason: str = ""
    measured_peak_bytes: int | None = None
    examples: int | None = None
    seconds: float | None = None
    joules: float | None = None
    joules_source: str = "none"
    enforcement: Enforcement | None = None
    cause: Cause | None = None
    cgroup_peak_bytes: int | None = None
    network: Network | None = None

    RULES: ClassVar[Mapping[str, Rule]] = {
        "status": choice(*get_args(OutcomeStatus)),
        "reason": text(MAX_REASON, empty=True),
        "measured_peak_bytes": maybe(COUNT),
        "examples": maybe(COUNT),
        "seconds": SECONDS,
        "joules": JOULES,
        "joules_source": SOURCE,
        "enforcement": maybe(choice(*get_args(Enforcement))),
        "cause": maybe(choice(*CAUSES)),
        "cgroup_peak_bytes": maybe(COUNT),
        "network": maybe(choice(*get_args(Network))),
    }

    @property
    def held(self) -> str | None:
        """How the process was held, as people read it: "hard", or "soft, network open"."""
        return self.enforcement and self.enforcement + ", network open" * (self.network == "open")


ENTRIES: dict[str, type[Intent] | type[Outcome]] = {"intent": Intent, "outcome": Outcome}


@dataclass(frozen=True)
class Totals:
    """Sums over all outcomes so far, of what is known, each with the tasks that it leaves out.

    A sum to which no task has contributed is None. `joules_source` is that of all tasks that
    contributed, or "mixed"; `measured_peak_bytes` is the largest of any task.
    """

    tasks: int = 0
    examples: int | None = None
    examples_unknown: int = 0
    seconds: float | None = None
    seconds_unknown: int = 0
    joules: float | None = None
    joules_unknown: int = 0
    joules_source: str = "none"
    measured_peak_bytes: int | None = None

    RULES: ClassVar[Mapping[str, Rule]] = {
        "tasks": COUNT,
        "examples": maybe(whole(0, 1 << 62)),
        "seconds": maybe(real(0, 1e300)),
        "joules": maybe(real(0, 1e300)),
        "examples_unknown": COUNT,
        "seconds_unknown": COUNT,
        "joules_unknown": COUNT,
        "joules_source": choice("none", MIXED, *Device.SOURCES),
        "measured_peak_bytes": maybe(COUNT),
    }

    def plus(self, outcome: Outcome) -> Totals:
        """Return the sums with one more outcome."""
        changes: dict[str, Any] = {"tasks": self.tasks + 1}
        for name in ("examples", "seconds", "joules"):
            value, total = getattr(outcome, name), getattr(self, name)
            if value is None:
                changes[f"{name}_unknown"] = getattr(self, f"{name}_unknown") + 1
            else:
                changes[name] = value if total is None else total + value
        if outcome.joules is not None:
            same = self.joules is None or self.joules_source == outcome.joules_source
            changes["joules_source"] = outcome.joules_source if same else MIXED
        peaks = (self.measured_peak_bytes, outcome.measured_peak_bytes)
        changes["measured_peak_bytes"] = max((p for p in peaks if p is not None), default=None)
        return replace(self, **changes)


@dataclass(frozen=True)
class Line:
    """A line of a ledger: its number from 0, its place in the chain, when, what, and the sums.

    time is in seconds since 1970 by the device's clock, which may be wrong; the order of events
    is that of the lines.
    """

    number: int
    previous: str
    time: float
    entry: Intent | Outcome
    totals: Totals

    def encode(self) -> bytes:
        """Return the line's bytes, newline included."""
        name = "intent" if isinstance(self.entry, Intent) else "outcome"
        told = {
            "ledger": VERSION,
            "number": self.number,
            "previous": self.previous,
            "time": self.time,
            name: as_json(self.entry),
            "totals": asdict(self.totals),
        }
        body = json.dumps(told, separators=(",", ":"))
        return sealed(body.removesuffix("}").encode("ascii")) + b"\n"

    @classmethod
    def decode(cls, raw: bytes) -> Line:
        """Return the line in these bytes, newline included. Raises PayloadError saying why not."""
        if not raw.endswith(b"\n"):
            raise PayloadError("it is cut off")
        body, _, _ = raw.rpartition(SEAL)
        if not raw.startswith(PREFIX) or raw != sealed(body) + b"\n":
            raise PayloadError("its content does not match its checksum")
        told = parse_json(body.decode("ascii") + "}")
        found = [name for name in ENTRIES if name in told]
        if len(found) != 1:
            raise PayloadError("it is neither an intent nor an outcome")
        older = told["ledger"] in range(READABLE, VERSION)
        if older and isinstance(told.get("outcome"), dict):
            told["outcome"] = LATER | told["outcome"]
        rules: dict[str, Rule] = {
            "ledger": whole(READABLE, VERSION),
            "number": COUNT,
            "previous": text(len(START)),
            "time": real(0, 1e12),
            found[0]: lambda name, value: made(ENTRIES[found[0]], name, value),
            "totals": lambda name, value: made(Totals, name, value),
        }
        checked = check_fields(told, rules, "line")
        return cls(
            checked["number"],
            checked["previous"],
            checked["time"],
            checked[found[0]],
            checked["totals"],
        )


def digest(raw: bytes) -> str:
    """Return what the line after these bytes calls its `previous`."""
    return sha256(raw).hexdigest()


def sealed(body: bytes) -> bytes:
    """Return a line's bytes up to its checksum with the checksum after them."""
    return body + SEAL + sha256(body).hexdigest().encode("ascii") + b'"}'


def as_json(entry: Intent | Outcome) -> dict[str, Any]:
    """Return an entry's fields as JSON holds them."""
    told = {field.name: getattr(entry, field.name) for field in fields(entry)}
    if isinstance(entry, Intent):
        told |= {"plan": entry.plan.to_fields(), "budget": asdict(entry.budget)}
    return told


def made(kind: Any, name: str, value: Any) -> Any:
    """Return an object of a class whose RULES say what its fields may hold."""
    return kind(**check_fields(value, kind.RULES, name))
