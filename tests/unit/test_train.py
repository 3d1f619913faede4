"""Trainer: it learns, it stops, it goes on where it was, and it refuses what does not fit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import edgetrain as et
from edgetrain.errors import DataError, ModelError, PayloadError, StorageError
from edgetrain.step import batch_bounds

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
    bounds = batch_bounds(count, 30)
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
    with pytest.raises(ModelError, match="choose constant or linear"):
        trainer().fit(x, y, schedule="cosine")  # type: ignore[arg-type]
