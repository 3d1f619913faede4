"""Flower's Fleet API: every call that a device makes, by the names that Flower gives them.

All raise FleetError when the coordinator cannot be reached or says no, and PayloadError when what
it answers makes no sense.
"""

from __future__ import annotations

from edgetrain.client.fleet.hold import Hold
from edgetrain.client.fleet.messages import Instruction, Reply
from edgetrain.client.fleet.objects import FlowerObject
from edgetrain.client.fleet.transport import Transport
from edgetrain.client.fleet.wire import Fields, decode, encode
from edgetrain.errors import PayloadError

__all__ = ["ANY_SESSION", "LARGEST_CHUNK", "RUN_ENDED", "FleetApi"]

LARGEST_CHUNK = 8 << 20
"""Bytes of the largest object taken; Flower cuts arrays into chunks of 5 MiB."""
LARGEST_MESSAGE = 1 << 18
"""Bytes of a message with the ids of its objects, 70 each; any other answer is a few bytes."""
LARGEST_WORD = 1 << 12
RUN_ENDED = 2007
"""Flower's code for what belongs to a run that is over."""
ANY_SESSION = ""
"""In place of a session: whichever waits for the object that is pushed."""


class FleetApi:
    """The Fleet API for one thread; `node_id` is 0 until the coordinator has given it one."""

    def __init__(self, transport: Transport, node_id: int = 0) -> None:
        self.transport = transport
        self.node_id = node_id

    def another(self) -> FleetApi:
        """Return one for another thread, with a connection of its own."""
        return FleetApi(self.transport.another(), self.node_id)

    def register(self) -> None:
        """Make this node's key known, where the coordinator lets nodes do that themselves."""
        self._call("register-node", "RegisterNodeFleet", {"public_key": self._public_key})

    def unregister(self) -> None:
        """Take this node's key back, where the coordinator lets nodes do that themselves."""
        self._call("unregister-node", "UnregisterNodeFleet", {"node_id": self.node_id})

    def activate(self, interval: float) -> None:
        """Come online, and learn this node's id: FleetError for a key that nobody enrolled.

        The coordinator refuses it while it thinks the node online, which it does for twice
        `interval` seconds after a heartbeat. Who knows the id needs no more than a heartbeat.
        """
        fields = {"public_key": self._public_key, "heartbeat_interval": interval}
        self.node_id = self._call("activate-node", "ActivateNode", fields)["node_id"]

    def deactivate(self) -> None:
        """Go offline; what was sent to this node and not answered is then taken for lost."""
        self._call("deactivate-node", "DeactivateNode", {"node_id": self.node_id})

    def heartbeat(self, interval: float) -> bool:
        """Be online for twice `interval` seconds more; False when the node is not known."""
        fields = self._node | {"heartbeat_interval": interval}
        return bool(self._call("send-node-heartbeat", "SendNodeHeartbeat", fields)["success"])

    def pull_message(self, hold: Hold | None = None) -> Instruction | None:
        """Return what is asked of this node, or None; a coordinator that can may use `hold`.

        The coordinator gives an instruction once: who does not keep it safe has lost it.
        """
        answer = self._call("pull-messages", "PullMessages", self._node, LARGEST_MESSAGE, hold)
        messages, trees = answer["messages_list"], answer["message_object_trees"]
        if not messages:
            return None
        if len(messages) != 1 or len(trees) != 1:
            raise PayloadError(f"{len(messages)} messages came with {len(trees)} trees, not one")
        return Instruction.from_wire(messages[0], trees[0], self.node_id)

    def pull_object(self, run_id: int, object_id: str) -> memoryview | None:
        """Return an object's content, or None while it is still on its way to the coordinator.

        The content is not yet to be believed. Raises PayloadError for one that nobody knows.
        """
        fields = self._node | {"run_id": run_id, "object_id": object_id}
        answer = self._call("pull-object", "PullObject", fields, LARGEST_CHUNK)
        if not answer["object_found"]:
            raise PayloadError(f"the coordinator has no object {object_id[:16]}...")
        content: memoryview = answer["object_content"]
        return content if answer["object_available"] else None

    def push_message(self, reply: Reply, seconds: float) -> tuple[str, list[str]]:
        """Announce a reply that took `seconds`: return a session, and the objects to push in it.

        There are none if all have been pushed, and none if nobody waits for the reply any more.
        """
        fields = self._node | {
            "messages_list": [reply.message],
            "message_object_trees": [reply.root.tree],
            "clientapp_runtime_list": [seconds],
        }
        answer = self._call("push-messages", "PushMessages", fields, LARGEST_MESSAGE)
        return answer["session_id"], answer["objects_to_push"]

    def push_object(self, run_id: int, session: str, piece: FlowerObject) -> bool:
        """Push an object in a session; False where it is not waited for, or not any more."""
        fields = self._node | {
            "run_id": run_id,
            "object_id": piece.object_id,
            "object_content": piece.content,
            "session_id": session,
        }
        return bool(self._call("push-object", "PushObject", fields)["stored"])

    def confirm(self, instruction: Instruction) -> None:
        """Say that an instruction is done with; its objects are then deleted."""
        fields = self._node | {
            "run_id": instruction.run_id,
            "message_object_id": instruction.message_id,
        }
        self._call("confirm-message-received", "ConfirmMessageReceived", fields)

    @property
    def _node(self) -> Fields:
        return {"node": {"node_id": self.node_id}}

    @property
    def _public_key(self) -> bytes:
        return self.transport.key.public_pem

    def _call(
        self,
        route: str,
        name: str,
        fields: Fields,
        limit: int = LARGEST_WORD,
        hold: Hold | None = None,
    ) -> Fields:
        request = encode(f"{name}Request", fields)
        body = self.transport.post(f"/v1/fleet/{route}", request, limit, hold)
        return decode(f"{name}Response", body)
