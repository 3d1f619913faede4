"""Protocol Buffers as the Fleet API uses them: messages are dicts by the schema in fleet.proto.

The schema is read from the .proto file itself, so there is one declaration and no generated code.
The encoding is https://protobuf.dev/programming-guides/encoding: varints, doubles and strings of
bytes, each behind its field's number.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgetrain.errors import PayloadError
from edgetrain.storage import Buffer

__all__ = ["SCHEMA", "Field", "Fields", "decode", "encode", "read_schema"]

Fields = dict[str, Any]
"""A message: values by the names of its fields."""

VARINT, DOUBLE, BYTES, FLOAT = 0, 1, 2, 5
"""Wire types; the two of groups were given up by Protocol Buffers itself."""
DEFAULTS: Fields = {"double": 0.0, "uint64": 0, "sint64": 0, "bool": False, "string": ""}
WIRE_TYPES = {"double": DOUBLE, "uint64": VARINT, "sint64": VARINT, "bool": VARINT}
DEEPEST = 16
"""Messages within messages; a task's tree of objects is five deep."""

COMMENT = re.compile(r"//[^\n]*")
TOKEN = re.compile(
    r"message (?P<message>\w+) \{"
    r"|(?P<oneof>oneof \w+ \{)"
    r"|(?P<repeated>repeated )?(?P<type>\w+) (?P<name>\w+) = (?P<number>\d+);"
    r"|(?P<end>\})"
)


@dataclass(frozen=True)
class Field:
    """One field of a message.

    Attributes:
        number, name: by which it goes on the wire and in a dict.
        type: "double", "uint64", "sint64", "bool", "string", "bytes" or a message's name.
        repeated: whether its value is a list.
        oneof: whether at most one of it and its neighbours is there.
    """

    number: int
    name: str
    type: str
    repeated: bool
    oneof: bool

    @property
    def wire_type(self) -> int:
        """How its value lies on the wire."""
        return WIRE_TYPES.get(self.type, BYTES)

    @property
    def default(self) -> Any:
        """What the absence of the field means; None for a message."""
        if self.repeated:
            return []
        if self.type == "bytes":
            return memoryview(b"")
        return None if self.oneof else DEFAULTS.get(self.type)


def read_schema(text: str) -> dict[str, list[Field]]:
    """Return the fields, by number, of every message in a .proto file.

    A message within another is called after both, as in "ConfigRecord.Item".
    """
    schema: dict[str, list[Field]] = {}
    scope: list[str] = []
    for token in TOKEN.finditer(COMMENT.sub("", text)):
        message = ".".join(filter(None, scope))
        if token["end"]:
            scope.pop()
        elif token["oneof"]:
            scope.append("")
        elif token["message"]:
            scope.append(token["message"])
            schema[".".join(scope)] = []
        else:
            kind = token["type"]
            kind = f"{message}.{kind}" if f"{message}.{kind}" in schema else kind
            field = Field(
                int(token["number"]), token["name"], kind, bool(token["repeated"]), not scope[-1]
            )
            schema[message].append(field)
    return schema


SCHEMA = read_schema(Path(__file__).with_name("fleet.proto").read_text(encoding="utf-8"))
"""The fields of every message that a device knows, by the message's name."""


def encode(message: str, fields: Fields) -> bytes:
    """Return a message as bytes, fields in the order of their numbers.

    What is None or missing is left out, and so is a default that says nothing, as Flower's own
    encoding does. Raises KeyError for a name that the message has not.
    """
    known = {field.name: field for field in SCHEMA[message]}
    given = sorted(((known[name], value) for name, value in fields.items()), key=_number)
    parts = bytearray()
    for field, value in given:
        for one in value if field.repeated else [value]:
            if one is None or (not field.repeated and not field.oneof and one == field.default):
                continue
            parts += _varint(field.number << 3 | field.wire_type)
            parts += _to_wire(field, one)
    return bytes(parts)


def decode(message: str, buffer: Buffer, depth: int = 0) -> Fields:
    """Return the message in the bytes, every field of it: the absent ones as their defaults.

    Values of bytes are views of the buffer. Fields that the schema has not are passed over.
    Raises PayloadError for bytes that are not such a message.
    """
    if depth > DEEPEST:
        raise PayloadError(f"{message}: messages lie more than {DEEPEST} deep")
    known = {field.number: field for field in SCHEMA[message]}
    values: Fields = {field.name: field.default for field in SCHEMA[message]}
    for number, wire_type, raw in _split(memoryview(buffer), message):
        field = known.get(number)
        if field is None:
            continue
        if wire_type != field.wire_type:
            raise PayloadError(f"{message}.{field.name} has wire type {wire_type}")
        value = _from_wire(field, raw, depth)
        if field.repeated:
            values[field.name].append(value)
        else:
            values[field.name] = value
    return values


def _number(item: tuple[Field, Any]) -> int:
    return item[0].number


def _varint(value: int) -> bytes:
    parts = bytearray()
    while value > 0x7F:
        parts.append(value & 0x7F | 0x80)
        value >>= 7
    parts.append(value)
    return bytes(parts)


def _to_wire(field: Field, value: Any) -> bytes:
    if field.type == "double":
        return struct.pack("<d", value)
    if field.type == "sint64":
        return _varint((value << 1 ^ value >> 63) & (1 << 64) - 1)
    if field.wire_type == VARINT:
        return _varint(int(value))
    if field.type == "string":
        value = value.encode("utf-8")
    elif field.type != "bytes":
        value = encode(field.type, value)
    return _varint(len(value)) + bytes(value)


def _from_wire(field: Field, raw: Any, depth: int) -> Any:
    if field.type == "sint64":
        return raw >> 1 ^ -(raw & 1)
    if field.type == "bool":
        return bool(raw)
    if field.type in ("uint64", "double", "bytes"):
        return raw
    if field.type != "string":
        return decode(field.type, raw, depth + 1)
    try:
        return str(raw, "utf-8")
    except UnicodeDecodeError as error:
        raise PayloadError(f"{field.name} is not UTF-8") from error


def _split(view: memoryview, message: str) -> Iterator[tuple[int, int, Any]]:
    """Yield number, wire type and raw value of every field there is."""
    at = 0
    while at < len(view):
        key, at = _read_varint(view, at)
        number, wire_type = key >> 3, key & 7
        raw: Any
        if wire_type == VARINT:
            raw, at = _read_varint(view, at)
        elif wire_type in (DOUBLE, FLOAT, BYTES):
            length = 8 if wire_type == DOUBLE else 4
            if wire_type == BYTES:
                length, at = _read_varint(view, at)
            raw, at = view[at : at + length], at + length
            if at > len(view):
                raise PayloadError(f"{message} is cut short")
            if wire_type == DOUBLE:
                (raw,) = struct.unpack("<d", raw)
        else:
            raise PayloadError(f"{message} has a field of wire type {wire_type}")
        yield number, wire_type, raw


def _read_varint(view: memoryview, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(view):
            raise PayloadError("a number is cut short")
        byte = view[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            if value >= 1 << 64:
                break
            return value, at
    raise PayloadError("a number has more than 64 bits")
