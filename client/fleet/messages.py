"""The two kinds of Flower message: the instruction that a device pulls and the reply it pushes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

from edgetrain.client.fleet.objects import FlowerObject, is_id, make_object
from edgetrain.client.fleet.wire import Fields, encode
from edgetrain.errors import PayloadError
from edgetrain.fields import Rule, check_fields, choice, real, text, whole

__all__ = ["Instruction", "Reply", "make_reply"]

LARGEST = (1 << 64) - 1
LONGEST_GROUP = 256
LATEST = 1e12
LONGEST_LIFE = 1e9


def object_id(name: str, value: Any) -> Any:
    """Accept the id of an object; a rule like those of edgetrain.fields."""
    if not isinstance(value, str) or not is_id(value):
        raise PayloadError(f"{name} is not a SHA-256 in hexadecimal digits")
    return value


@dataclass(frozen=True)
class Instruction:
    """What a device is asked.

    Attributes:
        run_id, message_id, src_node_id, group_id: which run asks, by which message, for whom.
        message_type: "train", "evaluate" or "query".
        created_at, ttl: seconds, since 1970 and after that, by the coordinator's clock.
        content_id: the RecordDict that says what exactly.
    """

    run_id: int
    message_id: str
    src_node_id: int
    group_id: str
    message_type: str
    created_at: float
    ttl: float
    content_id: str

    RULES: ClassVar[Mapping[str, Rule]] = {
        "run_id": whole(0, LARGEST),
        "message_id": object_id,
        "src_node_id": whole(0, LARGEST),
        "group_id": text(LONGEST_GROUP, empty=True),
        "message_type": choice("train", "evaluate", "query"),
        "created_at": real(0, LATEST),
        "ttl": real(0, LONGEST_LIFE),
        "content_id": object_id,
    }

    @property
    def expires_at(self) -> float:
        """The moment after which nobody waits for a reply, in seconds since 1970."""
        return self.created_at + self.ttl

    def to_fields(self) -> Fields:
        """Return the instruction as JSON holds it."""
        return asdict(self)

    @classmethod
    def from_fields(cls, fields: object) -> Instruction:
        """Return what to_fields gave. Raises PayloadError for anything else."""
        return cls(**check_fields(fields, cls.RULES, "instruction"))

    @classmethod
    def from_wire(cls, message: Fields, tree: Fields, node_id: int) -> Instruction:
        """Return the instruction in a Message and its ObjectTree, as they were decoded.

        Raises PayloadError when it is not one, or not for the node `node_id`.
        """
        metadata = message["metadata"] or {}
        if metadata.get("dst_node_id") != node_id:
            raise PayloadError("instruction: it is for another node")
        if tree["object_id"] != metadata["message_id"] or len(tree["children"]) != 1:
            raise PayloadError("instruction: its objects are not those of a message with content")
        own = {name: metadata[name] for name in cls.RULES if name in metadata}
        return cls.from_fields({**own, "content_id": tree["children"][0]["object_id"]})


@dataclass(frozen=True)
class Reply:
    """An answer, ready to push: its Message and the object whose tree is all of it."""

    message: Fields
    root: FlowerObject


def make_reply(
    instruction: Instruction,
    node_id: int,
    created_at: float,
    content: FlowerObject | None,
    error: tuple[int, str] | None = None,
) -> Reply:
    """Return the reply of a node to an instruction: a RecordDict, or an error's code and reason.

    The same arguments make the same reply, by the same id, so that Flower takes a second push of
    it for the first. `created_at` is by the coordinator's clock.
    """
    metadata = {
        "run_id": instruction.run_id,
        "src_node_id": node_id,
        "dst_node_id": instruction.src_node_id,
        "reply_to_message_id": instruction.message_id,
        "group_id": instruction.group_id,
        "ttl": instruction.expires_at - created_at,
        "message_type": instruction.message_type,
        "created_at": created_at,
    }
    message: Fields = {"metadata": metadata}
    if error is not None:
        message["error"] = {"code": error[0], "reason": error[1]}
    # The id is the hash of a message that has neither its id nor its content yet.
    root = make_object("Message", encode("Message", message), (content,) if content else ())
    metadata["message_id"] = root.object_id
    if content is not None:
        message["content"] = {}
    return Reply(message, root)
