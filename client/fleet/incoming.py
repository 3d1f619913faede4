"""Taking the payload out of a message that lies on the coordinator: piece by piece to the disk."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from edgetrain.client.fleet.objects import open_object
from edgetrain.client.records import PAYLOAD, SERIALISATION
from edgetrain.errors import PayloadError
from edgetrain.fields import shown
from edgetrain.storage import Buffer, replace_file

__all__ = ["LARGEST_PAYLOAD", "Pull", "save_payload"]

LARGEST_PAYLOAD = 1 << 26
"""Bytes of a task that a device takes; it lies on its disk, and is mapped by the worker."""
LONGEST_LIST = 1 << 16
"""Bytes of an object that names others."""

Pull = Callable[[str], Buffer]
"""Returns the content of the object with an id, whatever it takes; not yet to be believed."""


def save_payload(pull: Pull, content_id: str, path: Path, *, limit: int = LARGEST_PAYLOAD) -> None:
    """Write the payload of a message's content to a file, safely on the disk, a chunk at a time.

    Raises PayloadError for content without a payload of ours, for one above `limit` bytes and for
    any object that is not what it claims; StorageError when the disk is full.
    """
    records = named_children(pull, content_id, "RecordDict")
    if PAYLOAD not in records:
        raise PayloadError("the message holds no payload: is it from edgetrain?")
    arrays = named_children(pull, records[PAYLOAD], "ArrayRecord")
    if set(arrays) != {PAYLOAD}:
        raise PayloadError("the message's payload is not one array: is it from edgetrain?")
    children, body = open_object(pull(arrays[PAYLOAD]), arrays[PAYLOAD], "Array")
    size, order = read_array(listed(body), len(children), limit)
    replace_file(path, chunks(pull, [children[index] for index in order], size))


def chunks(pull: Pull, chunk_ids: list[str], size: int) -> Iterator[Buffer]:
    """Yield the chunks of an array. Raises PayloadError unless they are `size` bytes in all."""
    left = size
    for chunk_id in chunk_ids:
        _, body = open_object(pull(chunk_id), chunk_id, "ArrayChunk")
        left -= len(body)
        if left < 0:
            break
        yield body
    if left:
        raise PayloadError(f"the payload's chunks are not the {size} bytes that it claims")


def named_children(pull: Pull, object_id: str, kind: str) -> dict[str, str]:
    """Return the ids of an object's children by their names."""
    children, body = open_object(pull(object_id), object_id, kind)
    names = listed(body)
    if not isinstance(names, dict) or not all(child in children for child in names.values()):
        raise PayloadError(f"an object of type {kind} names others than its children")
    return names


def read_array(about: Any, children: int, limit: int) -> tuple[int, list[int]]:
    """Return the bytes of an array and which of its children its chunks are."""
    if not isinstance(about, dict):
        raise PayloadError("the payload is not an array")
    found = (about.get("dtype"), about.get("stype"))
    if found != ("uint8", SERIALISATION):
        raise PayloadError(f"the payload is {found[0]} by {found[1]}, not {SERIALISATION}")
    shape, order = about.get("shape"), about.get("arraychunk_ids")
    if not isinstance(shape, list) or len(shape) != 1 or type(shape[0]) is not int:
        raise PayloadError(f"the payload has the shape {shown(shape)}: it must be one number")
    if not 0 <= shape[0] <= limit:
        raise PayloadError(f"the payload has {shape[0]} bytes; this device takes {limit} at most")
    if not isinstance(order, list) or not all(
        type(index) is int and 0 <= index < children for index in order
    ):
        raise PayloadError("the payload's chunks are not among its children")
    return shape[0], order


def listed(body: memoryview) -> Any:
    """Return the JSON in the body of an object that names others."""
    if len(body) > LONGEST_LIST:
        raise PayloadError(f"an object names others in {len(body)} bytes: too many")
    try:
        return json.loads(bytes(body))
    except (ValueError, RecursionError) as error:
        raise PayloadError(f"an object that names others holds no JSON: {error}") from error
