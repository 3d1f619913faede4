"""Our objects are Flower's own, byte for byte; of those that come, only true ones are taken."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.common.serde import message_from_proto
from flwr.proto.message_pb2 import Message as ProtoMessage
from flwr.proto.message_pb2 import ObjectTree
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects, get_object_tree
from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents
from hypothesis import given
from hypothesis import strategies as st

from edgetrain.client.fleet.incoming import save_payload
from edgetrain.client.fleet.messages import Instruction, Reply, make_reply
from edgetrain.client.fleet.objects import (
    CHUNK_BYTES,
    FlowerObject,
    array_record,
    config_record,
    make_object,
    metric_record,
    open_object,
    record_dict,
)
from edgetrain.client.fleet.wire import decode, encode
from edgetrain.client.records import PAYLOAD, SERIALISATION
from edgetrain.errors import PayloadError, StorageError

CHUNK = 1000
NODE_ID = 9
ASKED = Instruction(7, "a" * 64, 1, "round 3", "train", 1.8e9, 600.0, "b" * 64)


def flowers_payload(data: bytes) -> ArrayRecord:
    return ArrayRecord({PAYLOAD: Array("uint8", (len(data),), SERIALISATION, data)})


def same(ours: FlowerObject, theirs: Any) -> bool:
    """Say whether an object of ours and one of Flower's are the same to the last piece."""
    pieces = {piece.object_id: piece.content for piece in ours.walk()}
    flowers = {name: piece.deflate() for name, piece in get_all_nested_objects(theirs).items()}
    tree = get_object_tree(theirs).SerializeToString()
    return pieces == flowers and encode("ObjectTree", ours.tree) == tree


@pytest.mark.parametrize("size", [0, 1, CHUNK, CHUNK + 1, 5 * CHUNK])
def test_a_payload_is_cut_as_flower_cuts_it(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flwr.app.message.array.FLWR_PRIVATE_MAX_ARRAY_CHUNK_SIZE", CHUNK)
    monkeypatch.setattr("edgetrain.client.fleet.objects.CHUNK_BYTES", CHUNK)
    for data in (random.Random(size).randbytes(size), bytes(size)):
        assert same(array_record(PAYLOAD, SERIALISATION, data), flowers_payload(data))


@given(
    st.dictionaries(
        st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=9),
        st.one_of(
            st.booleans(),
            st.integers(-(2**63), 2**63 - 1),
            st.floats(allow_nan=False),
            st.text(st.characters(exclude_categories=["Cs"]), max_size=9),
        ),
        max_size=5,
    )
)
def test_records_are_written_as_flower_writes_them(values: dict[str, Any]) -> None:
    assert same(config_record(values), ConfigRecord(values))
    numbers = {name: value for name, value in values.items() if type(value) in (int, float)}
    assert same(metric_record(numbers), MetricRecord(numbers))
    ours = record_dict({"about": config_record(values), "metrics": metric_record(numbers)})
    theirs = RecordDict({"about": ConfigRecord(values), "metrics": MetricRecord(numbers)})
    assert same(ours, theirs)


def as_flower_reads(reply: Reply) -> Message:
    """Return a reply as a ServerApp has it in the end."""
    contents = {piece.object_id: piece.content for piece in reply.root.walk()}
    message = inflate_object_from_contents(reply.root.object_id, contents)
    assert isinstance(message, Message)
    return message


def test_a_reply_is_a_message_to_flower() -> None:
    content = record_dict({"about": config_record({"status": "trained"})})
    reply = make_reply(ASKED, NODE_ID, 1.8e9 + 100, content)
    pushed = message_from_proto(ProtoMessage.FromString(encode("Message", reply.message)))
    assert pushed.has_content()
    assert pushed.metadata.message_id == reply.root.object_id
    tree = ObjectTree.FromString(encode("ObjectTree", reply.root.tree))
    assert tree.object_id == reply.root.object_id
    message = as_flower_reads(reply)
    assert message.content == RecordDict({"about": ConfigRecord({"status": "trained"})})
    assert message.metadata.reply_to_message_id == ASKED.message_id
    assert (message.metadata.src_node_id, message.metadata.dst_node_id) == (NODE_ID, 1)
    assert message.metadata.created_at + message.metadata.ttl == ASKED.expires_at
    assert make_reply(ASKED, NODE_ID, 1.8e9 + 100, content).root == reply.root


def test_an_error_is_a_message_without_content() -> None:
    reply = make_reply(ASKED, NODE_ID, 1.8e9, None, (16, "not ours"))
    pushed = message_from_proto(ProtoMessage.FromString(encode("Message", reply.message)))
    assert not pushed.has_content()
    message = as_flower_reads(reply)
    assert (message.error.code, message.error.reason) == (16, "not ours")


def on_the_wire(**changes: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return an instruction as a device decodes it, as its tree too."""
    metadata = {
        **{name: getattr(ASKED, name) for name in Instruction.RULES if name != "content_id"},
        "dst_node_id": NODE_ID,
        **changes,
    }
    tree = {
        "object_id": metadata["message_id"],
        "children": [{"object_id": ASKED.content_id, "children": []}],
    }
    message = decode("Message", encode("Message", {"metadata": metadata}))
    return message, decode("ObjectTree", encode("ObjectTree", tree))


def test_an_instruction_is_read_from_the_wire_and_from_a_journal() -> None:
    assert Instruction.from_wire(*on_the_wire(), NODE_ID) == ASKED
    assert Instruction.from_fields(json.loads(json.dumps(ASKED.to_fields()))) == ASKED


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"dst_node_id": 8}, "another node"),
        ({"message_id": "a" * 63}, "SHA-256"),
        ({"message_id": "A" * 64}, "SHA-256"),
        ({"message_type": "train.secretly"}, "one of train"),
        ({"group_id": "two\nlines"}, "one line"),
        ({"ttl": float("inf")}, "ttl"),
        ({"created_at": float("nan")}, "created_at"),
        ({"created_at": -1.0}, "created_at"),
    ],
)
def test_an_instruction_that_makes_no_sense_is_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(PayloadError, match=said):
        Instruction.from_wire(*on_the_wire(**changes), NODE_ID)


def test_an_instruction_has_metadata_and_objects_of_its_own() -> None:
    message, tree = on_the_wire()
    other = {**tree, "object_id": "c" * 64}
    for bad in (
        ({**message, "metadata": None}, tree),
        (message, other),
        (message, {**tree, "children": []}),
    ):
        with pytest.raises(PayloadError):
            Instruction.from_wire(*bad, NODE_ID)


Pieces = dict[str, bytes]


def pieces_of(content: FlowerObject) -> Pieces:
    return {piece.object_id: piece.content for piece in content.walk()}


def content_of(payload: FlowerObject, name: str = PAYLOAD) -> FlowerObject:
    return record_dict({"about": config_record({"kind": "train"}), name: payload})


def test_a_payload_lands_on_the_disk(tmp_path: Path) -> None:
    data = random.Random(0).randbytes(CHUNK_BYTES) + bytes(2 * CHUNK_BYTES + 5)
    content = content_of(array_record(PAYLOAD, SERIALISATION, data))
    save_payload(pieces_of(content).__getitem__, content.object_id, tmp_path / "task")
    assert (tmp_path / "task").read_bytes() == data


@pytest.mark.parametrize(
    "head",
    [
        b"Array  5\0",
        b"ArrayChunk  4\0",
        b"ArrayChunk  05\0",
        b"ArrayChunk  -5\0",
        b"ArrayChunk 5\0",
        b"ArrayChunk  5 5\0",
        b"ArrayChunk  5",
        b"ArrayChunk " + b"a" * 63 + b" 5\0",
        b"ArrayChunk " + b"\xff" * 64 + b" 5\0",
        b"ArrayChunk " + b"a" * 70000 + b" 5\0",
        b"\0",
        b"",
    ],
)
def test_a_head_that_is_not_right_is_refused(head: bytes) -> None:
    content = head + b"12345"
    with pytest.raises(PayloadError):
        open_object(content, hashlib.sha256(content).hexdigest(), "ArrayChunk")


def test_an_object_with_another_hash_is_refused(tmp_path: Path) -> None:
    content = content_of(array_record(PAYLOAD, SERIALISATION, b"12345"))
    pulled = {name: one for name, one in pieces_of(content).items() if one[:6] != b"Config"}
    assert len(pulled) == 4
    for changed in pulled:
        pieces = pulled | {changed: pulled[changed][:-1] + b"X"}
        with pytest.raises(PayloadError, match="what its name says"):
            save_payload(pieces.__getitem__, content.object_id, tmp_path / "task")
    assert not (tmp_path / "task").exists()


def array_saying(**changes: Any) -> FlowerObject:
    """Return a payload whose Array says something else of itself."""
    chunks = tuple(make_object("ArrayChunk", part) for part in (b"123", b"45"))
    about = {
        "dtype": "uint8",
        "shape": [5],
        "stype": SERIALISATION,
        "arraychunk_ids": [0, 1],
        **changes,
    }
    array = make_object("Array", json.dumps(about).encode(), chunks)
    names = json.dumps({PAYLOAD: array.object_id}).encode()
    return content_of(make_object("ArrayRecord", names, (array,)))


def test_the_array_that_is_changed_below_is_taken_as_it_is(tmp_path: Path) -> None:
    content = array_saying()
    save_payload(pieces_of(content).__getitem__, content.object_id, tmp_path / "task")
    assert (tmp_path / "task").read_bytes() == b"12345"


@pytest.mark.parametrize(
    "changes",
    [
        {"dtype": "float32"},
        {"stype": "numpy.ndarray"},
        {"shape": [4]},
        {"shape": [6]},
        {"shape": [1 << 40]},
        {"shape": [-5]},
        {"shape": [5.0]},
        {"shape": [True]},
        {"shape": [5, 1]},
        {"shape": "5"},
        {"arraychunk_ids": [0]},
        {"arraychunk_ids": [0, 1, 1]},
        {"arraychunk_ids": [0, 2]},
        {"arraychunk_ids": [0, -1]},
        {"arraychunk_ids": [0, True]},
        {"arraychunk_ids": {}},
        {"arraychunk_ids": [0] * 10000},
        {"more": "x" * 70000},
    ],
    ids=str,
)
def test_an_array_that_claims_what_is_not_so_is_refused(
    changes: dict[str, Any], tmp_path: Path
) -> None:
    content = array_saying(**changes)
    (tmp_path / "task").write_bytes(b"before")
    with pytest.raises(PayloadError):
        save_payload(pieces_of(content).__getitem__, content.object_id, tmp_path / "task")
    assert (tmp_path / "task").read_bytes() == b"before"


def raw(kind: str, body: bytes, *children: FlowerObject) -> Callable[[], FlowerObject]:
    return lambda: make_object(kind, body, children)


PAYLOAD_RECORD = array_record(PAYLOAD, SERIALISATION, b"12345")
ELSEWHERE = config_record({"not": "a child"})


@pytest.mark.parametrize(
    "content",
    [
        lambda: content_of(PAYLOAD_RECORD, "another"),
        lambda: content_of(array_record("another", SERIALISATION, b"12345")),
        lambda: content_of(ELSEWHERE),
        lambda: record_dict({}),
        raw("RecordDict", b"[]"),
        raw("RecordDict", b"{}{}"),
        raw("RecordDict", b"[" * 20000),
        raw("RecordDict", b"\xff"),
        raw("RecordDict", json.dumps({PAYLOAD: [1]}).encode(), PAYLOAD_RECORD),
        raw("RecordDict", json.dumps({PAYLOAD: ELSEWHERE.object_id}).encode(), PAYLOAD_RECORD),
        lambda: config_record({}),
    ],
)
def test_content_without_a_payload_of_ours_is_refused(
    content: Callable[[], FlowerObject], tmp_path: Path
) -> None:
    made = content()
    pieces = pieces_of(made) | pieces_of(ELSEWHERE)
    with pytest.raises(PayloadError):
        save_payload(pieces.__getitem__, made.object_id, tmp_path / "task")


def test_a_payload_above_the_limit_is_refused_before_its_chunks_are_pulled(tmp_path: Path) -> None:
    content = content_of(array_record(PAYLOAD, SERIALISATION, bytes(1001)))
    pieces = {
        name: one for name, one in pieces_of(content).items() if b"ArrayChunk" not in one[:10]
    }
    with pytest.raises(PayloadError, match="1000 at most"):
        save_payload(pieces.__getitem__, content.object_id, tmp_path / "task", limit=1000)


def test_a_full_disk_is_a_storage_error(tmp_path: Path) -> None:
    content = content_of(PAYLOAD_RECORD)
    with pytest.raises(StorageError):
        save_payload(pieces_of(content).__getitem__, content.object_id, tmp_path / "no" / "task")
