"""Replies as they really come: in parts, too large, senseless, or never to their end."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest
from flwr.app import ConfigRecord, Message, Metadata, RecordDict
from flwr.app.message import make_message, remove_content_from_message
from flwr.common.constant import ErrorCode
from flwr.common.serde import message_to_proto
from flwr.proto.message_pb2 import ObjectTree, PullObjectResponse
from flwr.proto.node_pb2 import Node
from flwr.proto.runtime_pb2 import PullAppMessagesResponse
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects, get_object_tree
from flwr.superlink.grid.http_grid import HttpGrid

from edgetrain.coordinator import guarded_grid
from edgetrain.coordinator.guarded_grid import GuardedGrid


class Runtime:
    """SuperLink's side, where a test says what has come of a reply."""

    def __init__(self) -> None:
        self.replies: list[Any] = []
        self.trees: list[ObjectTree] = []
        self.contents: dict[str, bytes] = {}
        self.expected: set[str] = set()
        self.confirmed: list[str] = []
        self.asked: list[set[str]] = []

    def announce(self, asked_id: str) -> Message:
        """Let a reply be known, and none of its objects be there."""
        about = Metadata(1, "", 7, 1, asked_id, "", 0.0, 60.0, "train")
        reply = make_message(metadata=about, content=RecordDict({"a": ConfigRecord({"b": 1})}))
        reply.metadata.__dict__["_message_id"] = reply.object_id
        self.replies.append(message_to_proto(remove_content_from_message(reply)))
        self.trees.append(get_object_tree(reply))
        self.expected |= get_all_nested_objects(reply).keys()
        return reply

    def send(self, reply: Message) -> None:
        """Let all objects of a reply be there."""
        for object_id, piece in get_all_nested_objects(reply).items():
            self.contents[object_id] = piece.deflate()

    def PullMessages(self, request: Any) -> PullAppMessagesResponse:  # noqa: N802 - Flower's names
        self.asked.append(set(request.message_ids))
        found = PullAppMessagesResponse(messages_list=self.replies, message_object_trees=self.trees)
        # Flower says it once.
        self.replies, self.trees = [], []
        return found

    def PullObject(self, request: Any) -> PullObjectResponse:  # noqa: N802
        content = self.contents.get(request.object_id)
        return PullObjectResponse(
            object_found=request.object_id in self.expected,
            object_available=content is not None,
            object_content=content or b"",
        )

    def ConfirmMessageReceived(self, request: Any) -> None:  # noqa: N802
        self.confirmed.append(request.message_object_id)


@pytest.fixture
def runtime() -> Runtime:
    return Runtime()


@pytest.fixture
def grid(runtime: Runtime) -> GuardedGrid:
    stand_in = SimpleNamespace(
        _runtime_client=runtime, node=Node(node_id=1), run=SimpleNamespace(run_id=1)
    )
    return GuardedGrid(cast(HttpGrid, stand_in))


def test_who_is_sent_a_message_is_told_of_after_it_was_sent() -> None:
    story: list[Any] = []

    def push(messages: list[Message]) -> list[str]:
        story.append("pushed")
        return ["id"] * len(messages)

    inner = cast(HttpGrid, SimpleNamespace(push_messages=push))
    grid = GuardedGrid(inner, story.append)
    messages = [
        make_message(
            metadata=Metadata(1, "", 1, node, "", "", 0.0, 60.0, "train"), content=RecordDict()
        )
        for node in (7, 1 << 63)
    ]
    assert list(grid.push_messages(iter(messages))) == ["id", "id"]
    assert story == ["pushed", [7, 1 << 63]]


def test_a_reply_that_is_whole_is_taken_once(grid: GuardedGrid, runtime: Runtime) -> None:
    sent = runtime.announce("question")
    runtime.send(sent)
    (reply,) = grid.pull_messages(["question", "other"])
    assert reply.content == sent.content
    assert reply.metadata.reply_to_message_id == "question"
    assert runtime.confirmed == [sent.object_id]
    assert list(grid.pull_messages(["question", "other"])) == []


def test_nobody_waits_for_a_reply_that_is_on_its_way(grid: GuardedGrid, runtime: Runtime) -> None:
    slow, quick = runtime.announce("slow"), runtime.announce("quick")
    runtime.send(quick)
    asked = ["slow", "quick"]
    assert [one.metadata.reply_to_message_id for one in grid.pull_messages(asked)] == ["quick"]
    assert list(grid.pull_messages(["slow"])) == []
    runtime.send(slow)
    (reply,) = grid.pull_messages(["slow"])
    assert reply.content == slow.content
    # Flower has told of it once, and is not asked again.
    assert runtime.asked == [{"slow", "quick"}, set(), set()]


def test_a_reply_that_will_not_come_is_an_error(grid: GuardedGrid, runtime: Runtime) -> None:
    runtime.announce("question")
    assert list(grid.pull_messages(["question"])) == []
    runtime.expected.clear()  # as when its session has ended
    (reply,) = grid.pull_messages(["question"])
    assert reply.error.code == ErrorCode.UNKNOWN
    assert "not sent to its end" in str(reply.error.reason)
    assert reply.metadata.reply_to_message_id == "question"


@pytest.mark.parametrize(
    "content", [b"RecordDict  2\0{}{}", b"Nothing  0\0", b"", b"Message  0\0", b"RecordDict  1\0["]
)
def test_a_reply_that_makes_no_sense_is_an_error_and_others_are_taken(
    content: bytes, grid: GuardedGrid, runtime: Runtime
) -> None:
    bad, good = runtime.announce("bad"), runtime.announce("good")
    for reply in (bad, good):
        runtime.send(reply)
    for object_id in get_all_nested_objects(bad):
        if object_id not in get_all_nested_objects(good):
            runtime.contents[object_id] = content
    found = {one.metadata.reply_to_message_id: one for one in grid.pull_messages(["bad", "good"])}
    assert "makes no sense" in str(found["bad"].error.reason)
    assert found["good"].content == good.content


def test_a_reply_has_its_limits(
    grid: GuardedGrid, runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime.send(runtime.announce("heavy"))
    monkeypatch.setattr(guarded_grid, "MAX_MESSAGE_BYTES", 20)
    (reply,) = grid.pull_messages(["heavy"])
    assert "more than 20 bytes" in str(reply.error.reason)
    runtime.send(runtime.announce("many"))
    monkeypatch.setattr(guarded_grid, "MOST_OBJECTS", 2)
    (reply,) = grid.pull_messages(["many"])
    assert "too many" in str(reply.error.reason)


def test_a_reply_may_not_change_its_question(grid: GuardedGrid, runtime: Runtime) -> None:
    reply = runtime.announce("one")
    runtime.send(reply)
    runtime.replies[0].metadata.reply_to_message_id = "another"
    (found,) = grid.pull_messages(["another"])
    assert "another message" in str(found.error.reason)
