"""The ring of samples: what was acknowledged is there, whatever was torn, and no more than fits."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from itertools import accumulate
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgetrain.client.sample_ring import SLOTS_AT, Sample, SampleForm, SampleRing
from edgetrain.data import store
from edgetrain.errors import DataError, StorageError

FORM = SampleForm((2, 3), "b", 5)
CAPACITY = 7
LIMIT = SLOTS_AT + CAPACITY * FORM.slot_bytes
TORN_MODES = ("mark", "slot", "both")


def sample(number: int) -> Sample:
    return Sample(bytes((number + i) % 256 for i in range(6)), number % 5)


def samples(first: int, last: int) -> list[Sample]:
    """Return the samples that are recorded as the first to the last, both included."""
    return [sample(number) for number in range(first, last + 1)]


@pytest.fixture
def ring(tmp_path: Path) -> SampleRing:
    return SampleRing.create(tmp_path / "ring", FORM, LIMIT)


@given(batches=st.lists(st.integers(0, 2 * CAPACITY), max_size=6))
@settings(max_examples=60, deadline=None)
def test_the_newest_are_kept_in_order(
    tmp_path_factory: pytest.TempPathFactory, batches: list[int]
) -> None:
    path = tmp_path_factory.mktemp("ring") / "ring"
    SampleRing.create(path, FORM, LIMIT).close()
    total = 0
    for size in batches:
        with SampleRing.open(path) as ring:
            assert ring.append(samples(total + 1, total + size)) == total + size
        total += size
    with SampleRing.open(path) as ring:
        assert ring.recorded() == total
        assert ring.samples() == samples(max(1, total - CAPACITY + 1), total)
        assert path.stat().st_size == LIMIT


@given(batches=st.lists(st.integers(1, CAPACITY), min_size=1, max_size=4), data=st.data())
@settings(max_examples=100, deadline=None)
def test_a_torn_write_loses_what_it_was_writing_alone(
    tmp_path_factory: pytest.TempPathFactory, batches: list[int], data: st.DataObject
) -> None:
    """The slot that was being written holds any mixture of old and new, and the mark is old."""
    path = tmp_path_factory.mktemp("ring") / "ring"
    ring = SampleRing.create(path, FORM, LIMIT)
    total = sum(batches)
    for last in accumulate(batches):
        before = path.read_bytes()
        ring.append(samples(ring.recorded() + 1, last))
    whole = path.read_bytes()
    slot = SLOTS_AT + (total - 1) % CAPACITY * FORM.slot_bytes
    torn = data.draw(st.integers(0, FORM.slot_bytes - 1))
    image = bytearray(whole)
    image[slot + torn : slot + FORM.slot_bytes] = before[slot + torn : slot + FORM.slot_bytes]
    image[64:SLOTS_AT] = before[64:SLOTS_AT]
    path.write_bytes(image)
    with SampleRing.open(path) as found:
        # Where nothing of the new sample was written, the oldest is still in its place.
        assert found.samples()[-(CAPACITY - 1) :] == samples(
            max(1, total - CAPACITY + 1), total - 1
        )
        assert found.append([sample(total)]) == total
        assert found.samples() == samples(max(1, total - CAPACITY + 1), total)


@given(place=st.integers(64, LIMIT - 1), value=st.integers(0, 255))
@settings(max_examples=150, deadline=None)
def test_a_changed_byte_loses_one_sample_at_most(
    tmp_path_factory: pytest.TempPathFactory, place: int, value: int
) -> None:
    path = tmp_path_factory.mktemp("ring") / "ring"
    with SampleRing.create(path, FORM, LIMIT) as ring:
        ring.append(samples(1, CAPACITY + 2))
    image = bytearray(path.read_bytes())
    image[place] = value
    path.write_bytes(image)
    with SampleRing.open(path) as found:
        kept = found.samples()
        assert len(kept) >= CAPACITY - 1
        assert set(kept) <= set(samples(3, CAPACITY + 2))


@given(place=st.integers(0, 63), value=st.integers(0, 255))
@settings(max_examples=80, deadline=None)
def test_a_changed_header_is_refused(
    tmp_path_factory: pytest.TempPathFactory, place: int, value: int
) -> None:
    path = tmp_path_factory.mktemp("ring") / "ring"
    SampleRing.create(path, FORM, LIMIT).close()
    image = bytearray(path.read_bytes())
    header_bytes = len(bytes(image[:64]).rstrip(b"\0"))
    if image[place] == value or place >= header_bytes:
        return
    image[place] = value
    path.write_bytes(image)
    with pytest.raises(DataError):
        SampleRing.open(path)


def test_what_is_exported_is_a_data_file(ring: SampleRing, tmp_path: Path) -> None:
    ring.append(samples(1, CAPACITY + 3))
    assert ring.export(tmp_path / "data.etd") == CAPACITY
    with store.open(tmp_path / "data.etd") as data:
        assert data.feature_shape == FORM.feature_shape
        assert data.classes == FORM.classes
        rows = [bytes(value & 0xFF for value in row) for row in data.features.tolist()]
        found = {Sample(row, label) for row, label in zip(rows, data.labels, strict=True)}
        assert found == set(samples(4, CAPACITY + 3))


def test_an_empty_ring_has_nothing_to_train_on(ring: SampleRing, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no examples; record some"):
        ring.export(tmp_path / "data.etd")


@pytest.mark.parametrize(
    "wrong",
    [Sample(bytes(5), 0), Sample(bytes(7), 0), Sample(bytes(6), 5)],
    ids=["short", "long", "label"],
)
def test_a_sample_of_another_form_is_refused_with_all_beside_it(
    ring: SampleRing, wrong: Sample
) -> None:
    with pytest.raises(DataError):
        ring.append([sample(1), wrong])
    assert ring.recorded() == 0


def test_a_ring_takes_no_path_that_is_taken(ring: SampleRing) -> None:
    ring.append([sample(1)])
    with pytest.raises(StorageError, match="File exists"):
        SampleRing.create(ring.path, FORM, LIMIT)
    assert ring.samples() == [sample(1)]
    assert list(ring.path.parent.iterdir()) == [ring.path]


def test_a_limit_that_holds_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="hold no sample"):
        SampleRing.create(tmp_path / "ring", FORM, SLOTS_AT + FORM.slot_bytes - 1)


def test_a_path_without_a_ring_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="make a ring with"):
        SampleRing.open(tmp_path / "nowhere")
    (tmp_path / "text").write_text("hello")
    with pytest.raises(DataError, match="no ring of samples"):
        SampleRing.open(tmp_path / "text")


RECORDER = """
import sys
from pathlib import Path
from edgetrain.client.sample_ring import Sample, SampleRing
ring = SampleRing.open(Path(sys.argv[1]))
number = ring.recorded()
while True:
    number += 1
    features = bytes((number + i) % 256 for i in range(6))
    print(ring.append([Sample(features, number % 5)]), flush=True)
"""
KILLS = 5


def test_what_was_acknowledged_survives_a_kill(tmp_path: Path) -> None:
    path = tmp_path / "ring"
    SampleRing.create(path, FORM, SLOTS_AT + 4000 * FORM.slot_bytes).close()
    acknowledged = 0
    for kill in range(KILLS):
        command = [sys.executable, "-c", RECORDER, str(path)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            for _ in range(20 + 7 * kill):
                acknowledged = int(process.stdout.readline())
            os.kill(process.pid, signal.SIGKILL)
            acknowledged = max([acknowledged, *map(int, process.stdout.read().split())])
        with SampleRing.open(path) as ring:
            recorded = ring.recorded()
            assert acknowledged <= recorded <= acknowledged + 1
            assert ring.samples() == samples(1, recorded)
