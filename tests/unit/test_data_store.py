"""The device's data file: what goes in comes out, and no damaged file gets past the door."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgetrain.data import store
from edgetrain.errors import DataError, StorageError

SHAPES = st.lists(st.integers(1, 5), min_size=1, max_size=4).map(tuple)


def write_example(path: Path, examples: int = 7, classes: int = 3) -> bytes:
    features = np.arange(examples * 12, dtype=np.int8).reshape(examples, 4, 3)
    labels = (np.arange(examples) % classes).astype(np.uint8)
    store.write(path, features, labels, classes, (4, 3))
    return path.read_bytes()


@given(
    examples=st.integers(1, 20),
    shape=SHAPES,
    classes=st.integers(1, 256),
    dtype=st.sampled_from(["uint8", "int8"]),
    seed=st.integers(0, 2**32 - 1),
)
@settings(max_examples=60, deadline=None)
def test_reads_back_what_was_written(tmp_path_factory, *, examples, shape, classes, dtype, seed):
    path = tmp_path_factory.mktemp("store") / "a.etd"
    random = np.random.default_rng(seed)
    features = random.integers(0, 256, (examples, *shape)).astype(np.uint8).view(dtype)
    labels = random.integers(0, classes, examples).astype(np.uint8)
    store.write(path, features, labels, classes, shape)
    with store.open(path) as data:
        assert (data.examples, data.classes, data.feature_shape) == (examples, classes, shape)
        assert data.feature_count == features[0].size
        assert data.features.format == {"uint8": "B", "int8": "b"}[dtype]
        assert data.features.shape == (examples, data.feature_count)
        assert data.features.readonly
        assert data.features.tolist() == features.reshape(examples, -1).tolist()
        assert data.labels.tolist() == labels.tolist()


@given(data=st.data())
@settings(max_examples=300, deadline=None)
def test_any_change_to_the_file_is_refused(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("store") / "a.etd"
    whole = write_example(path)
    kind = data.draw(st.sampled_from(["truncate", "extend", "mutate", "replace"]))
    if kind == "truncate":
        damaged = whole[: data.draw(st.integers(0, len(whole) - 1))]
    elif kind == "extend":
        damaged = whole + data.draw(st.binary(min_size=1, max_size=100))
    elif kind == "replace":
        damaged = data.draw(st.binary(max_size=300))
    else:
        place = data.draw(st.integers(0, len(whole) - 1))
        change = data.draw(st.integers(1, 255))
        damaged = whole[:place] + bytes([whole[place] ^ change]) + whole[place + 1 :]
    path.write_bytes(damaged)
    with pytest.raises(DataError) as caught:
        store.open(path)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)


@given(field=st.binary(min_size=36, max_size=36))
@settings(max_examples=300, deadline=None)
def test_a_forged_header_with_a_right_checksum_is_refused(tmp_path_factory, field):
    """Counts that no file holds are found out from its size, before anything is allocated."""
    path = tmp_path_factory.mktemp("store") / "a.etd"
    whole = write_example(path)
    header = whole[:8] + (1).to_bytes(2, "little") + field[:34]
    path.write_bytes(
        (header + zlib.crc32(header).to_bytes(4, "little")).ljust(64, b"\0") + whole[64:]
    )
    with pytest.raises(DataError):
        store.open(path)


def test_a_label_out_of_range_with_right_checksums_is_refused(tmp_path):
    path = tmp_path / "a.etd"
    whole = bytearray(write_example(path, classes=3))
    whole[-1] = 3
    whole[40:44] = zlib.crc32(whole[64:]).to_bytes(4, "little")
    whole[44:48] = zlib.crc32(whole[:44]).to_bytes(4, "little")
    path.write_bytes(whole)
    with pytest.raises(DataError, match=r"label is outside 0\.\.2"):
        store.open(path)


BAD_INPUTS = {
    "float features": (np.zeros((2, 3), np.float32), np.zeros(2, np.uint8), 2, (3,)),
    "not contiguous": (np.zeros((2, 6), np.uint8)[:, ::2], np.zeros(2, np.uint8), 2, (3,)),
    "not a buffer": ([[1, 2, 3]], np.zeros(1, np.uint8), 2, (3,)),
    "signed labels": (np.zeros((2, 3), np.uint8), np.zeros(2, np.int8), 2, (3,)),
    "wide labels": (np.zeros((2, 3), np.uint8), np.zeros(2, np.int64), 2, (3,)),
    "wrong length": (np.zeros((2, 3), np.uint8), np.zeros(3, np.uint8), 2, (3,)),
    "label out of range": (np.zeros((2, 3), np.uint8), np.array([0, 2], np.uint8), 2, (3,)),
    "no examples": (np.zeros((0, 3), np.uint8), np.zeros(0, np.uint8), 2, (3,)),
    "no classes": (np.zeros((2, 3), np.uint8), np.zeros(2, np.uint8), 0, (3,)),
    "empty shape": (np.zeros((2, 3), np.uint8), np.zeros(2, np.uint8), 2, ()),
    "shape too deep": (np.zeros((2, 3), np.uint8), np.zeros(2, np.uint8), 2, (3, 1, 1, 1, 1)),
}


@pytest.mark.parametrize("name", BAD_INPUTS)
def test_bad_input_is_refused_and_leaves_the_old_file(tmp_path, name):
    path = tmp_path / "a.etd"
    before = write_example(path)
    with pytest.raises(DataError) as caught:
        store.write(path, *BAD_INPUTS[name])
    assert "\n" not in str(caught.value)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["a.etd"]  # noqa: PTH208


def test_a_full_disk_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "a.etd"
    before = write_example(path)

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageError, match="No space left"):
        write_example(path, examples=9)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["a.etd"]  # noqa: PTH208


@pytest.mark.parametrize("name", ["missing.etd", "."])
def test_what_cannot_be_read_is_one_line(tmp_path, name):
    with pytest.raises(DataError, match="cannot read data file"):
        store.open(tmp_path / name)


def test_views_that_outlive_the_file_keep_their_memory(tmp_path):
    path = tmp_path / "a.etd"
    write_example(path)
    with store.open(path) as data:
        kept = np.asarray(data.features)
    assert kept.shape == (7, 12)
    assert kept[1, 0] == 12


def test_the_reader_needs_no_numpy():
    code = "import sys, edgetrain.data.store; sys.exit('numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
