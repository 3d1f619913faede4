"""Named tensors in one file or one buffer: the safetensors format, with the standard library alone.

Layout: 8 bytes, the length N of the header, little endian; N bytes of JSON, padded with spaces to
a multiple of 8; then the tensors' bytes without a gap. The header maps each name to its dtype,
shape and the two offsets of its bytes, and "__metadata__" to strings.

What comes off a wire is hostile until shown otherwise, so the reader accepts exactly this and
nothing near it, and allocates in proportion to what it was given. The writer leaves either the
old file or the new one, whatever happens in between.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgetrain.errors import PayloadError
from edgetrain.storage import Buffer, map_file, replace_file

__all__ = [
    "DTYPES",
    "MAX_BYTES",
    "MAX_DIMENSIONS",
    "MAX_HEADER_BYTES",
    "MAX_TENSORS",
    "State",
    "Tensor",
    "decode",
    "encode",
    "parse_json",
    "read",
    "write",
    "write_parts",
]

MAX_BYTES = 1 << 30
MAX_HEADER_BYTES = 1 << 18
MAX_TENSORS = 1024
MAX_DIMENSIONS = 8

# dtype -> (bytes an element, format of a memoryview), in the order in which tensors are laid out:
# the widest first, so that every tensor is aligned.
DTYPES: dict[str, tuple[int, str]] = {
    "F32": (4, "f"),
    "U32": (4, "I"),
    "F16": (2, "H"),
    "I8": (1, "b"),
    "U8": (1, "B"),
}
LENGTH_BYTES = 8
ALIGNMENT = 8
METADATA = "__metadata__"


@dataclass(frozen=True)
class Tensor:
    """An immutable description of one block of numbers.

    `dtype` is a key of DTYPES, `shape` its dimensions, `data` its elements in C order, little
    endian: bytes, or a flat memoryview of bytes (any other buffer is turned into one, uncopied).
    Raises PayloadError when the three do not agree.
    """

    dtype: str
    shape: tuple[int, ...]
    data: Buffer

    def __post_init__(self) -> None:
        if self.dtype not in DTYPES:
            raise PayloadError(f"dtype {self.dtype!r} is not one of {', '.join(DTYPES)}")
        if not isinstance(self.data, bytes):
            view = memoryview(self.data)
            # A view with a zero in its shape cannot be cast.
            object.__setattr__(self, "data", view.cast("B") if view.nbytes else b"")
        expected = math.prod(self.shape) * DTYPES[self.dtype][0]
        if len(self.data) != expected:
            raise PayloadError(
                f"a tensor {self.dtype} {self.shape} has {expected} bytes, not {len(self.data)}"
            )

    @property
    def count(self) -> int:
        """The number of elements."""
        return math.prod(self.shape)

    def view(self) -> memoryview:
        """Return the elements as a flat memoryview of their own type, without a copy."""
        element: Any = DTYPES[self.dtype][1]
        typed: memoryview = memoryview(self.data).cast(element)
        return typed


State = dict[str, Tensor]


def encode(tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> bytes:
    """Return the tensors and the metadata as one buffer; equal input gives equal bytes."""
    return b"".join(chunks(tensors, metadata or {}))


def write(
    path: Path | str,
    tensors: Mapping[str, Tensor],
    metadata: Mapping[str, str] | None = None,
    *,
    durable: bool = True,
) -> None:
    """Write the tensors to a file that is replaced whole or not at all.

    `durable` waits until the disk holds it. Raises StorageError when it cannot be written.
    """
    replace_file(Path(path), chunks(tensors, metadata or {}), durable=durable)


def write_parts(
    path: Path | str,
    schema: Mapping[str, tuple[str, tuple[int, ...]]],
    part: Callable[[str], Buffer],
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Write, as `write` does, tensors that are read out one by one: never two are held at once.

    `schema` maps the name of a tensor to its dtype and shape, `part` to its bytes.
    """
    head = header(schema, metadata or {})
    replace_file(Path(path), itertools.chain(head, map(part, in_order(schema))))


def read(path: Path | str, max_bytes: int = MAX_BYTES) -> tuple[State, dict[str, str]]:
    """Return a file's tensors and metadata; the tensors are views of the mapped file.

    A file replaced by `write` meanwhile does not change under the views. Raises DataError when
    the file cannot be opened, PayloadError when it is not what it claims to be.
    """
    try:
        return decode(map_file(Path(path)), max_bytes)
    except PayloadError as error:
        raise PayloadError(f"{path}: {error}") from error


def decode(buffer: Buffer, max_bytes: int = MAX_BYTES) -> tuple[State, dict[str, str]]:
    """Return the tensors and the metadata of a buffer; the tensors are views of it.

    Raises PayloadError, naming the cause, for anything but a well-formed file of at most
    `max_bytes` bytes.
    """
    view = memoryview(buffer).cast("B") if len(buffer) else memoryview(b"")
    if view.nbytes > max_bytes:
        raise PayloadError(f"{view.nbytes} bytes are more than the {max_bytes} allowed here")
    if view.nbytes < LENGTH_BYTES:
        raise PayloadError(f"cut off: {view.nbytes} bytes cannot hold a header")
    length = int.from_bytes(view[:LENGTH_BYTES], "little")
    if length > MAX_HEADER_BYTES:
        raise PayloadError(f"a header of {length} bytes is over the limit of {MAX_HEADER_BYTES}")
    if length > view.nbytes - LENGTH_BYTES:
        raise PayloadError(f"cut off: a header of {length} bytes in {view.nbytes} bytes")
    header = parse_header(bytes(view[LENGTH_BYTES : LENGTH_BYTES + length]))
    metadata = check_metadata(header.pop(METADATA, {}))
    return slice_tensors(header, view[LENGTH_BYTES + length :]), metadata


def parse_header(raw: bytes) -> dict[str, Any]:
    """Return the header's JSON object; names are unique, and fit for UTF-8, at every depth."""
    if not raw.startswith(b"{"):
        raise PayloadError("the header does not begin with an object")
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise PayloadError(f"the header is not UTF-8: {error}") from error
    header: dict[str, Any] = parse_json(text)
    if len(header) > MAX_TENSORS + 1:
        raise PayloadError(f"{len(header)} tensors are over the limit of {MAX_TENSORS}")
    return header


def parse_json(text: str) -> Any:
    """Return what JSON text holds, read strictly.

    Raises PayloadError for a name that comes twice in an object, for NaN and the infinities, and
    for nesting or numbers without bounds.
    """
    try:
        return json.loads(text, object_pairs_hook=unique_names, parse_constant=refuse_constant)
    except (ValueError, RecursionError) as error:
        raise PayloadError(f"this is not JSON: {error}") from error


def unique_names(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return an object's pairs as a dict; raise PayloadError for a name that comes twice."""
    found = dict(pairs)
    if len(found) != len(pairs):
        raise PayloadError("a name comes twice in the JSON")
    for name in found:
        check_text(name)
    return found


def refuse_constant(name: str) -> None:
    """Refuse NaN and the infinities, which JSON does not have."""
    raise PayloadError(f"{name} is not JSON")


def check_text(text: object) -> str:
    """Return a string that can be written as UTF-8 again; raise PayloadError for anything else."""
    if not isinstance(text, str):
        raise PayloadError("the metadata must map strings to strings")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise PayloadError("the JSON holds a lone surrogate") from error
    return text


def check_metadata(found: object) -> dict[str, str]:
    """Return the metadata; raise PayloadError unless it maps strings to strings."""
    if not isinstance(found, dict):
        raise PayloadError("the metadata must map strings to strings")
    return {name: check_text(text) for name, text in found.items()}


def slice_tensors(header: dict[str, Any], data: memoryview) -> State:
    """Return the header's tensors as views of `data`, which they must tile without gap or rest."""
    spans: list[tuple[int, int]] = []
    tensors: State = {}
    for name, entry in header.items():
        dtype, shape, begin, end = check_entry(name, entry, data.nbytes)
        spans.append((begin, end))
        tensors[name] = Tensor(dtype, shape, data[begin:end])
    position = 0
    for begin, end in sorted(spans):
        if begin != position:
            raise PayloadError(f"the tensors' bytes overlap or leave a gap at byte {position}")
        position = end
    if position != data.nbytes:
        raise PayloadError(f"the tensors end at byte {position} of {data.nbytes}")
    return tensors


def check_entry(name: str, entry: object, size: int) -> tuple[str, tuple[int, ...], int, int]:
    """Return dtype, shape, first and last offset of one header entry, all consistent."""
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise PayloadError(f"tensor {name!r} must have dtype, shape and data_offsets alone")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in DTYPES:
        raise PayloadError(f"tensor {name!r} has dtype {dtype!r}, not one of {', '.join(DTYPES)}")
    if not is_sizes(shape) or len(shape) > MAX_DIMENSIONS:
        raise PayloadError(f"tensor {name!r} has no valid shape of at most {MAX_DIMENSIONS} sizes")
    if not is_sizes(offsets) or len(offsets) != 2:
        raise PayloadError(f"tensor {name!r} has no valid pair of offsets")
    begin, end = offsets
    if not begin <= end <= size:
        raise PayloadError(f"tensor {name!r} lies outside the {size} bytes of data")
    expected = math.prod(shape) * DTYPES[dtype][0]
    if end - begin != expected:
        raise PayloadError(f"tensor {name!r} has {expected} bytes by its shape, {end - begin} here")
    return dtype, tuple(shape), begin, end


def is_sizes(found: object) -> bool:
    """Say whether `found` is a list of whole numbers from 0 up to what a file can hold."""
    return isinstance(found, list) and all(
        type(size) is int and 0 <= size < 1 << 62 for size in found
    )


def chunks(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> list[Buffer]:
    """Return the file's bytes as a list of buffers: the header, then each tensor's own."""
    schema = {name: (tensor.dtype, tensor.shape) for name, tensor in tensors.items()}
    return header(schema, metadata) + [tensors[name].data for name in in_order(schema)]


def in_order(schema: Mapping[str, tuple[str, tuple[int, ...]]]) -> list[str]:
    """Return the names of tensors in the order in which their bytes lie."""
    order = list(DTYPES)
    return sorted(schema, key=lambda name: (order.index(schema[name][0]), name))


def header(
    schema: Mapping[str, tuple[str, tuple[int, ...]]], metadata: Mapping[str, str]
) -> list[Buffer]:
    """Return what comes before the tensors' bytes: the length of the header, and the header."""
    if METADATA in schema:
        raise PayloadError(f"a tensor cannot be called {METADATA}")
    entries: dict[str, Any] = {METADATA: dict(metadata)} if metadata else {}
    position = 0
    for name in in_order(schema):
        dtype, shape = schema[name]
        end = position + math.prod(shape) * DTYPES[dtype][0]
        entries[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [position, end]}
        position = end
    text = json.dumps(entries, ensure_ascii=False, separators=(",", ":")).encode("utf-8")
    text += b" " * (-len(text) % ALIGNMENT)
    if len(text) > MAX_HEADER_BYTES or len(schema) > MAX_TENSORS:
        raise PayloadError(
            f"{len(schema)} tensors with a header of {len(text)} bytes are over the limits of "
            f"{MAX_TENSORS} and {MAX_HEADER_BYTES}"
        )
    return [len(text).to_bytes(LENGTH_BYTES, "little"), text]
