"""Flower's objects: what a message carries, in pieces that are named by the SHA-256 of their bytes.

An object is a head `TYPE CHILD,CHILD LENGTH`, a zero byte and a body of LENGTH bytes. A message's
object holds a RecordDict, which holds records by name; an ArrayRecord holds Arrays, and an Array
the ArrayChunks that its bytes are cut into. An object that is received is believed only when its
bytes have the hash that it was asked for by.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from edgetrain.client.fleet.wire import Fields, encode
from edgetrain.errors import PayloadError
from edgetrain.storage import Buffer

__all__ = [
    "CHUNK_BYTES",
    "FlowerObject",
    "array_record",
    "config_record",
    "make_object",
    "metric_record",
    "open_object",
    "record_dict",
]

CHUNK_BYTES = 1 << 18
"""Of the chunks that a device sends: at 64 kbit/s one takes 33 s, and Flower waits for 180."""
LONGEST_HEAD = 1 << 16
ID_LENGTH = 64

Scalar = bool | int | float | str


@dataclass(frozen=True)
class FlowerObject:
    """An object to send: its id, its head with the zero byte, its body and the objects within."""

    object_id: str
    head: bytes
    body: Buffer
    children: tuple[FlowerObject, ...]

    @property
    def content(self) -> bytes:
        """The bytes that travel, and whose hash the id is."""
        return self.head + bytes(self.body)

    @property
    def tree(self) -> Fields:
        """The ids of the object and of those within, as an ObjectTree."""
        return {"object_id": self.object_id, "children": [child.tree for child in self.children]}

    def walk(self) -> Iterator[FlowerObject]:
        """Yield every object within, and this one after them."""
        for child in self.children:
            yield from child.walk()
        yield self


def make_object(kind: str, body: Buffer, children: tuple[FlowerObject, ...] = ()) -> FlowerObject:
    """Return an object of a type; children that are alike are one."""
    unique = {child.object_id: child for child in children}
    head = f"{kind} {','.join(unique)} {len(body)}\0".encode()
    digest = hashlib.sha256(head)
    digest.update(body)
    return FlowerObject(digest.hexdigest(), head, body, tuple(unique.values()))


def record_dict(records: Mapping[str, FlowerObject]) -> FlowerObject:
    """Return records under their names as the content of a message."""
    return referring("RecordDict", records)


def config_record(values: Mapping[str, Scalar]) -> FlowerObject:
    """Return settings as a ConfigRecord."""
    return make_object("ConfigRecord", encode("ConfigRecord", items_of(values)))


def metric_record(values: Mapping[str, int | float]) -> FlowerObject:
    """Return measurements as a MetricRecord."""
    return make_object("MetricRecord", encode("MetricRecord", items_of(values)))


def array_record(name: str, serialisation: str, data: Buffer) -> FlowerObject:
    """Return bytes as an ArrayRecord of one uint8 Array, cut into chunks of CHUNK_BYTES.

    The chunks are views of `data`.
    """
    view = memoryview(data)
    chunks = [
        make_object("ArrayChunk", view[at : at + CHUNK_BYTES])
        for at in range(0, len(view), CHUNK_BYTES)
    ]
    unique = list(dict.fromkeys(chunk.object_id for chunk in chunks))
    about = {
        "dtype": "uint8",
        "shape": [len(view)],
        "stype": serialisation,
        "arraychunk_ids": [unique.index(chunk.object_id) for chunk in chunks],
    }
    array = make_object("Array", json.dumps(about).encode(), tuple(chunks))
    return referring("ArrayRecord", {name: array})


def open_object(content: Buffer, object_id: str, kind: str) -> tuple[list[str], memoryview]:
    """Return the ids of an object's children and a view of its body.

    Raises PayloadError unless the bytes have the hash `object_id` and are of type `kind`.
    """
    if hashlib.sha256(content).hexdigest() != object_id:
        raise PayloadError(f"an object is not what its name says: {object_id[:16]}...")
    view = memoryview(content)
    head, zero, _ = bytes(view[:LONGEST_HEAD]).partition(b"\0")
    words = head.split(b" ")
    if not zero or len(words) != 3 or words[0] != kind.encode():
        raise PayloadError(f"an object has the head {head[:40]!r}: it must be one of {kind}")
    body = view[len(head) + 1 :]
    if words[2] != str(len(body)).encode():
        raise PayloadError(f"an object of {len(body)} bytes says that it has {words[2][:20]!r}")
    children = [child.decode("ascii", "replace") for child in words[1].split(b",") if child]
    if not all(is_id(child) for child in children):
        raise PayloadError(f"an object of type {kind} has a child whose name is no SHA-256")
    return children, body


def is_id(name: str) -> bool:
    """Say whether a name may be an object's: a SHA-256 in lower-case hexadecimal digits."""
    return len(name) == ID_LENGTH and set(name) <= set("0123456789abcdef")


def referring(kind: str, named: Mapping[str, FlowerObject]) -> FlowerObject:
    """Return an object whose body says which of its children has which name."""
    names = {name: child.object_id for name, child in named.items()}
    return make_object(kind, json.dumps(names).encode(), tuple(named.values()))


def items_of(values: Mapping[str, Scalar]) -> Fields:
    """Return values as the items of a ConfigRecord or a MetricRecord."""
    return {"items": [{"key": key, "value": value_of(value)} for key, value in values.items()]}


def value_of(value: Scalar) -> Fields:
    """Return a value under the name of its type."""
    # A bool is an int as well, so that it is asked about first.
    for kind, name in ((bool, "bool"), (int, "sint64"), (float, "double")):
        if isinstance(value, kind):
            return {name: value}
    return {"string": value}
