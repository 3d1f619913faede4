"""Who is in the fleet: devices say their name, role and what their data look like.

A Flower node id is a random number of one connection. Names are what selection, random draws and
records go by, so that a device that comes back is the same device, and a simulated fleet draws
like the real one.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable

from flwr.app import Message, MessageType, RecordDict
from flwr.proto.node_pb2 import NodeInfo
from flwr.serverapp import Grid

from edgetrain.client.flower_record import record_to_hello
from edgetrain.coordinator.answer import Member
from edgetrain.coordinator.exchange import POLL_SECONDS, Clock
from edgetrain.errors import ConfigError, DataError, EdgetrainError, PayloadError
from edgetrain.memory_profiler.signature_check import point_of_pem

__all__ = ["Register", "data_shape"]

HELLO_SECONDS = 120.0
HELLO_GROUP = "hello"

log = logging.getLogger(__name__)


class Register:
    """The members of a fleet by name, and who has been asked who it is and has not said so yet."""

    def __init__(self, grid: Grid, clock: Clock) -> None:
        self.grid = grid
        self.clock = clock
        self.members: dict[str, Member] = {}
        self._asked: dict[str, NodeInfo] = {}

    def gather(self, expected: int, patience: float) -> None:
        """Wait until `expected` devices are members, or patience has ended.

        Raises ConfigError when by then nobody is there who could train.
        """
        end = self.clock.now() + patience
        while True:
            self.update()
            left = end - self.clock.now()
            if len(self.members) >= expected or left <= 0:
                break
            self.clock.wait(min(POLL_SECONDS, left))
        if not any(member.role == "train" for member in self.members.values()):
            raise ConfigError(
                f"no device that trains has come within {patience:g} s: start the SuperNodes, "
                "with a device name and role 'train' in their --node-config"
            )

    def update(self) -> None:
        """Ask new nodes who they are, and take in those that have said so; never waits."""
        known = {member.node_id for member in self.members.values()}
        known |= {node.node_id for node in self._asked.values()}
        new = [node_id for node_id in self.grid.get_node_ids() if node_id not in known]
        if new:
            nodes = {node.node_id: node for node in self.grid.get_nodes()}
            identities = self.grid.push_messages([hello(node_id) for node_id in new])
            for identity, node_id in zip(identities, new, strict=False):
                if identity:
                    self._asked[identity] = nodes.get(node_id, NodeInfo(node_id=node_id))
        if self._asked:
            self._listen()

    def _listen(self) -> None:
        """Take in those that have answered."""
        for reply in self.grid.pull_messages(list(self._asked)):
            # An error that Flower itself makes carries its own node id: only this is right.
            node = self._asked.pop(reply.metadata.reply_to_message_id, None)
            if node is None:
                continue
            try:
                member = read_hello(reply, node)
            except EdgetrainError as error:
                log.warning("node %s does not belong to this fleet: %s", node.node_id, error)
                continue
            if member.name in self.members:
                log.warning("device %s has come again as node %s", member.name, node.node_id)
            self.members[member.name] = member


def hello(node_id: int) -> Message:
    """Return the message that asks a node who it is."""
    return Message(
        RecordDict(), node_id, MessageType.QUERY, ttl=HELLO_SECONDS, group_id=HELLO_GROUP
    )


def read_hello(reply: Message, node: NodeInfo) -> Member:
    """Return the member that a reply introduces. Raises PayloadError for any other reply.

    A node that an operator enrolled by a name may not go by another, and the SuperLink checks its
    key on every request.
    """
    if reply.has_error():
        raise PayloadError(f"it could not say who it is: {reply.error.reason}")
    fields = record_to_hello(reply.content)
    if not node.name:
        return Member(node_id=node.node_id, **fields)
    if fields["name"] != node.name:
        raise PayloadError(f"it says it is {fields['name']!r} and was enrolled as {node.name!r}")
    return Member(node_id=node.node_id, **fields, key=point_of_pem(node.public_key))


def data_shape(members: Iterable[Member]) -> tuple[int, int]:
    """Return the features and classes that all members with examples agree on.

    Raises DataError when they do not, or when nobody has examples.
    """
    holders = [member for member in members if member.examples]
    if not holders:
        raise DataError("no device has any examples: name a data file in each node's dataset")
    first = holders[0]
    for other in holders:
        if (other.features, other.classes) != (first.features, first.classes):
            raise DataError(
                f"devices hold different data: {first.name} {first.features} features and "
                f"{first.classes} classes, {other.name} {other.features} and {other.classes}: "
                "prepare them alike"
            )
    return first.features, first.classes
