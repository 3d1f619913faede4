"""The device's data file: one memory-mapped `.etd`, read and written with the standard library.

A worker that trains on a small device maps this file and hands it to the engine as it is: no
copy, no numpy. Layout, little-endian::

    64-byte header | features, examples * feature_count bytes | labels, one byte an example

and nothing after it, so that the file's size is known from its header. The header carries a
checksum of itself and one of the data; both are checked before anything is mapped, with reads
of 64 KiB, which the allocator neither maps nor keeps, so that checking never shows in the peak
memory of the process.
"""

from __future__ import annotations

import contextlib
import math
import mmap
import os
import struct
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import IO, Any, Literal

from edgetrain.errors import DataError
from edgetrain.storage import Buffer, replace_file

__all__ = [
    "FORMATS",
    "MAXIMUM_CLASSES",
    "MAXIMUM_RANK",
    "Format",
    "StoredDataset",
    "open",
    "write",
    "write_rows",
]

MAGIC = b"ETDATA\r\n"  # the line end shows a file that a text-mode transfer has damaged
VERSION = 1
MAXIMUM_CLASSES = 256
MAXIMUM_RANK = 4
Format = Literal["B", "b"]
FORMATS: tuple[Format, Format] = ("B", "b")
# magic, version, format, rank, classes, examples, shape (4), data checksum; the header checksum
# follows, zeros fill the rest.
HEADER = struct.Struct("<8sHBBIQ4II")
HEADER_BYTES = 64
CHUNK_BYTES = 1 << 16


@dataclass(frozen=True)
class Header:
    """What a `.etd` file says of itself, already validated."""

    format: Format
    feature_shape: tuple[int, ...]
    classes: int
    examples: int
    data_checksum: int

    @property
    def feature_count(self) -> int:
        return math.prod(self.feature_shape)

    @property
    def data_bytes(self) -> int:
        return self.examples * (self.feature_count + 1)

    def encode(self) -> bytes:
        shape = self.feature_shape + (0,) * (MAXIMUM_RANK - len(self.feature_shape))
        body = HEADER.pack(
            MAGIC,
            VERSION,
            FORMATS.index(self.format),
            len(self.feature_shape),
            self.classes,
            self.examples,
            *shape,
            self.data_checksum,
        )
        return (body + struct.pack("<I", zlib.crc32(body))).ljust(HEADER_BYTES, b"\0")


class StoredDataset:
    """A mapped data file; a context manager that unmaps it on leaving.

    `features` is a read-only memoryview, (examples, feature_count), format "B" (uint8) or "b"
    (int8); `labels` one of shape (examples,), format "B", each below `classes`.
    """

    def __init__(self, header: Header, mapping: mmap.mmap) -> None:
        self.classes = header.classes
        self.examples = header.examples
        self.feature_shape = header.feature_shape
        self.feature_count = header.feature_count
        self._mapping = mapping
        whole = memoryview(mapping)
        end = HEADER_BYTES + header.examples * header.feature_count
        flat = whole[HEADER_BYTES:end]
        self.features: memoryview[int] = flat.cast(
            header.format, (header.examples, header.feature_count)
        )
        self.labels: memoryview[int] = whole[end : end + header.examples]
        self._views: tuple[memoryview[Any], ...] = (self.labels, self.features, flat, whole)

    def close(self) -> None:
        """Unmap the file; anything that still looks into it keeps it mapped until it lets go."""
        with contextlib.suppress(BufferError):
            for view in self._views:
                view.release()
            self._mapping.close()

    def __enter__(self) -> StoredDataset:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def open(path: str | os.PathLike[str]) -> StoredDataset:
    """Map a data file for reading and return it as a StoredDataset.

    Everything is checked first: magic, version, both checksums, the file's size against its
    counts, labels against the class count. Memory in use stays below 256 KiB whatever the file
    claims. Raises DataError naming the file and what is wrong with it.
    """
    try:
        with Path(path).open("rb", buffering=0) as file:
            header = _decode_header(path, file.read(HEADER_BYTES))
            expected = HEADER_BYTES + header.data_bytes
            actual = os.fstat(file.fileno()).st_size
            if actual != expected:
                raise _damaged(path, f"it has {actual} bytes and its header tells of {expected}")
            _check_data(path, file, header)
            mapping = mmap.mmap(file.fileno(), expected, access=mmap.ACCESS_READ)
            return StoredDataset(header, mapping)
    except OSError as error:
        raise DataError(
            f"cannot read data file {path}: {error.strerror or error}; write it with "
            "`edgetrain data pack`"
        ) from error


def write(
    path: str | os.PathLike[str],
    features: Any,
    labels: Any,
    classes: int,
    feature_shape: Sequence[int],
) -> None:
    """Write a data file whole or not at all: temporary file, fsync, rename.

    `features` is any C-contiguous buffer of format "B" (uint8) or "b" (int8) that holds
    examples * prod(feature_shape) bytes; `labels` one of format "B", a byte an example, each
    below `classes` (1 to 256). Raises DataError when they do not fit each other, StorageError
    when the file cannot be written (a file already there is left as it was).
    """
    with _view(features, "features") as rows, _view(labels, "labels") as marks:
        shape, classes = tuple(int(size) for size in feature_shape), int(classes)
        examples = marks.nbytes
        _check_counts(path, shape, classes, examples)
        if marks.format != "B":
            raise DataError(f"cannot write {path}: labels must be uint8")
        if rows.nbytes != (expected := examples * math.prod(shape)):
            raise DataError(
                f"cannot write {path}: {examples} labels with features of shape {shape} need "
                f"{expected} feature bytes and got {rows.nbytes}"
            )
        body = (rows.cast("B"), marks.cast("B"))
        format: Format = "b" if rows.format == "b" else "B"
        write_rows(path, lambda: (body[0],), body[1], classes, shape, format=format)


def write_rows(
    path: str | os.PathLike[str],
    rows: Callable[[], Iterable[Buffer]],
    labels: memoryview[int] | bytes,
    classes: int,
    feature_shape: Sequence[int],
    *,
    format: Format,
) -> None:
    """Write a data file as `write` does, from features that need not be in memory at once.

    `rows` returns the features of every example in turn, the same ones each time: it is called
    twice. Raises DataError and StorageError as `write` does.
    """
    shape = tuple(feature_shape)
    marks = bytes(labels)
    _check_counts(path, shape, classes, len(marks))
    if marks.translate(None, bytes(range(classes))):
        raise DataError(f"cannot write {path}: a label is outside 0..{classes - 1}")
    checksum = size = 0
    for part in rows():
        checksum = zlib.crc32(part, checksum)
        size += len(part)
    header = Header(format, shape, classes, len(marks), zlib.crc32(marks, checksum))
    if size != len(marks) * header.feature_count:
        raise DataError(f"cannot write {path}: {len(marks)} labels with {size} feature bytes")
    replace_file(Path(path), chain((header.encode(),), rows(), (marks,)))


def _view(buffer: Any, name: str) -> memoryview[Any]:
    try:
        view = memoryview(buffer)
    except TypeError as error:
        raise DataError(f"{name} must be a buffer of bytes, not {type(buffer).__name__}") from error
    if view.format not in FORMATS or not view.c_contiguous:
        raise DataError(f"{name} must be C-contiguous uint8 or int8, not format {view.format!r}")
    return view


def _check_counts(path: object, shape: tuple[int, ...], classes: int, examples: int) -> None:
    if not 1 <= len(shape) <= MAXIMUM_RANK or not all(0 < size < 1 << 32 for size in shape):
        raise DataError(f"{path}: feature shape {shape} needs 1 to {MAXIMUM_RANK} sizes above 0")
    if not 1 <= classes <= MAXIMUM_CLASSES:
        raise DataError(f"{path}: {classes} classes; there must be 1 to {MAXIMUM_CLASSES}")
    if examples < 1:
        raise DataError(f"{path}: no examples; record some before training on it")


def _decode_header(path: object, raw: bytes) -> Header:
    if raw[: len(MAGIC)] != MAGIC:
        raise DataError(f"{path} is not an edgetrain data file; write one: `edgetrain data pack`")
    if len(raw) != HEADER_BYTES:
        raise _damaged(path, "it ends inside its header")
    (version,) = struct.unpack_from("<H", raw, len(MAGIC))
    if version != VERSION:
        raise DataError(
            f"{path} has format version {version}, this edgetrain reads {VERSION}: write it again"
        )
    if raw[HEADER.size :] != struct.pack("<I", zlib.crc32(raw[: HEADER.size])).ljust(
        HEADER_BYTES - HEADER.size, b"\0"
    ):
        raise _damaged(path, "its header does not match its checksum")
    _, _, format, rank, classes, examples, *shape, checksum = HEADER.unpack_from(raw)
    if format >= len(FORMATS) or rank > MAXIMUM_RANK or any(shape[rank:]):
        raise _damaged(path, "its header makes no sense")
    _check_counts(path, tuple(shape[:rank]), classes, examples)
    return Header(FORMATS[format], tuple(shape[:rank]), classes, examples, checksum)


def _chunks(file: IO[bytes], size: int) -> Iterator[bytes]:
    """Read exactly `size` bytes, or fewer where the file ends."""
    while size > 0 and (chunk := file.read(min(size, CHUNK_BYTES))):
        size -= len(chunk)
        yield chunk


def _check_data(path: object, file: IO[bytes], header: Header) -> None:
    """Read features and labels once: checksum of both, range of the labels."""
    checksum = 0
    valid = bytes(range(header.classes))
    for chunk in _chunks(file, header.examples * header.feature_count):
        checksum = zlib.crc32(chunk, checksum)
    for chunk in _chunks(file, header.examples):
        checksum = zlib.crc32(chunk, checksum)
        if chunk.translate(None, valid):
            raise _damaged(path, f"a label is outside 0..{header.classes - 1}")
    if checksum != header.data_checksum:
        raise _damaged(path, "its data does not match its checksum")


def _damaged(path: object, what: str) -> DataError:
    return DataError(f"data file {path} is damaged: {what}; write it again")
