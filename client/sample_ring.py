"""The device's own samples: a file of fixed size in which the newest take the place of the oldest.

An application records labelled samples while the daemon runs; before a task they become the
`.etd` file that the worker maps. Layout, little-endian::

    64-byte header | 64-byte mark | slots: sequence (8), features, label (1), CRC-32 of both (4)

A sample is in the ring once its slot's checksum is right, so that one which was being written when
the power went is not there, and neither is anything else lost. The mark says which sample was the
newest when it was written: where to look first. All the room is taken when the ring is made; a
disk that fills up later stops no recording.
"""

from __future__ import annotations

import fcntl
import math
import os
import struct
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Lock

from edgetrain.data import store
from edgetrain.errors import DataError, StorageError

__all__ = ["LIMIT_BYTES", "Sample", "SampleForm", "SampleRing"]

LIMIT_BYTES = 8 << 20
"""Size of a ring, unless another is asked for."""
MOST_BYTES = 1 << 40

MAGIC = b"ETRING\r\n"
VERSION = 1
# magic, version, format, rank, classes, capacity, shape (4); the checksum of all that follows.
HEADER = struct.Struct("<8sHBBIQ4I")
MARK = struct.Struct("<QI")
SEQUENCE = struct.Struct("<Q")
CHECKSUM = struct.Struct("<I")
BLOCK_BYTES = 64
SLOTS_AT = 2 * BLOCK_BYTES


@dataclass(frozen=True)
class Sample:
    """The features of one example, as many bytes as its form says, and its label."""

    features: bytes
    label: int


@dataclass(frozen=True)
class SampleForm:
    """What every sample of a ring looks like.

    feature_shape has 1 to 4 sizes; format is "B" (uint8) or "b" (int8); a label is below classes,
    1 to 256. Raises DataError for what no sample can be.
    """

    feature_shape: tuple[int, ...]
    format: store.Format
    classes: int

    def __post_init__(self) -> None:
        shape = self.feature_shape
        if not 1 <= len(shape) <= store.MAXIMUM_RANK or not all(0 < n < 1 << 16 for n in shape):
            raise DataError(
                f"samples of shape {shape} cannot be: give 1 to {store.MAXIMUM_RANK} sizes above 0"
            )
        if not 1 <= self.classes <= store.MAXIMUM_CLASSES:
            raise DataError(f"{self.classes} classes: give 1 to {store.MAXIMUM_CLASSES}")

    @property
    def feature_count(self) -> int:
        """Bytes of one sample's features."""
        return math.prod(self.feature_shape)

    @property
    def slot_bytes(self) -> int:
        """Bytes that one sample takes."""
        return SEQUENCE.size + self.feature_count + 1 + CHECKSUM.size

    def check(self, sample: Sample) -> None:
        """Raise DataError for a sample of another form."""
        if len(sample.features) != self.feature_count:
            raise DataError(
                f"a sample has {len(sample.features)} features: this ring takes "
                f"{self.feature_count}, of shape {list(self.feature_shape)}"
            )
        if not 0 <= sample.label < self.classes:
            raise DataError(f"label {sample.label} is outside 0..{self.classes - 1}")


class SampleRing:
    """A ring of samples, open for recording; several processes may record at once."""

    def __init__(self, path: Path, descriptor: int, form: SampleForm, capacity: int) -> None:
        """Guard an open file; `create` and `open` are how to come by one."""
        self.path = path
        self.form = form
        self.capacity = capacity
        self._descriptor = descriptor
        self._threads = Lock()

    @classmethod
    def create(cls, path: Path, form: SampleForm, limit: int = LIMIT_BYTES) -> SampleRing:
        """Make a ring of at most `limit` bytes, all of them taken at once.

        Raises StorageError where the path is taken or the disk has no room, DataError for a limit
        that holds no sample.
        """
        capacity = (min(limit, MOST_BYTES) - SLOTS_AT) // form.slot_bytes
        if capacity < 1:
            raise DataError(
                f"{limit} bytes hold no sample of {form.slot_bytes}: allow the ring more"
            )
        draft = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        try:
            with draft.open("xb") as file:
                file.write(_encode(form, capacity).ljust(SLOTS_AT, b"\0"))
                file.flush()
                os.posix_fallocate(file.fileno(), 0, SLOTS_AT + capacity * form.slot_bytes)
                os.fsync(file.fileno())
            # A link fails where the path is taken, which a rename would replace.
            os.link(draft, path)
        except OSError as error:
            raise StorageError(f"cannot make a ring at {path}: {error.strerror}") from error
        finally:
            draft.unlink(missing_ok=True)
        return cls.open(path)

    @classmethod
    def open(cls, path: Path) -> SampleRing:
        """Open a ring. Raises DataError for a file that is missing or none."""
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        except OSError as error:
            raise DataError(
                f"cannot open {path}: {error.strerror}: make a ring with `edgetrain-client record "
                "--shape ... --classes ...`"
            ) from error
        try:
            form, capacity = _decode(path, os.pread(descriptor, BLOCK_BYTES, 0))
            expected = SLOTS_AT + capacity * form.slot_bytes
            if (actual := os.fstat(descriptor).st_size) != expected:
                raise DataError(
                    f"{path} is damaged: it has {actual} bytes and its header tells of {expected}: "
                    "remove it and record anew"
                )
        except BaseException:
            os.close(descriptor)
            raise
        return cls(path, descriptor, form, capacity)

    def append(self, samples: Sequence[Sample]) -> int:
        """Record samples, the oldest first, and return how many the ring has ever taken.

        They are on the disk when this returns. Raises DataError, with nothing recorded, for a
        sample of another form; StorageError where the disk fails.
        """
        for sample in samples:
            self.form.check(sample)
        with self._locked():
            newest = self._newest()
            try:
                for first in range(0, len(samples), self.capacity):
                    newest = self._write_run(newest, samples[first : first + self.capacity])
            except OSError as error:
                raise StorageError(f"cannot record in {self.path}: {error.strerror}") from error
        return newest

    def recorded(self) -> int:
        """Return how many samples the ring has ever taken."""
        with self._locked():
            return self._newest()

    def samples(self) -> list[Sample]:
        """Return what the ring holds, the oldest first."""
        with self._locked():
            return [sample for _, sample in sorted(self._valid(), key=lambda found: found[0])]

    def export(self, path: Path) -> int:
        """Write what the ring holds as a `.etd` file, whole or not at all; return the examples.

        Memory in use does not grow with the ring but for a byte a sample. Raises DataError for an
        empty ring, StorageError where the file cannot be written.
        """
        with self._locked():
            labels = bytes(sample.label for _, sample in self._valid())
            store.write_rows(
                path,
                lambda: (sample.features for _, sample in self._valid()),
                labels,
                self.form.classes,
                self.form.feature_shape,
                format=self.form.format,
            )
        return len(labels)

    def close(self) -> None:
        """Close the file."""
        os.close(self._descriptor)

    def __enter__(self) -> SampleRing:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Hold the file against other threads and processes; a lock ends with its process."""
        with self._threads:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX)
            try:
                yield
            finally:
                fcntl.flock(self._descriptor, fcntl.LOCK_UN)

    def _place(self, sequence: int) -> int:
        return SLOTS_AT + (sequence - 1) % self.capacity * self.form.slot_bytes

    def _write_run(self, newest: int, samples: Sequence[Sample]) -> int:
        """Write at most a turn of samples, then the mark; return the number of the last."""
        for sample in samples:
            newest += 1
            self._write(newest, sample)
        os.fdatasync(self._descriptor)
        mark = SEQUENCE.pack(newest)
        os.pwrite(self._descriptor, mark + CHECKSUM.pack(zlib.crc32(mark)), BLOCK_BYTES)
        return newest

    def _write(self, sequence: int, sample: Sample) -> None:
        body = SEQUENCE.pack(sequence) + sample.features + bytes((sample.label,))
        slot = body + CHECKSUM.pack(zlib.crc32(body))
        if os.pwrite(self._descriptor, slot, self._place(sequence)) != len(slot):
            raise OSError(0, "a sample was written in part")

    def _read(self, place: int) -> tuple[int, Sample] | None:
        """Return the number and the sample of a slot, or None where there is none."""
        slot = os.pread(self._descriptor, self.form.slot_bytes, place)
        body, (checksum,) = slot[: -CHECKSUM.size], CHECKSUM.unpack(slot[-CHECKSUM.size :])
        (sequence,) = SEQUENCE.unpack_from(body)
        if not sequence or zlib.crc32(body) != checksum or place != self._place(sequence):
            return None
        sample = Sample(body[SEQUENCE.size : -1], body[-1])
        return (sequence, sample) if sample.label < self.form.classes else None

    def _valid(self) -> Iterator[tuple[int, Sample]]:
        """Yield every sample, in the order of their places."""
        for index in range(self.capacity):
            found = self._read(SLOTS_AT + index * self.form.slot_bytes)
            if found is not None:
                yield found

    def _newest(self) -> int:
        """Return the number of the newest sample: the mark's, or one written after it."""
        raw = os.pread(self._descriptor, MARK.size, BLOCK_BYTES)
        newest, checksum = MARK.unpack(raw)
        if zlib.crc32(raw[: SEQUENCE.size]) != checksum and any(raw):
            return self._newest_of_all()
        while (after := self._sequence_at(self._place(newest + 1))) == newest + 1:
            newest += 1
        # An older sample, or none, ends the row; anything else means that the mark is too old.
        return newest if after is not None and after <= newest else self._newest_of_all()

    def _newest_of_all(self) -> int:
        return max((sequence for sequence, _ in self._valid()), default=0)

    def _sequence_at(self, place: int) -> int | None:
        """Return the number of a slot's sample, 0 where none was written, None where it is torn."""
        found = self._read(place)
        if found is not None:
            return found[0]
        return None if any(os.pread(self._descriptor, self.form.slot_bytes, place)) else 0


def _encode(form: SampleForm, capacity: int) -> bytes:
    shape = form.feature_shape
    padding = (0,) * (store.MAXIMUM_RANK - len(shape))
    body = HEADER.pack(
        MAGIC,
        VERSION,
        store.FORMATS.index(form.format),
        len(shape),
        form.classes,
        capacity,
        *shape,
        *padding,
    )
    return body + CHECKSUM.pack(zlib.crc32(body))


def _decode(path: Path, raw: bytes) -> tuple[SampleForm, int]:
    if raw[: len(MAGIC)] != MAGIC or len(raw) != BLOCK_BYTES:
        raise DataError(f"{path} is no ring of samples: check the path")
    body, checksum = raw[: HEADER.size], raw[HEADER.size : HEADER.size + CHECKSUM.size]
    _, version, format, rank, classes, capacity, *shape = HEADER.unpack(body)
    if version != VERSION:
        raise DataError(
            f"{path} is a ring of version {version}, this edgetrain reads {VERSION}: update it"
        )
    sensible = format < len(store.FORMATS) and rank <= store.MAXIMUM_RANK and capacity >= 1
    if CHECKSUM.pack(zlib.crc32(body)) != checksum or not sensible or any(shape[rank:]):
        raise DataError(f"{path} is damaged in its header: remove it and record anew")
    return SampleForm(tuple(shape[:rank]), store.FORMATS[format], classes), capacity
