"""Tasks and reports: round trips, what they refuse, and everything hostile they may be sent."""

from __future__ import annotations

import dataclasses
import json
import math
import struct
import tracemalloc
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgetrain import models, tensorfile
from edgetrain.errors import PayloadError
from edgetrain.model import Model
from edgetrain.schema import state_schema
from edgetrain.task import PlanSummary, Report, Task, one_line
from edgetrain.tensorfile import DTYPES, State, Tensor
from edgetrain.update import CODECS, update_schema

# Decoding copies the header into JSON and Python objects, several times over at most; tensors
# are views. A hostile header of many tiny objects is the worst case.
ALLOCATION_PER_BYTE = 64
ALLOCATION_BASE = 1 << 18

MODEL = models.mlp(inputs=9, classes=3, hidden=(5,))
PLAN = PlanSummary("bnn", 4, 1, 12_345)


def zeros(schema: dict[str, tuple[str, tuple[int, ...]]]) -> State:
    return {
        name: Tensor(dtype, shape, bytes(math.prod(shape) * DTYPES[dtype][0]))
        for name, (dtype, shape) in schema.items()
    }


def a_task(**changes: Any) -> Task:
    fields: dict[str, Any] = {
        "kind": "train",
        "version": 3,
        "device": "subject 1, left",
        "model": MODEL,
        "mode": "bnn",
        "batch": 32,
        "local_epochs": 2,
        "learning_rate": 0.04,
        "codec": "luq4",
        "seed": 7,
        "deadline": None,
    } | changes
    fields.setdefault("state", zeros(state_schema(fields["model"], fields["mode"])))
    return Task(**fields)


def a_report(**changes: Any) -> Report:
    fields: dict[str, Any] = {
        "status": "trained",
        "version": 3,
        "device": "subject 1, left",
        "examples": 64,
        "steps": 2,
        "loss": 0.5,
        "accuracy": 0.75,
        "plan": PLAN,
        "predicted_peak_bytes": 1 << 24,
        "measured_peak_bytes": 1 << 23,
        "seconds": 1.5,
        "joules": None,
        "update": zeros(update_schema(MODEL, "bnn", "luq4")),
    } | changes
    return Report(**fields)


DECLINED = Report("declined", 3, "subject 1, left", reason="no examples")

tasks = st.builds(
    a_task,
    kind=st.sampled_from(["train", "evaluate"]),
    version=st.integers(0, 1 << 48),
    device=st.text(st.characters(codec="utf-8"), min_size=1, max_size=20).filter(str.isprintable),
    mode=st.sampled_from(["bnn", "fsb"]),
    batch=st.integers(1, 8192),
    learning_rate=st.floats(0, 1),
    codec=st.sampled_from(sorted(CODECS)),
    seed=st.integers(0, (1 << 63) - 1),
    deadline=st.none() | st.floats(0, 1e9),
)


@given(tasks)
def test_a_task_survives_the_wire(task: Task) -> None:
    content = task.encode()
    assert Task.decode(content) == task
    assert Task.decode(content).encode() == content


@pytest.mark.parametrize("mode", ["bnn", "fsb"])
@pytest.mark.parametrize("codec", CODECS)
def test_a_report_survives_the_wire(mode: str, codec: str) -> None:
    task = a_task(mode=mode, codec=codec)
    report = a_report(update=zeros(update_schema(MODEL, mode, codec)))
    assert Report.decode(report.encode(), task) == report


@pytest.mark.parametrize(
    "report",
    [
        DECLINED,
        dataclasses.replace(DECLINED, status="failed", reason="no space", plan=PLAN),
    ],
)
def test_a_polite_no_survives_the_wire(report: Report) -> None:
    for kind in ("train", "evaluate"):
        assert Report.decode(report.encode(), a_task(kind=kind)) == report


def test_an_evaluation_survives_the_wire() -> None:
    report = a_report(status="evaluated", update={})
    assert Report.decode(report.encode(), a_task(kind="evaluate")) == report


BAD_TASKS: dict[str, tuple[dict[str, Any], str]] = {
    "kind": ({"kind": "destroy"}, "train, evaluate"),
    "version": ({"version": -1}, "version is -1"),
    "device empty": ({"device": ""}, "device"),
    "device on two lines": ({"device": "a\nb"}, "device"),
    "mode": ({"mode": "bnn", "state": {}}, "lacks tensor"),
    "batch": ({"batch": 0}, "batch is 0"),
    "batch true": ({"batch": True}, "batch is True"),
    "rate infinite": ({"learning_rate": math.inf}, "learning_rate is inf"),
    "rate not a number": ({"learning_rate": math.nan}, "learning_rate is nan"),
    "codec": ({"codec": "zip"}, "luq4"),
    "seed": ({"seed": 1 << 63}, "seed"),
    "deadline": ({"deadline": -1.0}, "deadline"),
}


@pytest.mark.parametrize("case", BAD_TASKS)
def test_a_task_refuses(case: str) -> None:
    changes, message = BAD_TASKS[case]
    with pytest.raises(PayloadError, match=message):
        a_task(**changes)


def with_tensor(name: str, tensor: Tensor) -> State:
    return zeros(state_schema(MODEL, "bnn")) | {name: tensor}


BAD_STATES = {
    "another tensor": (with_tensor("layer9.latent", Tensor("I8", (1,), b"1")), "layer9"),
    "another dtype": (with_tensor("layer0.latent", Tensor("U8", (5, 9), bytes(45))), "U8"),
    "another shape": (with_tensor("layer0.latent", Tensor("I8", (9, 5), bytes(45))), r"\(9, 5\)"),
    "latent -128": (with_tensor("layer0.latent", Tensor("I8", (5, 9), b"\x80" * 45)), "-128"),
    "shift NaN": (
        with_tensor("layer0.shift", Tensor("F32", (5,), struct.pack("<5f", *[math.nan] * 5))),
        "not finite",
    ),
    "deviation negative": (
        with_tensor("layer0.deviation", Tensor("F32", (5,), struct.pack("<5f", *[-1] * 5))),
        "negative",
    ),
}


@pytest.mark.parametrize("case", BAD_STATES)
def test_a_task_refuses_a_state(case: str) -> None:
    state, message = BAD_STATES[case]
    with pytest.raises(PayloadError, match=message):
        a_task(state=state)


BAD_REPORTS: dict[str, tuple[dict[str, Any], str]] = {
    "status": ({"status": "happy"}, "status"),
    "no examples": ({"examples": 0}, "trained with 0 examples"),
    "no loss": ({"loss": None}, "without loss"),
    "loss NaN": ({"loss": math.nan}, "loss is nan"),
    "accuracy": ({"accuracy": 1.5}, "accuracy"),
    "no update": ({"update": {}}, "0 update tensors"),
    "no reason": ({"status": "declined", "examples": 0, "update": {}}, "without a reason"),
    "joules": ({"joules": -1.0}, "joules"),
    "reason on two lines": ({"reason": "a\nb"}, "reason"),
}


@pytest.mark.parametrize("case", BAD_REPORTS)
def test_a_report_refuses(case: str) -> None:
    changes, message = BAD_REPORTS[case]
    with pytest.raises(PayloadError, match=message):
        a_report(**changes)


OTHER_MODEL = models.mlp(inputs=9, classes=3, hidden=(6,))
MISMATCHES: dict[str, dict[str, Any]] = {
    "another device": {"device": "subject 2, left"},
    "another version": {"version": 4},
    "another kind": {"kind": "evaluate"},
    "another codec": {"codec": "raw8"},
    "another mode": {"mode": "fsb"},
    "another model": {"model": OTHER_MODEL},
}


@pytest.mark.parametrize("case", MISMATCHES)
def test_a_report_must_answer_its_task(case: str) -> None:
    with pytest.raises(PayloadError):
        Report.decode(a_report().encode(), a_task(**MISMATCHES[case]))


def test_a_change_beyond_a_latents_range_is_refused() -> None:
    update = zeros(update_schema(MODEL, "bnn", "luq4"))
    update["layer0.latent.maximum"] = Tensor("U32", (1,), (255).to_bytes(4, "little"))
    with pytest.raises(PayloadError, match="255, over 254"):
        Report.decode(a_report(update=update).encode(), a_task())


def repacked(content: bytes, **changes: str | None) -> bytes:
    """Return a message with some of its metadata replaced, or taken out."""
    tensors, metadata = tensorfile.decode(content)
    merged = {**metadata, **changes}
    return tensorfile.encode(tensors, {k: v for k, v in merged.items() if v is not None})


def test_an_unknown_version_names_those_that_are_understood() -> None:
    with pytest.raises(PayloadError, match=r"version '2': this build understands 1"):
        Task.decode(repacked(a_task().encode(), version="2"))
    with pytest.raises(PayloadError, match=r"understands 1"):
        Task.decode(repacked(a_task().encode(), version=None))


def test_a_report_is_no_task() -> None:
    with pytest.raises(PayloadError, match="edgetrain-report"):
        Task.decode(DECLINED.encode())


@pytest.mark.parametrize(
    "fields",
    [
        "",
        "[]",
        "null",
        "{}",
        '{"kind": "train", "kind": "train"}',
        '{"surprise": 1}',
        '{"learning_rate": NaN}',
        "[" * 100_000,
    ],
)
def test_fields_that_are_none(fields: str) -> None:
    with pytest.raises(PayloadError):
        Task.decode(repacked(a_task().encode(), fields=fields))
    with pytest.raises(PayloadError):
        Report.decode(repacked(DECLINED.encode(), fields=fields), a_task())


def test_metadata_must_be_known() -> None:
    with pytest.raises(PayloadError, match="alone"):
        Task.decode(repacked(a_task().encode(), extra="1"))


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)


def rewritten(content: bytes, draw: st.DrawFn) -> bytes:
    """Return a message one of whose fields, or of its model's, holds any JSON value."""
    _, metadata = tensorfile.decode(content)
    fields = json.loads(metadata["fields"])
    target = fields
    if "model" in fields and draw(st.booleans()):
        target = json.loads(fields["model"])
        fields["model"] = target
        if draw(st.booleans()):
            target = target["layers"][draw(st.integers(0, len(target["layers"]) - 1))]
    name = draw(st.sampled_from([*sorted(target), "extra"]))
    target[name] = draw(json_values | st.sampled_from([0, 1, 1 << 40, 10**400, "bnn", 1e999]))
    if isinstance(fields.get("model"), dict):
        fields["model"] = json.dumps(fields["model"])
    return repacked(content, fields=json.dumps(fields))


@st.composite
def hostile(draw: st.DrawFn, content: bytes) -> bytes:
    """Return a message with a field rewritten, or bytes changed, put in, taken out or cut off."""
    if draw(st.booleans()):
        return rewritten(content, draw)
    damaged = bytearray(content)
    for _ in range(draw(st.integers(1, 4))):
        place = draw(st.integers(0, len(damaged)))
        removed = draw(st.integers(0, 3))
        damaged[place : place + removed] = draw(st.binary(max_size=3))
    return bytes(damaged[: draw(st.integers(0, len(damaged)) | st.just(len(damaged)))])


def decode_bounded(decode: Any, content: bytes) -> Any:
    """Return what `decode` makes of the bytes, or None if it refuses; assert its memory bound."""
    tracemalloc.start()
    try:
        return decode(content)
    except PayloadError:
        return None
    finally:
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < ALLOCATION_BASE + ALLOCATION_PER_BYTE * len(content)


@given(hostile(a_task().encode()))
def test_a_hostile_task_is_an_error_or_a_valid_task(content: bytes) -> None:
    task = decode_bounded(Task.decode, content)
    if task is not None:
        assert Task.decode(task.encode()) == task


@given(hostile(a_report().encode()) | hostile(DECLINED.encode()))
def test_a_hostile_report_is_an_error_or_a_valid_report(content: bytes) -> None:
    task = a_task()
    report = decode_bounded(lambda found: Report.decode(found, task), content)
    if report is not None:
        assert Report.decode(report.encode(), task) == report


def test_every_truncation_is_refused() -> None:
    task = a_task()
    for content, decode in (
        (task.encode(), Task.decode),
        (a_report().encode(), lambda found: Report.decode(found, task)),
    ):
        for length in range(len(content)):
            with pytest.raises(PayloadError):
                decode(content[:length])


def test_a_model_that_claims_the_world_allocates_nothing() -> None:
    huge = json.loads(MODEL.to_json())
    huge["input_shape"] = [1, 1, 65536]
    huge["layers"][0]["outputs"] = 65536
    fields = json.loads(tensorfile.decode(a_task().encode())[1]["fields"])
    content = repacked(a_task().encode(), fields=json.dumps({**fields, "model": json.dumps(huge)}))
    assert decode_bounded(Task.decode, content) is None


@given(st.text() | st.builds(ValueError, st.text()))
def test_any_text_becomes_a_reason(text: object) -> None:
    assert Report("failed", 0, "a", reason=one_line(text)).reason


def test_the_model_is_part_of_a_task() -> None:
    assert isinstance(Task.decode(a_task().encode()).model, Model)
