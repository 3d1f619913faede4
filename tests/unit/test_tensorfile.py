"""The tensor file against the safetensors package, and against everything that is not one."""

from __future__ import annotations

import errno
import json
import math
import os
import resource
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load as oracle_load
from safetensors.numpy import save as oracle_save

from edgetrain import storage, tensorfile
from edgetrain.errors import DataError, PayloadError, StorageError
from edgetrain.tensorfile import DTYPES, Tensor, decode, encode, read, write

NUMPY = {
    "F16": np.float16,
    "F32": np.float32,
    "I8": np.int8,
    "U32": np.uint32,
    "U8": np.uint8,
}

# A parsed header of n bytes costs a few dozen bytes of Python objects for each of its shortest
# entries, and the JSON text is copied while it is decoded.
ALLOCATION_PER_BYTE = 64
ALLOCATION_BASE = 1 << 17

names = st.text(min_size=1, max_size=12).filter(lambda name: name != "__metadata__")
shapes = st.lists(st.integers(0, 5), max_size=4).map(tuple)


@st.composite
def tensors(draw: st.DrawFn) -> Tensor:
    dtype = draw(st.sampled_from(sorted(DTYPES)))
    shape = draw(shapes)
    size = math.prod(shape) * DTYPES[dtype][0]
    return Tensor(dtype, shape, draw(st.binary(min_size=size, max_size=size)))


states = st.dictionaries(names, tensors(), max_size=5)
metadata = st.dictionaries(
    st.text(st.characters(codec="utf-8"), max_size=8),
    st.text(st.characters(codec="utf-8"), max_size=8),
    max_size=3,
)


def sample() -> bytes:
    return encode(
        {
            "layer0.latent": Tensor("I8", (2, 3), bytes(range(6))),
            "layer0.shift": Tensor("F32", (2,), bytes(8)),
        },
        {"format": "example"},
    )


def file_of(header: object, data: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


def entry(
    dtype: object = "U8", shape: object = (2,), offsets: object = (0, 2)
) -> dict[str, object]:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


@given(states, metadata)
def test_round_trip(state: dict[str, Tensor], notes: dict[str, str]) -> None:
    assert decode(encode(state, notes)) == (state, notes)


@given(states)
def test_bytes_equal_those_of_the_safetensors_package(state: dict[str, Tensor]) -> None:
    arrays = {
        name: np.frombuffer(tensor.data, NUMPY[tensor.dtype]).reshape(tensor.shape)
        for name, tensor in state.items()
    }
    expected = oracle_save(arrays) if arrays else file_of(b"{}      ")
    assert encode(state) == expected


@given(states, metadata)
def test_the_safetensors_package_reads_what_we_write(
    state: dict[str, Tensor], notes: dict[str, str]
) -> None:
    loaded = oracle_load(encode(state, notes))
    assert loaded.keys() == state.keys()
    for name, array in loaded.items():
        assert array.dtype == NUMPY[state[name].dtype]
        assert array.shape == state[name].shape
        assert array.tobytes() == bytes(state[name].data)


def test_tensors_are_views_of_the_buffer() -> None:
    buffer = bytearray(sample())
    state, _ = decode(buffer)
    buffer[-1] = 77
    assert state["layer0.latent"].data[-1] == 77


def test_view_has_the_element_type() -> None:
    array = np.array([[1.5, -2.0]], np.float32)
    tensor = Tensor("F32", (1, 2), array.data)
    assert list(tensor.view()) == [1.5, -2.0]
    assert tensor.count == 2


BROKEN = {
    "nothing": b"",
    "no header": b"\x02\0\0\0\0\0\0",
    "header beyond the end": b"\x09\0\0\0\0\0\0\0{}      ",
    "header of 2**63 bytes": b"\0\0\0\0\0\0\0\x80{}",
    "header over the limit": file_of(b"{}" + b" " * tensorfile.MAX_HEADER_BYTES),
    "leading space": file_of(b" {}"),
    "a list": file_of(b"[]"),
    "not JSON": file_of(b"{oops}"),
    "not UTF-8": file_of(b'{"\xff": 1}'),
    "NaN": file_of(b'{"a": NaN}'),
    "too deep": file_of(b'{"a": ' + b"[" * 100_000),
    "a number of 100 000 digits": file_of(b'{"a": ' + b"9" * 100_000 + b"}"),
    "twice the same tensor": file_of(
        b'{"a":{"dtype":"U8","shape":[0],"data_offsets":[0,0]},'
        b'"a":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}}'
    ),
    "twice the same field": file_of(
        b'{"a":{"dtype":"U8","dtype":"I8","shape":[0],"data_offsets":[0,0]}}'
    ),
    "lone surrogate in a name": file_of(b'{"\\ud800":{"dtype":"U8"}}'),
    "lone surrogate in the metadata": file_of(b'{"__metadata__":{"a":"\\udfff"}}'),
    "metadata not strings": file_of({"__metadata__": {"a": 1}}),
    "metadata a list": file_of({"__metadata__": []}),
    "metadata null": file_of({"__metadata__": None}),
    "entry not an object": file_of({"a": 3}),
    "entry with a rest": file_of({"a": {**entry(), "more": 1}}, b"12"),
    "unknown dtype": file_of({"a": entry("BF16")}, b"12"),
    "dtype not a string": file_of({"a": entry(["U8"])}, b"12"),
    "shape of floats": file_of({"a": entry(shape=[2.0])}, b"12"),
    "shape of truths": file_of({"a": entry(shape=[True], offsets=[0, 1])}, b"1"),
    "negative shape": file_of({"a": entry(shape=[-1, -2])}, b"12"),
    "shape too large": file_of({"a": entry(shape=[1 << 62, 1 << 62])}, b"12"),
    "too many dimensions": file_of({"a": entry(shape=[1] * 9, offsets=[0, 1])}, b"1"),
    "shape and offsets differ": file_of({"a": entry(shape=[3])}, b"12"),
    "offsets backwards": file_of({"a": entry(shape=[0], offsets=[2, 0])}, b"12"),
    "offsets beyond the data": file_of({"a": entry()}, b"1"),
    "three offsets": file_of({"a": entry(offsets=[0, 1, 2])}, b"12"),
    "bytes left over": file_of({"a": entry()}, b"123"),
    "a gap": file_of({"a": entry(), "b": entry(offsets=[3, 5])}, b"12345"),
    "an overlap": file_of({"a": entry(), "b": entry(offsets=[1, 3])}, b"123"),
    "too many tensors": file_of(
        {f"{i:x}": 0 for i in range(tensorfile.MAX_TENSORS + 2)},
    ),
}


@pytest.mark.parametrize("cause", BROKEN)
def test_broken_files_are_refused(cause: str) -> None:
    with pytest.raises(PayloadError) as caught:
        decode(BROKEN[cause])
    assert "\n" not in str(caught.value)


def test_a_size_limit_is_kept() -> None:
    good = sample()
    assert decode(good, max_bytes=len(good))
    with pytest.raises(PayloadError, match="more than"):
        decode(good, max_bytes=len(good) - 1)


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """Return a good file after a few bytes were changed, taken out or put in, or its end cut."""
    content = bytearray(sample())
    for _ in range(draw(st.integers(1, 4))):
        place = draw(st.integers(0, len(content)))
        removed = draw(st.integers(0, 3))
        content[place : place + removed] = draw(st.binary(max_size=3))
    return bytes(content[: draw(st.integers(0, len(content)))])


@given(damaged() | st.binary(max_size=200) | st.binary(max_size=200).map(file_of))
def test_damage_is_an_error_or_a_valid_file(content: bytes) -> None:
    try:
        state, notes = decode(content)
    except PayloadError:
        return
    assert decode(encode(state, notes)) == (state, notes)


@pytest.mark.parametrize(
    "header",
    [
        b'{"a":' + b"[" * 200_000,
        b'{"a":[' + b"{}," * 60_000 + b"{}]}",
        b"{" + b",".join(b'"%x":[]' % i for i in range(20_000)) + b"}",
        b'{"a":{"dtype":"U8","shape":[4611686018427387903],"data_offsets":[0,4611686018427387903]}}',
    ],
    ids=["deep", "many objects", "many names", "a claim of 4 EiB"],
)
def test_allocation_is_bounded_by_the_input(header: bytes) -> None:
    content = file_of(header)
    tracemalloc.start()
    try:
        with pytest.raises(PayloadError):
            decode(content)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < ALLOCATION_BASE + ALLOCATION_PER_BYTE * len(content)


def test_tensor_refuses_what_does_not_agree() -> None:
    with pytest.raises(PayloadError, match="has 6 bytes"):
        Tensor("U8", (2, 3), b"12345")
    with pytest.raises(PayloadError, match="dtype"):
        Tensor("F64", (1,), bytes(8))


def test_encode_refuses_what_decode_would() -> None:
    tensor = Tensor("U8", (0,), b"")
    with pytest.raises(PayloadError, match="__metadata__"):
        encode({"__metadata__": tensor})
    with pytest.raises(PayloadError, match="limit"):
        encode({str(i): tensor for i in range(tensorfile.MAX_TENSORS + 1)})


def test_write_and_read(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    state, notes = decode(sample())
    write(path, state, notes)
    assert path.read_bytes() == sample()
    assert read(path) == (state, notes)
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


def test_views_survive_the_files_replacement(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    write(path, {"a": Tensor("U8", (4,), b"1234")})
    state, _ = read(path)
    write(path, {"a": Tensor("U8", (4,), b"5678")})
    assert bytes(state["a"].data) == b"1234"


def test_read_names_the_file(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    with pytest.raises(DataError, match=r"model\.safetensors: No such file"):
        read(path)
    path.write_bytes(b"")
    with pytest.raises(PayloadError, match=r"model\.safetensors: cut off"):
        read(path)
    with pytest.raises(DataError, match="Is a directory"):
        read(tmp_path)


@pytest.mark.parametrize("name", ["fsync", "replace"])
def test_a_full_disk_damages_nothing(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(sample())

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    owner = storage.os if name == "fsync" else storage.Path
    monkeypatch.setattr(owner, name, full)
    with pytest.raises(StorageError, match=r"No space left on device.*intact"):
        write(path, {"a": Tensor("U8", (1,), b"1")})
    assert path.read_bytes() == sample()
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


def test_a_write_that_the_kernel_cuts_short_damages_nothing(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(sample())
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, hard))
    try:
        with pytest.raises(StorageError, match="intact"):
            write(path, {"a": Tensor("U8", (1 << 20,), bytes(1 << 20))})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert path.read_bytes() == sample()
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


def test_a_folder_that_is_none_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    for folder, reason in (("absent", "No such file"), ("file", "Not a directory")):
        with pytest.raises(StorageError, match=f"cannot write.*{reason}"):
            write(tmp_path / folder / "model.safetensors", {})
