"""Task and Report: all that crosses the wire between a coordinator and a device.

A Task is declarative data, never code: what to train or evaluate, from which state, within what
limits. A Report says what a device did and carries its update. Both are tensor files whose
metadata hold "format", "version" and one JSON object of fields, and both are validated whole, on
the way out as on the way in, by one table of rules.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal, get_args

from edgetrain import tensorfile
from edgetrain.digest import LedgerDigest
from edgetrain.errors import ModelError, PayloadError
from edgetrain.fields import Rule, check_fields, choice, maybe, real, text, whole
from edgetrain.model import Model
from edgetrain.schema import check_state
from edgetrain.storage import Buffer
from edgetrain.tensorfile import State
from edgetrain.update import CODECS, check_update

__all__ = [
    "MAX_MESSAGE_BYTES",
    "REPORT_FORMAT",
    "TASK_FORMAT",
    "VERSIONS",
    "Kind",
    "Mode",
    "PlanSummary",
    "Report",
    "Status",
    "Task",
    "one_line",
]

TASK_FORMAT = "edgetrain-task"
REPORT_FORMAT = "edgetrain-report"
VERSIONS = (1,)
"""The versions of both formats that this build understands; it writes the last."""

MAX_MESSAGE_BYTES = 1 << 28
MAX_REASON = 400
MAX_NAME = 128
MAX_BATCH = 8192
MAX_COUNT = 1 << 48
MAX_SECONDS = 1e9
MAX_JOULES = 1e12
MAX_LOSS = 1e30

Kind = Literal["train", "evaluate"]
Mode = Literal["bnn", "fsb"]
Status = Literal["trained", "evaluated", "declined", "failed"]

MODE = choice(*get_args(Mode))
SECONDS = maybe(real(0, MAX_SECONDS))


@dataclass(frozen=True)
class Task:
    """What a coordinator asks of one device.

    Attributes:
        kind: "train" from the state and send an update, or "evaluate" the state.
        version: the number of the model's version that `state` is.
        device: who is asked; its random draws depend on it, and logs name it.
        model: the architecture.
        mode: how the layers are trained, "bnn" or "fsb"; a fleet's devices all train alike.
        batch: examples a step; a device short of memory may take them in smaller parts.
        local_epochs: passes over the device's examples.
        learning_rate: of the latents and scales, constant within the task.
        codec: how latents travel back, a key of CODECS.
        seed: the federation's seed; fixed signs come from it alone.
        deadline: seconds that the device may take, or None.
        state: the tensors of schema.state_schema(model, mode).
    """

    kind: Kind
    version: int
    device: str
    model: Model
    mode: Mode
    batch: int
    local_epochs: int
    learning_rate: float
    codec: str
    seed: int
    deadline: float | None
    state: State = field(repr=False)

    RULES: ClassVar[Mapping[str, Rule]] = {
        "kind": choice(*get_args(Kind)),
        "version": whole(0, MAX_COUNT),
        "device": text(MAX_NAME),
        "mode": MODE,
        "batch": whole(1, MAX_BATCH),
        "local_epochs": whole(1, 1000),
        "learning_rate": real(0, 1),
        "codec": choice(*CODECS),
        "seed": whole(0, (1 << 63) - 1),
        "deadline": SECONDS,
    }

    def __post_init__(self) -> None:
        check_fields({name: getattr(self, name) for name in self.RULES}, self.RULES, "task")
        check_state(self.state, self.model, self.mode)

    def encode(self) -> bytes:
        """Return the task as bytes."""
        fields = {name: getattr(self, name) for name in self.RULES}
        fields["model"] = self.model.to_json()
        return tensorfile.encode(self.state, metadata_of(TASK_FORMAT, fields))

    @classmethod
    def decode(cls, buffer: Buffer) -> Task:
        """Return the task in the bytes; its tensors are views of them.

        Raises PayloadError, naming the cause, for anything but a valid task.
        """
        fields, state = unpack(buffer, TASK_FORMAT)
        checked = check_fields(fields, {**cls.RULES, "model": model_of}, "task")
        return cls(**checked, state=state)


@dataclass(frozen=True)
class PlanSummary:
    """The plan that a device chose: mode, examples at a time, threads, bytes of its arena."""

    mode: Mode
    micro_batch: int
    threads: int
    arena_bytes: int

    RULES: ClassVar[Mapping[str, Rule]] = {
        "mode": MODE,
        "micro_batch": whole(1, MAX_BATCH),
        "threads": whole(1, 1024),
        "arena_bytes": whole(0, MAX_COUNT),
    }

    def __post_init__(self) -> None:
        check_fields(self.to_fields(), self.RULES, "plan")

    def to_fields(self) -> dict[str, Any]:
        """Return the fields as JSON holds them."""
        return {name: getattr(self, name) for name in self.RULES}

    @classmethod
    def from_fields(cls, name: str, value: Any) -> PlanSummary:
        """Return the summary that JSON holds; a rule like those of edgetrain.fields."""
        return cls(**check_fields(value, cls.RULES, name))


@dataclass(frozen=True)
class Report:
    """What one device did about one task.

    Attributes:
        status: "trained" (an update follows), "evaluated", "declined" (a polite no, with zero
            examples) or "failed".
        reason: why it declined, failed or stopped early, in one line; else empty.
        version, device: those of the task.
        examples: examples really used; one that was used twice counts twice.
        steps: micro-batches really done.
        loss, accuracy: means over those examples, or None.
        plan: the plan chosen, or None if it did not come to that.
        predicted_peak_bytes, measured_peak_bytes: peak memory of the training process as
            expected before it ran (the sum of the estimate's parts; a little more or less may
            be measured) and as the kernel measured it (VmHWM), or None.
        seconds: time spent in the training process, on the device's own clock.
        joules: energy, or None if unknown; `energy_source` says where the figure comes from,
            e.g. "modelled".
        digest: what the device's ledger says in all, signed; None where it keeps none. A message
            without one does not mention it.
        update: the tensors of update.update_schema, if trained; else none.
    """

    status: Status
    version: int
    device: str
    reason: str = ""
    examples: int = 0
    steps: int = 0
    loss: float | None = None
    accuracy: float | None = None
    plan: PlanSummary | None = None
    predicted_peak_bytes: int | None = None
    measured_peak_bytes: int | None = None
    seconds: float = 0.0
    joules: float | None = None
    energy_source: str = "none"
    digest: LedgerDigest | None = None
    update: State = field(default_factory=dict, repr=False)

    RULES: ClassVar[Mapping[str, Rule]] = {
        "status": choice(*get_args(Status)),
        "version": whole(0, MAX_COUNT),
        "device": text(MAX_NAME),
        "reason": text(MAX_REASON, empty=True),
        "examples": whole(0, MAX_COUNT),
        "steps": whole(0, MAX_COUNT),
        "loss": maybe(real(0, MAX_LOSS)),
        "accuracy": maybe(real(0, 1)),
        "predicted_peak_bytes": maybe(whole(0, MAX_COUNT)),
        "measured_peak_bytes": maybe(whole(0, MAX_COUNT)),
        "seconds": real(0, MAX_SECONDS),
        "joules": maybe(real(0, MAX_JOULES)),
        "energy_source": text(MAX_NAME),
    }

    def __post_init__(self) -> None:
        check_fields({name: getattr(self, name) for name in self.RULES}, self.RULES, "report")
        worked = self.status in ("trained", "evaluated")
        if worked != (self.examples > 0):
            raise PayloadError(f"report: {self.status} with {self.examples} examples")
        if worked and (self.loss is None or self.accuracy is None):
            raise PayloadError(f"report: {self.status} without loss and accuracy")
        if not worked and not self.reason:
            raise PayloadError(f"report: {self.status} without a reason")
        if bool(self.update) != (self.status == "trained"):
            raise PayloadError(f"report: {self.status} with {len(self.update)} update tensors")

    def encode(self) -> bytes:
        """Return the report as bytes."""
        return tensorfile.encode(self.update, metadata_of(REPORT_FORMAT, self.to_fields()))

    def write(self, path: Path, *, durable: bool = True) -> None:
        """Write what `encode` returns to a file, whole or not at all, without a copy of it all.

        Raises StorageError when the file cannot be written.
        """
        metadata = metadata_of(REPORT_FORMAT, self.to_fields())
        tensorfile.write(path, self.update, metadata, durable=durable)

    def to_fields(self) -> dict[str, Any]:
        """Return everything but the update as JSON holds it."""
        plan = self.plan.to_fields() if self.plan else None
        told = {name: getattr(self, name) for name in self.RULES} | {"plan": plan}
        return told if self.digest is None else told | {"digest": self.digest.to_fields()}

    @classmethod
    def decode(cls, buffer: Buffer, task: Task) -> Report:
        """Return the report in the bytes, which must answer `task`; its tensors are views.

        Raises PayloadError, naming the cause, for anything but a valid answer: the task's device
        and version, a status that its kind allows, an update that fits its model and codec.
        """
        report = cls.read(buffer)
        if (report.device, report.version) != (task.device, task.version):
            raise PayloadError(
                f"report: it is by {report.device!r} on version {report.version}, "
                f"asked were {task.device!r} on version {task.version}"
            )
        report.check_kind(task.kind)
        if report.status == "trained":
            check_update(report.update, task.model, task.mode, task.codec)
        return report

    @classmethod
    def read(cls, buffer: Buffer) -> Report:
        """Return the report in the bytes, whatever it answers; its tensors are views.

        Raises PayloadError, naming the cause, for bytes that are no report.
        """
        fields, update = unpack(buffer, REPORT_FORMAT)
        rules: dict[str, Rule] = {**cls.RULES, "plan": maybe(PlanSummary.from_fields)}
        if isinstance(fields, dict) and "digest" in fields:
            rules["digest"] = LedgerDigest.from_fields
        return cls(**check_fields(fields, rules, "report"), update=update)

    def check_kind(self, kind: Kind) -> None:
        """Raise PayloadError for a status that is no answer to a task of this kind."""
        if self.status == ("evaluated" if kind == "train" else "trained"):
            raise PayloadError(f"report: {self.status} is no answer to {kind}")


def one_line(text: object) -> str:
    """Return any text as a reason that a report can carry: printable, one line, not too long."""
    printable = "".join(c if c.isprintable() else " " for c in str(text))
    line = " ".join(printable.split()) or "no reason given"
    return line if len(line) <= MAX_REASON else line[: MAX_REASON - 3] + "..."


def model_of(name: str, value: Any) -> Model:
    """Return the model that JSON text describes; a rule like those of edgetrain.fields."""
    if not isinstance(value, str):
        raise PayloadError(f"{name} is not the JSON text of a model")
    try:
        return Model.from_json(value)
    except ModelError as error:
        raise PayloadError(f"{name}: {error}") from error


def metadata_of(format: str, fields: Mapping[str, Any]) -> dict[str, str]:
    """Return the metadata of a message: what it is, in which version, and its fields."""
    text = json.dumps(fields, allow_nan=False, separators=(",", ":"))
    return {"format": format, "version": str(VERSIONS[-1]), "fields": text}


def unpack(buffer: Buffer, format: str) -> tuple[Any, State]:
    """Return a message's fields, not yet checked, and its tensors."""
    tensors, metadata = tensorfile.decode(buffer, MAX_MESSAGE_BYTES)
    found = metadata.get("format")
    if found != format:
        raise PayloadError(f"this is not an {format}: it says {found!r}")
    version = metadata.get("version")
    understood = ", ".join(map(str, VERSIONS))
    if version not in understood.split(", "):
        raise PayloadError(
            f"{format} version {version!r}: this build understands {understood}; update edgetrain"
        )
    if set(metadata) != {"format", "version", "fields"}:
        raise PayloadError(f"{format}: the metadata are not format, version and fields alone")
    return tensorfile.parse_json(metadata["fields"]), tensors
