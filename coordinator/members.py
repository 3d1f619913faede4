"""Who is in the fleet: devices say their name, role and what their data look like.

A Flower node id is a random number of one connection. Names are what selection, random draws and
records go by, so that a device that comes back is the same device, and a simulated fleet draws
like the real one.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping

from flwr.app import Message, MessageType, RecordDict
from flwr.proto.node_pb2 import NodeInfo
from flwr.serverapp import Grid

from edgetrain.client.flower_record import record_to_hello
from edgetrain.coordinator.exchange import POLL_SECONDS, Clock, Member, converse
from edgetrain.errors import ConfigError, DataError, EdgetrainError, PayloadError
from edgetrain.memory_profiler.signature import point_of_pem

__all__ = ["ENROL_SECONDS", "data_shape", "enrol", "gather"]

ENROL_SECONDS = 600.0
"""How long to wait for a fleet to be complete before starting with those who are there."""
HELLO_SECONDS = 120.0
HELLO_GROUP = "hello"

log = logging.getLogger(__name__)


def gather(
    grid: Grid, clock: Clock, expected: int, patience: float = ENROL_SECONDS
) -> dict[str, Member]:
    """Return the members of a fleet by name, once `expected` are there or patience has ended.

    Raises ConfigError when by then nobody is there who could train.
    """
    members: dict[str, Member] = {}
    end = clock.now() + patience
    while True:
        members = enrol(grid, clock, members)
        left = end - clock.now()
        if len(members) >= expected or left <= 0:
            break
        clock.wait(min(POLL_SECONDS, left))
    if not any(member.role == "train" for member in members.values()):
        raise ConfigError(
            f"no device that trains has come within {patience:g} s: start the SuperNodes, with a "
            "device name and role 'train' in their --node-config"
        )
    return members


def enrol(grid: Grid, clock: Clock, members: Mapping[str, Member]) -> dict[str, Member]:
    """Return the members, and with them every node of the Grid that was not known yet."""
    known = {member.node_id for member in members.values()}
    found = dict(members)
    new = [node_id for node_id in grid.get_node_ids() if node_id not in known]
    nodes = {node.node_id: node for node in grid.get_nodes()}
    for node_id, reply in converse(grid, clock, new, hello, HELLO_SECONDS):
        try:
            member = read_hello(node_id, reply, nodes.get(node_id))
        except EdgetrainError as error:
            log.warning("node %s does not belong to this fleet: %s", node_id, error)
            continue
        if member.name in found:
            log.warning("device %s has come again as node %s", member.name, node_id)
        found[member.name] = member
    return found


def hello(node_id: int) -> Message:
    """Return the message that asks a node who it is."""
    return Message(
        RecordDict(), node_id, MessageType.QUERY, ttl=HELLO_SECONDS, group_id=HELLO_GROUP
    )


def read_hello(node_id: int, reply: Message | str, node: NodeInfo | None) -> Member:
    """Return the member that a reply introduces. Raises PayloadError for any other reply.

    A node that an operator enrolled by a name may not go by another, and the SuperLink checks its
    key on every request.
    """
    if isinstance(reply, str):
        raise PayloadError("it did not say who it is")
    if reply.has_error():
        raise PayloadError(f"it could not say who it is: {reply.error.reason}")
    fields = record_to_hello(reply.content)
    if node is None or not node.name:
        return Member(node_id=node_id, **fields)
    if fields["name"] != node.name:
        raise PayloadError(f"it says it is {fields['name']!r} and was enrolled as {node.name!r}")
    return Member(node_id=node_id, **fields, key=point_of_pem(node.public_key))


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
