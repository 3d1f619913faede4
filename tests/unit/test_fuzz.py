"""Damaged bytes off a wire or a disk: refused in words of ours, or as good as any.

Every payload that a device, a coordinator or a user reads is damaged, a few bytes or values of its
JSON at a time. Reading it must end, in memory that the payload accounts for, with an EdgetrainError
or with something valid: it survives being written again, and what it describes can be trained on.

`make fuzz` runs the same for as long as wanted: FUZZ_EXAMPLES damaged copies of each payload, drawn
from FUZZ_SEED. Hypothesis prints the smallest copy that fails.
"""

from __future__ import annotations

import json
import math
import os
import signal
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from edgetrain import models, tensorfile
from edgetrain.client.job import Job
from edgetrain.coordinator.aggregate import Accumulator
from edgetrain.coordinator.checkpoint import Checkpoint, digest
from edgetrain.coordinator.global_model import GlobalModel
from edgetrain.coordinator.history import DeviceRecord, History, RoundRecord
from edgetrain.data import store
from edgetrain.data.scaling import Scaling
from edgetrain.errors import EdgetrainError, PayloadError
from edgetrain.memory_profiler.memory import peak_bytes, reset_peak, resident_bytes
from edgetrain.model import Model
from edgetrain.models.stack import classifier, stage
from edgetrain.ops import Conv2d
from edgetrain.ops.op import Mode
from edgetrain.packed import export_packed
from edgetrain.planner import plan
from edgetrain.predictor import Predictor
from edgetrain.schema import check_state
from edgetrain.task import PlanSummary, Report, Task
from edgetrain.train import Trainer, load
from edgetrain.update import check_update, encode_update, update_key

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "40"))
SEED = int(os.environ.get("FUZZ_SEED", "0"))
SECONDS = 10.0
"""Of the processor, for reading one payload of a few kilobytes and training on it: far too many."""
BYTES_PER_BYTE, BYTES_BESIDE = 64, 1 << 20
"""Python's memory while reading: a header becomes many small objects, some code is loaded late."""
ARENA = 8 << 20
"""The largest plan that is tried."""
NATIVE_BYTES = 4 * ARENA
"""Of resident memory while reading: an arena or two, their pages and the allocator's."""

MLP = models.mlp(inputs=9, classes=3, hidden=(5,))
IMAGES = Model(
    (6, 5, 3),
    (*stage(Conv2d(32, training="bnn")), *stage(Conv2d(32), pool=True), *classifier((), 3, "int8")),
)


class Hangs(BaseException):
    """Reading took too long; nobody catches this by accident."""


def stop(*_: object) -> None:
    raise Hangs


@contextmanager
def bounded(content: bytes) -> Iterator[None]:
    """Refuse to spend more time than SECONDS, or more memory than the content may take."""
    before = signal.signal(signal.SIGVTALRM, stop)
    signal.setitimer(signal.ITIMER_VIRTUAL, SECONDS)
    measured = reset_peak()
    resident = resident_bytes() or 0
    tracemalloc.start()
    try:
        yield
        _, peak = tracemalloc.get_traced_memory()
        assert peak < BYTES_BESIDE + BYTES_PER_BYTE * len(content)
        assert not measured or (peak_bytes() or 0) - resident < NATIVE_BYTES
    finally:
        tracemalloc.stop()
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)


def trained(model: Model, mode: Mode) -> Trainer:
    """Return a trainer after one step."""
    trainer = Trainer(plan(model, 2, mode), seed=7)
    trainer.fit(bytes(range(2 * model.input_features)), bytes((0, 1)))
    return trainer


def a_task(model: Model, mode: Mode, codec: str) -> Task:
    state = trained(model, mode).state()
    return Task("train", 3, "subject 1", model, mode, 32, 2, 0.04, codec, 7, 60.0, state)


def a_report(task: Task) -> Report:
    update = update_of(task, trained(task.model, task.mode))
    plan = PlanSummary(task.mode, 2, 1, 12_345)
    return Report(
        "trained", 3, "subject 1", "", 64, 2, 0.5, 0.75, plan, 1 << 24, 1 << 23, 1.5, update=update
    )


def update_of(task: Task, trainer: Trainer) -> tensorfile.State:
    key = update_key(task.seed, task.version, task.device)
    return encode_update(task.state, trainer.state(), task.codec, key)


def read_task(content: bytes, folder: Path) -> None:
    del folder
    task = Task.decode(content)
    assert Task.decode(task.encode()) == task
    try_training(task)


def try_training(task: Task) -> None:
    """Do what a device does with a task; its update must be one that the coordinator takes."""
    chosen = plan(task.model, 2, task.mode, micro_batch=2, memory=ARENA)
    trainer = Trainer(chosen, seed=task.seed, learning_rate=task.learning_rate)
    trainer.load_state(task.state)
    trainer.fit(bytes(2 * task.model.input_features), bytes(2))
    check_update(update_of(task, trainer), task.model, task.mode, task.codec)


def report_reader(task: Task) -> Callable[[bytes, Path], None]:
    """Return what reads an answer to a task, as a coordinator does, and folds it."""

    def read(content: bytes, folder: Path) -> None:
        del folder
        report = Report.decode(content, task)
        assert Report.decode(report.encode(), task) == report
        if report.update:
            model = GlobalModel.from_state(task.model, task.mode, task.state, task.version)
            accumulator = Accumulator(model)
            accumulator.fold(report)
            check_state(accumulator.apply().state(), task.model, task.mode)

    return read


def fresh_file(folder: Path, content: bytes) -> Path:
    """Return a new file; one that is still mapped must not change."""
    path = folder / "payload"
    path.unlink(missing_ok=True)
    path.write_bytes(content)
    return path


def read_trainer(content: bytes, folder: Path) -> None:
    trainer = load(fresh_file(folder, content))
    again = folder / "again"
    trainer.save(again)
    assert load(again).state() == trainer.state()
    check_state(trainer.state(), trainer.plan.model, trainer.plan.mode)
    trainer.fit(bytes(2 * trainer.plan.model.input_features), bytes(2))


def read_predictor(content: bytes, folder: Path) -> None:
    predictor = Predictor(fresh_file(folder, content), memory=ARENA)
    (found,) = predictor.predict(bytes(math.prod(predictor.input_shape)))
    assert 0 <= found < predictor.classes


def read_fleet(content: bytes, folder: Path) -> None:
    del folder
    checkpoint = Checkpoint.decode(*tensorfile.decode(content))
    assert Checkpoint.decode(*checkpoint.encode()).encode() == checkpoint.encode()
    check_state(checkpoint.model.state(), checkpoint.model.model, checkpoint.model.mode)


def read_data(content: bytes, folder: Path) -> None:
    with store.open(fresh_file(folder, content)) as data:
        assert data.features.nbytes == data.examples * data.feature_count
        assert max(data.labels) < data.classes


def read_model(content: bytes, folder: Path) -> None:
    del folder
    text = content.decode("utf-8", "surrogateescape")
    model = Model.from_json(text)
    assert Model.from_json(model.to_json()) == model


def read_job(content: bytes, folder: Path) -> None:
    del folder
    job = Job.from_json(content.decode("utf-8", "surrogateescape"))
    assert Job.from_json(job.to_json()) == job


def fleet_checkpoint(task: Task) -> bytes:
    model = GlobalModel.from_state(task.model, task.mode, task.state)
    rounds = (RoundRecord(1, 2, 1, 64, 0.5, 0.75, 0.4, 10, 1000, 2000, 1.5, {"late": 1}),)
    devices = {"subject 1": DeviceRecord("subject 1", reasons={"late": 1})}
    fleet = {"data": {"path": "watch"}, "device": [{"name": "any", "memory": "8MiB"}]}
    return tensorfile.encode(*Checkpoint(model, History(rounds, devices), fleet).encode())


def signed(content: bytes) -> bytes:
    """Return a fleet's checkpoint with the checksum that its content asks for, if there is one."""
    try:
        tensors, metadata = tensorfile.decode(content)
    except EdgetrainError:
        return content
    told = {name: text for name, text in metadata.items() if name != "sha256"}
    return tensorfile.encode(tensors, {**told, "sha256": digest(tensors, told)})


def trainer_checkpoint(folder: Path) -> bytes:
    path = folder / "trainer"
    trained(MLP, "bnn").save(path)
    return path.read_bytes()


def packed_file(model: Model, mode: Mode) -> Callable[[Path], bytes]:
    """Return what packs a model that was trained on floats."""

    def make(folder: Path) -> bytes:
        trainer = trained(model, mode)
        trainer.scaling = Scaling((0.5, -1.5, 2.0), (0.25, 1.0, 1e-3))
        export_packed(trainer, folder / "packed")
        return (folder / "packed").read_bytes()

    return make


def data_file(folder: Path) -> bytes:
    path = folder / "data"
    store.write(path, bytes(range(60)), bytes((0, 1, 2, 0, 1, 2)), 3, (5, 2))
    return path.read_bytes()


@dataclass(frozen=True)
class Payload:
    """Good bytes, and what reads them and checks what it read."""

    make: Callable[[Path], bytes]
    read: Callable[[bytes, Path], None]
    finish: Callable[[bytes], bytes] = bytes


TASKS = {
    "mlp, luq4": a_task(MLP, "bnn", "luq4"),
    "mlp, fsb": a_task(MLP, "fsb", "raw8"),
    "images, raw8": a_task(IMAGES, "bnn", "raw8"),
    "images, fsb": a_task(IMAGES, "fsb", "luq4"),
}
PAYLOADS = {
    **{f"task, {name}": Payload(lambda _, t=t: t.encode(), read_task) for name, t in TASKS.items()},
    **{
        f"report, {name}": Payload(lambda _, t=t: a_report(t).encode(), report_reader(t))
        for name, t in TASKS.items()
    },
    "trainer": Payload(trainer_checkpoint, read_trainer),
    "packed, mlp, fsb": Payload(packed_file(MLP, "fsb"), read_predictor),
    "packed, images": Payload(packed_file(IMAGES, "bnn"), read_predictor),
    "fleet": Payload(lambda _: fleet_checkpoint(TASKS["mlp, luq4"]), read_fleet, signed),
    "data": Payload(data_file, read_data),
    "model": Payload(lambda _: IMAGES.to_json().encode(), read_model),
    "job": Payload(lambda _: Job("a", "b", "c", 2).to_json().encode(), read_job),
}


WILD: list[Any] = [
    *(None, True, False, 0, 1, -1, 2, 15, 33, 255, 256, 8192, 65536, 65537, 1 << 31, 1 << 32),
    *(1 << 62, 1 << 63, -(1 << 63), 10**400, 0.5, -0.0, 1e308, math.inf, math.nan),
    *("", "bnn", "fsb", "int8", "valid", "conv2d", "\ud800", "\0", "é", "x" * 5000),
    *([], {}, [[]], [1, 2, 3, 4, 5, 6, 7, 8, 9], {"op": "sign"}, json.loads("[" * 200 + "]" * 200)),
]


@dataclass
class Text:
    """JSON inside a string of JSON."""

    value: Any


def unfold(value: Any) -> Any:
    """Return JSON with the texts in it that are JSON themselves opened."""
    if isinstance(value, dict):
        return {name: unfold(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [unfold(inner) for inner in value]
    if isinstance(value, str) and value.startswith("{"):
        return Text(unfold(json.loads(value)))
    return value


def fold(value: Any) -> Any:
    """Undo unfold."""
    if isinstance(value, dict):
        return {name: fold(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [fold(inner) for inner in value]
    return json.dumps(fold(value.value)) if isinstance(value, Text) else value


def places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Yield every (container, key) of unfolded JSON."""
    if isinstance(value, Text):
        yield from places(value.value)
    elif isinstance(value, dict | list):
        for key in list(value) if isinstance(value, dict) else range(len(value)):
            yield value, key
            yield from places(value[key])


def damage_json(draw: st.DrawFn, text: str) -> str:
    """Return JSON text one of whose values was replaced, taken out, put in twice or moved."""
    whole = unfold(json.loads(text))
    container, key = draw(st.sampled_from(list(places(whole))))
    match draw(st.sampled_from(["replace", "replace", "remove", "add", "move", "nudge"])):
        case "replace":
            container[key] = draw(st.sampled_from(WILD))
        case "remove":
            del container[key]
        case "add" if isinstance(container, list):
            container.insert(key, container[key])
        case "add":
            container[draw(st.sampled_from(["extra", "op", "__metadata__"]))] = container[key]
        case "nudge" if type(container[key]) in (int, float):
            container[key] += draw(st.integers(-2, 2))
        case _:
            other, place = draw(st.sampled_from(list(places(whole))))
            container[key] = fold(other[place])
    return json.dumps(fold(whole))


def damage_header(draw: st.DrawFn, content: bytes) -> bytes:
    """Return a tensor file with its header damaged, and the length of it mended."""
    length = int.from_bytes(content[:8], "little")
    header = content[8 : 8 + length].decode("utf-8")
    for _ in range(draw(st.integers(1, 2))):
        header = damage_json(draw, header)
    raw = header.encode("utf-8", "surrogatepass")
    raw += b" " * (-len(raw) % 8)
    return len(raw).to_bytes(8, "little") + raw + content[8 + length :]


def damage_bytes(draw: st.DrawFn, content: bytes) -> bytes:
    """Return bytes some of which were changed, put in, taken out, copied elsewhere or cut off."""
    damaged = bytearray(content)
    for _ in range(draw(st.integers(1, 4))):
        place, removed = draw(st.integers(0, len(damaged))), draw(st.integers(0, 8))
        start = draw(st.integers(0, len(damaged)))
        copied = bytes(damaged[start : start + removed])
        extreme = draw(st.sampled_from([b"\0", b"\x7f", b"\x80", b"\xff"])) * removed
        new = draw(st.binary(max_size=8) | st.sampled_from([extreme, copied]))
        damaged[place : place + removed] = new
    return bytes(damaged[: draw(st.just(len(damaged)) | st.integers(0, len(damaged)))])


@st.composite
def damaged(draw: st.DrawFn, content: bytes) -> bytes:
    """Return a payload that was damaged in one way or another."""
    ways = [damage_bytes]
    if content[:1] == b"{":
        ways.append(lambda draw, raw: damage_json(draw, raw.decode()).encode())
    elif content[8:9] == b"{":
        ways += [damage_header, damage_header]
    return draw(st.sampled_from(ways))(draw, content)


def test_a_checkpoint_that_claims_the_world_gets_no_arena(tmp_path: Path) -> None:
    tensors, metadata = tensorfile.decode(trainer_checkpoint(tmp_path))
    model = json.loads(metadata["model"])
    model["input_shape"] = [1, 1, 65536]
    model["layers"][0]["outputs"] = 65536
    content = tensorfile.encode(tensors, {**metadata, "model": json.dumps(model)})
    with bounded(content), pytest.raises(PayloadError, match=r"layer0\.latent"):
        load(fresh_file(tmp_path, content))


@pytest.mark.parametrize("name", PAYLOADS)
def test_a_damaged_payload_is_refused_or_valid(name: str, tmp_path: Path) -> None:
    payload = PAYLOADS[name]
    good = payload.make(tmp_path)
    payload.read(good, tmp_path)

    @seed(SEED)
    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        database=None,
        derandomize=False,
        phases=(Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
    )
    @given(damaged(good))
    def check(content: bytes) -> None:
        content = payload.finish(content)
        with bounded(content):
            try:
                payload.read(content, tmp_path)
            except EdgetrainError as error:
                line = str(error)
            else:
                line = "valid"
        assert line
        assert "\n" not in line

    check()
