"""How tasks, reports and a device's introduction lie in Flower's records.

A task or a report is one uint8 Array whose bytes are the encoded message as it is, so that there
is nothing but its own strict decoder to trust. Beside it lie a ConfigRecord that says in words
what the message is about, for logs and for Flower's mods, and for a report a MetricRecord with
"num-examples", the weight that Flower's own strategies go by. Both are for reading alone: what
counts is in the Array.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict

from edgetrain.errors import PayloadError
from edgetrain.fields import Rule, check_fields, choice, maybe, text, whole
from edgetrain.task import MAX_COUNT, MAX_NAME, Report, Task

__all__ = [
    "PAYLOAD",
    "hello_to_record",
    "record_to_hello",
    "record_to_report",
    "record_to_task",
    "report_to_record",
    "task_to_record",
]

PAYLOAD = "payload"
ABOUT = "about"
METRICS = "metrics"
HELLO = "hello"
SERIALISATION = "edgetrain.tensorfile"
"""Of the Array's bytes: a tensor file, not numpy's format, which only numpy could read."""

HELLO_RULES: dict[str, Rule] = {
    "name": text(MAX_NAME),
    "device_class": text(MAX_NAME),
    "role": choice("train", "evaluate"),
    "examples": whole(0, MAX_COUNT),
    "features": whole(0, MAX_COUNT),
    "classes": whole(0, MAX_COUNT),
    "memory": maybe(whole(1, MAX_COUNT)),
}


def task_to_record(task: Task) -> RecordDict:
    """Return the content of the message that carries a task to its device."""
    about = ConfigRecord({"kind": task.kind, "version": task.version, "device": task.device})
    return RecordDict({ABOUT: about, PAYLOAD: payload_record(task.encode())})


def record_to_task(record: RecordDict) -> Task:
    """Return the task in a message's content. Raises PayloadError for anything else."""
    return Task.decode(payload_of(record))


def report_to_record(report: Report) -> RecordDict:
    """Return the content of the reply that carries a report to the coordinator."""
    about = ConfigRecord(
        {
            "status": report.status,
            "reason": report.reason,
            "version": report.version,
            "device": report.device,
        }
    )
    metrics = MetricRecord({"num-examples": report.examples, "steps": report.steps})
    if report.loss is not None and report.accuracy is not None:
        metrics["loss"], metrics["accuracy"] = report.loss, report.accuracy
    return RecordDict({ABOUT: about, PAYLOAD: payload_record(report.encode()), METRICS: metrics})


def record_to_report(record: RecordDict, task: Task) -> Report:
    """Return the report in a reply's content, which must answer `task`. Raises PayloadError."""
    return Report.decode(payload_of(record), task)


def hello_to_record(fields: Mapping[str, Any]) -> RecordDict:
    """Return the content of the reply by which a device introduces itself.

    The fields are name, device_class, role ("train" or "evaluate"), examples, features and
    classes of its data (0 without), and memory in bytes or None. Raises PayloadError.
    """
    checked = check_fields(fields, HELLO_RULES, "hello")
    known = {name: value for name, value in checked.items() if value is not None}
    return RecordDict({HELLO: ConfigRecord(known)})


def record_to_hello(record: RecordDict) -> dict[str, Any]:
    """Return the fields of hello_to_record. Raises PayloadError for any other content."""
    found = record.config_records.get(HELLO)
    if found is None:
        raise PayloadError("the reply holds no introduction: does this node run edgetrain?")
    return check_fields({"memory": None, **found}, HELLO_RULES, "hello")


def payload_record(payload: bytes) -> ArrayRecord:
    """Return bytes as a record of one Array."""
    array = Array(dtype="uint8", shape=(len(payload),), stype=SERIALISATION, data=payload)
    return ArrayRecord({PAYLOAD: array})


def payload_of(record: RecordDict) -> bytes:
    """Return the bytes that a record carries. Raises PayloadError where there are none of ours."""
    arrays = record.array_records.get(PAYLOAD)
    if arrays is None or set(arrays) != {PAYLOAD}:
        raise PayloadError("the message holds no payload: is it from edgetrain?")
    array = arrays[PAYLOAD]
    if (array.dtype, array.stype) != ("uint8", SERIALISATION):
        raise PayloadError(f"the payload is {array.dtype} by {array.stype}, not {SERIALISATION}")
    return array.data
