"""A Grid for devices that are slow, or mean harm: no reply of theirs holds up or ends a run.

A reply is announced before its objects are sent. Flower's own Grid then waits for them, up to two
hours and whatever else arrives meanwhile, and raises for a reply that makes no sense, which ends
the ServerApp. Here a reply is looked at again in the next pull until all of it is there, and one
that makes no sense is an error like any other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from flwr.app import Error, Message, Metadata, RecordDict
from flwr.app.message import make_message
from flwr.common.constant import ErrorCode
from flwr.proto.message_pb2 import ConfirmMessageReceivedRequest, PullObjectRequest
from flwr.proto.node_pb2 import NodeInfo
from flwr.proto.runtime_pb2 import PullAppMessagesRequest
from flwr.serverapp import Grid
from flwr.supercore.constant import SYSTEM_MESSAGE_TYPE
from flwr.supercore.inflatable.inflatable_object import iterate_object_tree
from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents
from flwr.supercore.run import Run
from flwr.superlink.grid.http_grid import HttpGrid

from edgetrain.errors import PayloadError
from edgetrain.task import MAX_MESSAGE_BYTES, one_line

__all__ = ["GuardedGrid"]

MOST_OBJECTS = 1 << 12
"""Objects of one reply: a report of MAX_MESSAGE_BYTES in chunks of 256 KiB is a quarter of it."""


@dataclass
class Announced:
    """A reply of which we know, with as much of its content as has come."""

    reply_id: str
    asked_id: str
    object_ids: list[str]
    contents: dict[str, bytes] = field(default_factory=dict)
    size: int = 0


class GuardedGrid(Grid):
    """Flower's Grid over HTTP, but for how it takes replies.

    `sent` is told the nodes that messages have been sent to.
    """

    def __init__(self, grid: HttpGrid, sent: Callable[[list[int]], None] | None = None) -> None:
        self._grid = grid
        self._sent = sent
        self._announced: dict[str, Announced] = {}

    def set_run(self, run: Run) -> None:
        """Set the run; see Grid."""
        self._grid.set_run(run)

    @property
    def run(self) -> Run:
        """The run; see Grid."""
        return self._grid.run

    def create_message(
        self,
        content: RecordDict,
        message_type: str,
        dst_node_id: int,
        group_id: str,
        ttl: float | None = None,
    ) -> Message:
        """Make a message; see Grid."""
        return self._grid.create_message(content, message_type, dst_node_id, group_id, ttl)

    def get_node_ids(self) -> Iterable[int]:
        """Return who is online; see Grid."""
        return self._grid.get_node_ids()

    def get_nodes(self) -> Iterable[NodeInfo]:
        """Return what is known of who is online; see Grid."""
        return self._grid.get_nodes()

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Send messages; see Grid."""
        messages = list(messages)
        identities = self._grid.push_messages(messages)
        if self._sent is not None:
            self._sent([message.metadata.dst_node_id for message in messages])
        return identities

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        """Refuse: it would wait for the slowest."""
        raise NotImplementedError

    def pull_messages(self, message_ids: Iterable[str]) -> Iterator[Message]:
        """Yield the replies to these messages that are whole by now, and an error for a bad one.

        None of them is waited for.
        """
        asked = set(message_ids)
        self._look_for(asked - self._announced.keys())
        for message_id in asked & self._announced.keys():
            announced = self._announced[message_id]
            try:
                if not self._is_whole(announced):
                    continue
                reply = self._open(announced)
            except PayloadError as error:
                reply = self._error(announced, error)
            del self._announced[message_id]
            yield reply

    def _look_for(self, message_ids: set[str]) -> None:
        """Ask which of these messages have been answered, or cannot be."""
        request = PullAppMessagesRequest(message_ids=message_ids)
        found = self._grid._runtime_client.PullMessages(request)
        for reply, tree in zip(found.messages_list, found.message_object_trees, strict=True):
            about = reply.metadata
            objects = [one.object_id for one in iterate_object_tree(tree)]
            announced = Announced(about.message_id, about.reply_to_message_id, objects)
            self._announced[about.reply_to_message_id] = announced

    def _is_whole(self, announced: Announced) -> bool:
        """Take what has come of a reply; say whether that is all of it.

        Raises PayloadError for a reply that is too large, or will not come any more.
        """
        if len(announced.object_ids) > MOST_OBJECTS:
            raise PayloadError(f"the reply has {len(announced.object_ids)} objects: too many")
        for object_id in announced.object_ids:
            if object_id in announced.contents:
                continue
            found = self._grid._runtime_client.PullObject(
                PullObjectRequest(node=self._grid.node, run_id=self.run.run_id, object_id=object_id)
            )
            if not found.object_found:
                raise PayloadError("the reply was not sent to its end")
            if not found.object_available:
                return False
            announced.contents[object_id] = found.object_content
            announced.size += len(found.object_content)
            if announced.size > MAX_MESSAGE_BYTES:
                raise PayloadError(f"the reply has more than {MAX_MESSAGE_BYTES} bytes")
        return True

    def _open(self, announced: Announced) -> Message:
        """Return a reply that is whole. Raises PayloadError for what makes no sense."""
        self._grid._runtime_client.ConfirmMessageReceived(
            ConfirmMessageReceivedRequest(
                node=self._grid.node,
                run_id=self.run.run_id,
                message_object_id=announced.reply_id,
            )
        )
        try:
            reply = inflate_object_from_contents(announced.reply_id, announced.contents)
        # Flower checks little of what it opens here, and anything may come of that.
        except Exception as error:
            raise PayloadError(f"the reply makes no sense: {error!r}") from error
        if not isinstance(reply, Message):
            raise PayloadError("the reply is no message")
        reply.metadata.__dict__["_message_id"] = announced.reply_id
        if reply.metadata.reply_to_message_id != announced.asked_id:
            raise PayloadError("the reply answers another message than it says")
        return reply

    def _error(self, announced: Announced, error: PayloadError) -> Message:
        """Return an error in place of a reply, as Flower makes those of its own."""
        about = Metadata(
            run_id=self.run.run_id,
            message_id="",
            src_node_id=self._grid.node.node_id,
            dst_node_id=self._grid.node.node_id,
            message_type=SYSTEM_MESSAGE_TYPE,
            group_id="",
            ttl=0,
            reply_to_message_id=announced.asked_id,
            created_at=0,
        )
        return make_message(
            metadata=about, error=Error(ErrorCode.UNKNOWN, one_line(f"refused: {error}"))
        )
