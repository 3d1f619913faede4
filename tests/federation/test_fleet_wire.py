"""Our schema and encoding of Flower's messages beside Flower's own, and beside damaged bytes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from flwr.proto import (
    error_pb2,
    fleet_pb2,
    heartbeat_pb2,
    message_pb2,
    node_pb2,
    recorddict_pb2,
)
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message_factory import GetMessageClass
from hypothesis import given
from hypothesis import strategies as st

from edgetrain.client.fleet.wire import SCHEMA, Field, Fields, decode, encode, read_schema
from edgetrain.errors import PayloadError

FLOWERS = (fleet_pb2, heartbeat_pb2, message_pb2, node_pb2, recorddict_pb2, error_pb2)
TYPES = {
    FieldDescriptor.TYPE_DOUBLE: "double",
    FieldDescriptor.TYPE_UINT64: "uint64",
    FieldDescriptor.TYPE_SINT64: "sint64",
    FieldDescriptor.TYPE_BOOL: "bool",
    FieldDescriptor.TYPE_STRING: "string",
    FieldDescriptor.TYPE_BYTES: "bytes",
}
MESSAGES = sorted(SCHEMA)


def flowers(message: str) -> Descriptor:
    """Return Flower's descriptor of a message."""
    outer, *inner = message.split(".")
    found: Descriptor = next(
        module.DESCRIPTOR.message_types_by_name[outer]
        for module in FLOWERS
        if outer in module.DESCRIPTOR.message_types_by_name
    )
    for name in inner:
        found = found.nested_types_by_name[name]
    return found


def type_of(field: FieldDescriptor) -> str:
    """Return a field's type as our schema writes it."""
    if field.type != FieldDescriptor.TYPE_MESSAGE:
        return TYPES[field.type]
    return str(field.message_type.full_name.removeprefix("flwr.proto."))


@pytest.mark.parametrize("message", MESSAGES)
def test_every_field_is_as_the_installed_flower_has_it(message: str) -> None:
    theirs = flowers(message)
    for field in SCHEMA[message]:
        found = theirs.fields_by_name[field.name]
        assert field == Field(
            number=found.number,
            name=found.name,
            type=type_of(found),
            repeated=found.is_repeated,
            oneof=found.containing_oneof is not None,
        )


def test_a_device_reads_every_answer_whole() -> None:
    # What Flower would tell it and it does not know is named here, and nothing else.
    passed_over = {
        ("PullMessagesResponse", "reconnect"),
        ("PushMessagesResponse", "reconnect"),
        ("PushMessagesResponse", "results"),
        ("Metadata", "src_task_id"),
        ("Metadata", "dst_task_id"),
    }
    answers = [name for name in MESSAGES if name.endswith("Response")]
    assert len(answers) == 10
    unknown = {
        (message, field.name)
        for message in (*answers, "Message", "Metadata", "Error", "ObjectTree")
        for field in flowers(message).fields
        if field.name not in {known.name for known in SCHEMA[message]}
    }
    assert unknown == passed_over


NUMBERS: dict[str, Callable[[], st.SearchStrategy[Any]]] = {
    # A negative zero is equal to the default, and need not survive.
    "double": lambda: st.floats(allow_nan=False).map(lambda number: number + 0.0),
    "uint64": lambda: st.integers(0, 2**64 - 1),
    "sint64": lambda: st.integers(-(2**63), 2**63 - 1),
    "bool": st.booleans,
    "string": lambda: st.text(st.characters(exclude_categories=["Cs"]), max_size=20),
    "bytes": lambda: st.binary(max_size=200),
}


def values(field: Field, depth: int) -> st.SearchStrategy[Any]:
    """Return what may stand in a field."""
    one = NUMBERS[field.type]() if field.type in NUMBERS else messages(field.type, depth - 1)
    return st.lists(one, max_size=3) if field.repeated else one


@st.composite
def messages(draw: st.DrawFn, message: str, depth: int = 3) -> Fields:
    """Draw a message with some of its fields, of a oneof at most one."""
    fields = [field for field in SCHEMA[message] if field.type in NUMBERS or depth > 0]
    chosen = {field.name: field for field in fields if draw(st.booleans())}
    single = [name for name, field in chosen.items() if field.oneof]
    for name in single[1:]:
        del chosen[name]
    return {name: draw(values(field, depth)) for name, field in chosen.items()}


def plain(value: Any) -> Any:
    """Return a decoded message without what is absent, and views as bytes."""
    if isinstance(value, dict):
        return {name: plain(one) for name, one in value.items()}
    if isinstance(value, list):
        return [plain(one) for one in value]
    return bytes(value) if isinstance(value, memoryview) else value


# Flower never answers with a list of numbers, the one thing that it would pack.
@pytest.mark.parametrize("message", [name for name in MESSAGES if name != "PushMessagesRequest"])
@given(data=st.data())
def test_flower_reads_what_we_write_and_we_read_what_flower_writes(
    message: str, data: st.DataObject
) -> None:
    ours = encode(message, data.draw(messages(message)))
    theirs = GetMessageClass(flowers(message)).FromString(ours)
    again = theirs.SerializeToString(deterministic=True)
    assert again == ours
    assert plain(decode(message, again)) == plain(decode(message, ours))
    assert encode(message, decode(message, again)) == ours


def test_flower_reads_the_seconds_of_a_reply() -> None:
    ours = encode("PushMessagesRequest", {"clientapp_runtime_list": [1.5, 0.0]})
    assert fleet_pb2.PushMessagesRequest.FromString(ours).clientapp_runtime_list == [1.5, 0.0]


def test_what_is_absent_is_its_default() -> None:
    answer = decode("PullObjectResponse", b"")
    assert answer == {
        "object_found": False,
        "object_available": False,
        "object_content": memoryview(b""),
    }
    assert decode("Message", b"") == {"metadata": None, "content": None, "error": None}


def test_fields_of_a_later_flower_are_passed_over() -> None:
    run = message_pb2.Metadata(run_id=7, src_task_id=9, group_id="x").SerializeToString()
    assert decode("Metadata", run)["run_id"] == 7
    assert decode("Node", b"\x7d\0\0\0\0" + b"\x08\x05") == {"node_id": 5}  # a float in field 15


@pytest.mark.parametrize(
    ("message", "damaged", "said"),
    [
        ("Node", b"\x08", "cut short"),
        ("Node", b"\x08" + b"\xff" * 9 + b"\x02", "64 bits"),
        ("Node", b"\x08" + b"\xff" * 20, "64 bits"),
        ("Node", b"\x0a\x00", "wire type 2"),
        ("Node", b"\x0b", "wire type 3"),
        ("PushObjectResponse", b"\x09\0\0", "cut short"),
        ("ObjectTree", b"\x0a\xff\xff\xff\xff\x7f", "cut short"),
        ("ObjectTree", b"\x0a\x02\xc3\x28", "UTF-8"),
    ],
)
def test_damaged_bytes_are_refused(message: str, damaged: bytes, said: str) -> None:
    with pytest.raises(PayloadError, match=said):
        decode(message, damaged)


def test_messages_too_deep_are_refused() -> None:
    tree = b""
    for _ in range(60):
        tree = b"\x12" + bytes([len(tree)]) + tree
    with pytest.raises(PayloadError, match="deep"):
        decode("ObjectTree", tree)


@given(st.sampled_from(MESSAGES), st.binary(max_size=300))
def test_any_bytes_are_a_message_or_refused(message: str, noise: bytes) -> None:
    try:
        found = decode(message, noise)
    except PayloadError:
        return
    assert set(found) == {field.name for field in SCHEMA[message]}


def test_a_schema_is_read_with_its_comments_oneofs_and_inner_messages() -> None:
    text = """
    syntax = "proto3";  // message Wrong {
    message Outer {
      message Inner { uint64 key = 1; }
      repeated Inner inners = 4;
      oneof value { string word = 2; bool flag = 3; }
    }
    message Empty {}
    """
    assert read_schema(text) == {
        "Outer": [
            Field(4, "inners", "Outer.Inner", repeated=True, oneof=False),
            Field(2, "word", "string", repeated=False, oneof=True),
            Field(3, "flag", "bool", repeated=False, oneof=True),
        ],
        "Outer.Inner": [Field(1, "key", "uint64", repeated=False, oneof=False)],
        "Empty": [],
    }
