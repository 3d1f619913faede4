"""Tasks, reports and introductions as Flower's own records; see edgetrain.client.records."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict

from edgetrain.client.records import (
    ABOUT,
    HELLO,
    METRICS,
    PAYLOAD,
    SERIALISATION,
    about_report,
    check_hello,
    metrics_of,
)
from edgetrain.errors import PayloadError
from edgetrain.task import Report, Task

__all__ = [
    "PAYLOAD",
    "hello_to_record",
    "payload_of",
    "record_to_hello",
    "record_to_report",
    "record_to_task",
    "report_to_record",
    "task_to_record",
]


def task_to_record(task: Task) -> RecordDict:
    """Return the content of the message that carries a task to its device."""
    about = ConfigRecord({"kind": task.kind, "version": task.version, "device": task.device})
    return RecordDict({ABOUT: about, PAYLOAD: payload_record(task.encode())})


def record_to_task(record: RecordDict) -> Task:
    """Return the task in a message's content. Raises PayloadError for anything else."""
    return Task.decode(payload_of(record))


def report_to_record(report: Report) -> RecordDict:
    """Return the content of the reply that carries a report to the coordinator."""
    return RecordDict(
        {
            ABOUT: ConfigRecord(about_report(report)),
            PAYLOAD: payload_record(report.encode()),
            METRICS: MetricRecord(metrics_of(report)),
        }
    )


def record_to_report(record: RecordDict, task: Task) -> Report:
    """Return the report in a reply's content, which must answer `task`. Raises PayloadError."""
    return Report.decode(payload_of(record), task)


def hello_to_record(fields: Mapping[str, Any]) -> RecordDict:
    """Return the content of the reply by which a device introduces itself; see check_hello."""
    known = {name: value for name, value in check_hello(fields).items() if value is not None}
    return RecordDict({HELLO: ConfigRecord(known)})


def record_to_hello(record: RecordDict) -> dict[str, Any]:
    """Return the fields of hello_to_record. Raises PayloadError for any other content."""
    found = record.config_records.get(HELLO)
    if found is None:
        raise PayloadError("the reply holds no introduction: does this node run edgetrain?")
    return check_hello({"memory": None, **found})


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
