"""Trainer: it learns, it stops, it goes on where it was, and it refuses what does not fit."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import edgetrain as et
from edgetrain.errors import DataError, ModelError, PayloadError, StorageError
from edgetrain.schedule import SCHEDULES
from edgetrain.schema import moment_schema
from edgetrain.step import batch_bounds
from edgetrain.tensorfile import read, write

# A separable problem of two clusters a class is learnt far better than chance, 1/3, and this.
LEARNT = 0.9


def clusters(count: int = 300, features: int = 40) -> tuple[Any, Any]:
    """Return uint8 examples around three centres, and their labels."""
    draws = np.random.default_rng(0)
    y = (np.arange(count) % 3).astype(np.uint8)
    centres = draws.integers(60, 196, (3, features))
    x = np.clip(centres[y] + draws.normal(0, 25, (count, features)), 0, 255).astype(np.uint8)
    return x, y


def trainer(mode: Any = "bnn", **choices: Any) -> et.Trainer:
    """Return a small trainer."""
    return et.Trainer(et.plan(et.models.mlp(40, 3, (32, 32)), 30, mode, **choices), seed=1)


def bytes_of(one: et.Trainer) -> dict[str, bytes]:
    """Return a trainer's state as bytes."""
    return {name: bytes(tensor.data) for name, tensor in one.state().items()}


@pytest.mark.parametrize("mode", ["bnn", "fsb"])
def test_it_learns(mode: str) -> None:
    x, y = clusters()
    one = trainer(mode)
    before = one.evaluate(x, y)
    learnt = one.fit(x, y, epochs=10, schedule="linear")
    after = one.evaluate(x, y)
    assert learnt.examples == after.examples == 300
    assert after.accuracy > LEARNT > before.accuracy
    assert after.loss < before.loss


def test_small_micro_batches_learn_too() -> None:
    x, y = clusters()
    one = trainer(micro_batch=5)
    one.fit(x, y, epochs=10, schedule="linear")
    assert one.evaluate(x, y).accuracy > LEARNT


@pytest.mark.parametrize("count", [1, 29, 30, 31, 59, 61, 300])
def test_every_example_is_used_once_an_epoch(count: int) -> None:
    bounds = list(batch_bounds(count, 30))
    assert bounds[0][0] == 0
    assert bounds[-1][1] == count
    sizes = [end - begin for begin, end in bounds]
    assert len(bounds) == -(-count // 30)
    assert max(sizes) - min(sizes) <= 1
    x, y = clusters()
    assert trainer().fit(x[:count], y[:count]).examples == count


def test_signed_and_unsigned_data_of_one_shape_learn_the_same_bits() -> None:
    x, y = clusters()
    one, other = trainer(), trainer()
    one.fit(x, y)
    other.fit((x.astype(np.int16) - 128).astype(np.int8), y)
    assert bytes_of(one) == bytes_of(other)


def test_float_data_are_scaled_once_and_alike() -> None:
    x, y = clusters()
    one = trainer()
    scaled = x.astype(np.float32) * 0.37 - 5
    one.fit(scaled, y, epochs=10)
    assert one.evaluate(scaled, y).accuracy > LEARNT
    assert one.evaluate(scaled[:5], y[:5]).examples == 5
    with pytest.raises(DataError, match="no scale"):
        trainer().evaluate(scaled, y)


def test_a_stop_ends_within_one_micro_batch_and_counts_what_was_used() -> None:
    x, y = clusters()
    asked = 0

    def stop() -> bool:
        nonlocal asked
        asked += 1
        return asked > 4

    one = trainer()
    metrics = one.fit(x, y, epochs=3, should_stop=stop)
    assert one.steps == 4
    assert metrics.examples == 4 * 30
    assert one.epochs == 0


def test_nothing_done_is_zero_examples() -> None:
    x, y = clusters()
    assert trainer().fit(x, y, should_stop=lambda: True) == et.Metrics(0.0, 0.0, 0)


def test_a_checkpoint_goes_on_bit_for_bit(tmp_path: Path) -> None:
    x, y = clusters()
    path = tmp_path / "model.safetensors"
    whole = trainer()
    whole.fit(x, y, epochs=4, schedule="linear", schedule_epochs=4)
    half = trainer()
    half.fit(x, y, epochs=2, schedule="linear", schedule_epochs=4)
    half.save(path)
    resumed = et.load(path)
    resumed.fit(x, y, epochs=2, schedule="linear", schedule_epochs=4)
    assert bytes_of(resumed) == bytes_of(whole)
    assert resumed.steps == whole.steps
    assert resumed.evaluate(x, y) == whole.evaluate(x, y)


def test_a_checkpoint_keeps_the_scale_of_float_data(tmp_path: Path) -> None:
    x, y = clusters()
    one = trainer()
    one.fit(x.astype(np.float32), y)
    one.save(tmp_path / "m")
    assert et.load(tmp_path / "m").evaluate(x.astype(np.float32), y) == one.evaluate(
        x.astype(np.float32), y
    )


def test_a_damaged_checkpoint_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "m"
    trainer().save(path)
    whole = path.read_bytes()
    for damaged in (
        whole[:-1],
        whole[: len(whole) // 2],
        b"",
        b"\0" * 100,
        whole.replace(b"edgetrain-checkpoint", b"edgetrain-checkpoinT"),
        whole.replace(b'\\"batch\\": 30', b'\\"batch\\": -3'),
        whole.replace(b'\\"remade\\": []', b'\\"remade\\": {}'),
    ):
        path.write_bytes(damaged)
        with pytest.raises((PayloadError, DataError)):
            et.load(path)
    with pytest.raises(DataError, match="nowhere"):
        et.load(tmp_path / "nowhere")


def test_a_checkpoint_that_cannot_be_written_leaves_the_old_one(tmp_path: Path) -> None:
    x, y = clusters()
    one = trainer()
    path = tmp_path / "m"
    one.save(path)
    before = path.read_bytes()
    one.fit(x, y)
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("needs /dev/full, a disk without room")
    draft = path.with_name(f".{path.name}.{__import__('os').getpid()}.tmp")
    draft.symlink_to(full)
    with pytest.raises(StorageError, match="what was there before is intact"):
        one.save(path)
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (np.zeros((4, 39), np.uint8), np.zeros(4, np.uint8), "takes 40 features"),
        (np.zeros((4, 40), np.int32), np.zeros(4, np.uint8), "give uint8, int8, or float32"),
        (np.zeros((4, 80), np.uint8)[:, ::2], np.zeros(4, np.uint8), "is not contiguous"),
        (np.full((4, 40), np.nan, np.float32), np.zeros(4, np.uint8), "NaN"),
        ("words", np.zeros(4, np.uint8), "x is str"),
        (np.zeros((4, 40), np.uint8), np.zeros(4, np.float32), "not an integer"),
    ],
)
def test_data_that_do_not_fit_are_refused(x: Any, y: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        trainer().fit(x, y)


def test_a_state_of_another_model_is_refused() -> None:
    other = et.Trainer(et.plan(et.models.mlp(40, 3, (32, 16)), 30))
    with pytest.raises(PayloadError):
        trainer().load_state(other.state())
    with pytest.raises(PayloadError):
        trainer("fsb").load_state(trainer("bnn").state())


def test_a_state_carries_everything_that_judges() -> None:
    x, y = clusters()
    one, other = trainer(), trainer()
    one.fit(x, y, epochs=3)
    other.load_state(one.state())
    assert other.evaluate(x, y) == one.evaluate(x, y)


def test_an_unknown_schedule_is_refused() -> None:
    x, y = clusters()
    with pytest.raises(ModelError, match="choose constant, linear or cosine"):
        trainer().fit(x, y, schedule="steps")
    with pytest.raises(ModelError, match="warm-up of 2 epochs does not fit a schedule of 2"):
        trainer().fit(x, y, epochs=2, schedule="cosine", warmup=2)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_every_schedule_and_a_warmup_learn_and_differ(schedule: str) -> None:
    x, y = clusters()
    one, warmed = trainer(), trainer()
    one.fit(x, y, epochs=10, schedule=schedule)
    warmed.fit(x, y, epochs=10, schedule=schedule, warmup=1.5)
    assert one.evaluate(x, y).accuracy > LEARNT
    assert warmed.evaluate(x, y).accuracy > LEARNT
    assert bytes_of(one) != bytes_of(warmed)


def stop_after(steps: int) -> Callable[[], bool]:
    """Return a should_stop that lets so many micro-batches pass."""
    asked = iter(range(steps))
    return lambda: next(asked, None) is None


def everything(one: et.Trainer) -> tuple[object, ...]:
    """Return all that decides how a trainer goes on, and what it says of its epoch."""
    moments = [one.tensor(name) for name in moment_schema(one.plan.model, one.plan.mode)]
    counts = (one.steps, one.epochs, one._steps_since_load, one.metrics)
    return bytes_of(one), moments, counts


@settings(max_examples=40, deadline=None)
@given(
    stops=st.lists(st.integers(0, 20), max_size=4),
    micro_batch=st.sampled_from([1, 7, 10, 30]),
    count=st.sampled_from([1, 37, 60, 95]),
    schedule=st.sampled_from(list(SCHEDULES)),
    warmup=st.sampled_from([0.0, 0.5, 1.3]),
    mode=st.sampled_from(["bnn", "fsb"]),
)
def test_a_run_that_stops_anywhere_ends_where_one_that_never_stopped_does(
    stops: list[int], micro_batch: int, count: int, schedule: str, warmup: float, mode: str
) -> None:
    x, y = clusters(count)
    plan: dict[str, Any] = {"schedule": schedule, "schedule_epochs": 3, "warmup": warmup}
    whole = trainer(mode, micro_batch=micro_batch)
    wanted = whole.fit(x, y, epochs=3, **plan)
    one, steps = trainer(mode, micro_batch=micro_batch), 0
    with TemporaryDirectory() as folder:
        path = Path(folder) / "m"
        for stop in stops:
            if one.epochs < 3:
                one.fit(x, y, epochs=3 - one.epochs, should_stop=stop_after(stop), **plan)
            steps = min(steps + stop, whole.steps)
            assert one.steps == steps
            one.save(path)
            before = everything(one)
            one = et.load(path)
            assert everything(one) == before
    if one.epochs < 3:
        assert one.fit(x, y, epochs=3 - one.epochs, **plan) == wanted
    assert everything(one) == everything(whole)


def test_an_unfinished_epoch_goes_on_with_its_own_data_alone() -> None:
    x, y = clusters()
    one = trainer()
    one.fit(x, y, should_stop=stop_after(2))
    with pytest.raises(DataError, match="used 60 of 300 examples, and these are 100"):
        one.fit(x[:100], y[:100])
    one.load_state(one.state())
    assert one.fit(x[:100], y[:100]).examples == 100


def test_a_stop_before_the_first_step_binds_to_no_data() -> None:
    x, y = clusters()
    one = trainer()
    one.fit(x, y, should_stop=lambda: True)
    assert one.fit(x[:100], y[:100]).examples == 100
    assert one.fit(x, y, should_stop=lambda: True) == et.Metrics(0.0, 0.0, 0)


def test_a_stop_ends_evaluation_too() -> None:
    x, y = clusters()
    assert trainer().evaluate(x, y, should_stop=stop_after(2)).examples == 60


def rewritten(path: Path, change: Callable[[dict[str, Any], dict[str, str]], None]) -> Path:
    """Return the path of a checkpoint whose fields and metadata were changed."""
    tensors, metadata = read(path)
    fields = json.loads(metadata["trainer"])
    change(fields, metadata)
    write(path, tensors, metadata | {"trainer": json.dumps(fields)})
    return path


def test_a_checkpoint_of_version_1_is_read_and_its_unfinished_epoch_begins_anew(
    tmp_path: Path,
) -> None:
    x, y = clusters()
    one = trainer()
    one.fit(x, y, should_stop=stop_after(2))
    one.save(tmp_path / "m")

    def age(fields: dict[str, Any], metadata: dict[str, str]) -> None:
        del fields["epoch"]
        metadata["version"] = "1"

    old = et.load(rewritten(tmp_path / "m", age))
    assert (old.steps, old.epochs) == (2, 0)
    assert old.fit(x, y).examples == 300


def test_a_checkpoint_of_the_future_says_what_to_do(tmp_path: Path) -> None:
    trainer().save(tmp_path / "m")
    path = rewritten(tmp_path / "m", lambda _, metadata: metadata.update(version="3"))
    with pytest.raises(PayloadError, match="version '3': this build reads 1 and 2: update"):
        et.load(path)


@pytest.mark.parametrize(
    "epoch",
    [
        {"examples": 3, "used": 4, "loss": 0.0, "correct": 0},
        {"examples": 3, "used": -1, "loss": 0.0, "correct": 0},
        {"examples": 3, "used": 1, "loss": "0", "correct": 0},
        {"examples": True, "used": 1, "loss": 0.0, "correct": 0},
        {"example": 3},
        [],
        None,
    ],
)
def test_a_position_that_cannot_be_is_refused(tmp_path: Path, epoch: object) -> None:
    trainer().save(tmp_path / "m")
    path = rewritten(tmp_path / "m", lambda fields, _: fields.update(epoch=epoch))
    with pytest.raises(PayloadError, match="is damaged"):
        et.load(path)
