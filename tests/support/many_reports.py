"""A coordinator and devices that answer at once: what its process holds while reports come in.

    python many_reports.py DEVICES ROUNDS    prints [[reports, bytes of memory], ...] as JSON

Nothing but the coordinator is there: a device's answer is made when it is pulled.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from pathlib import Path

from flwr.app import Message, RecordDict
from flwr.proto.node_pb2 import NodeInfo
from flwr.serverapp import Grid
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity

from edgetrain.client.flower_record import hello_to_record, record_to_task, report_to_record
from edgetrain.config import FleetConfig
from edgetrain.coordinator.loop import Event, Loop, TaskAnswered
from edgetrain.task import Report, Task
from edgetrain.tensorfile import State
from edgetrain.update import encode_update, trained_part

FEATURES, CLASSES, HIDDEN = 200, 4, 64
SAMPLES = 20
"""How many times the process's memory is read."""


class PromptGrid(Grid):
    """A Grid whose devices have always answered already."""

    def __init__(self, devices: int) -> None:
        TaskIdentity.task_id = TaskIdentity.run_id = TaskIdentity.node_id = 1
        self.devices = devices
        self._asked: dict[str, tuple[Message, int]] = {}
        self._count = 0
        self._update: State = {}

    def set_run(self, run: Run) -> None:
        """Belong to no run."""

    @property
    def run(self) -> Run:
        """No run."""
        raise RuntimeError

    def create_message(self, *_: object, **__: object) -> Message:
        """Make no message: its constructor does."""
        raise NotImplementedError

    def send_and_receive(self, *_: object, **__: object) -> Iterable[Message]:
        """Never be used."""
        raise NotImplementedError

    def get_node_ids(self) -> Iterable[int]:
        """Return a number a device."""
        return range(1, self.devices + 1)

    def get_nodes(self) -> Iterable[NodeInfo]:
        """Tell nothing about the nodes."""
        return []

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Remember who was asked, and forget what."""
        found = []
        for message in messages:
            self._count += 1
            asked, version = message.metadata, -1
            if asked.message_type == "train":
                version = int(str(message.content.config_records["about"]["version"]))
                self._update = self._update or idle_update(record_to_task(message.content))
            short = Message(RecordDict(), asked.dst_node_id, asked.message_type, group_id="g")
            identity = str(self._count)
            short.metadata.__dict__["_message_id"] = identity
            self._asked[identity] = (short, version)
            found.append(identity)
        return found

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Answer every message."""
        return [self._answer(*self._asked.pop(identity)) for identity in message_ids]

    def _answer(self, asked: Message, version: int) -> Message:
        name = f"device-{asked.metadata.dst_node_id}"
        if version < 0:
            fields = {
                "name": name, "device_class": "pi", "role": "train", "examples": 9,
                "features": FEATURES, "classes": CLASSES, "memory": None,
            }  # fmt: skip
            return Message(hello_to_record(fields), reply_to=asked)
        report = Report(
            "trained", version, name, examples=9, loss=1.0, accuracy=0.5, update=self._update
        )
        return Message(report_to_record(report), reply_to=asked)


def idle_update(task: Task) -> State:
    """Return the update of a device that has moved nothing."""
    state = trained_part(task.state, task.model, task.mode)
    return encode_update(state, state, task.codec, key=0)


def resident_bytes() -> int:
    """Return the memory of this process that is in use."""
    lines = Path("/proc/self/status").read_text().splitlines()
    (line,) = [line for line in lines if line.startswith("VmRSS")]
    return int(line.split()[1]) * 1024


def main(devices: int, rounds: int) -> None:
    """Run a fleet and print what its coordinator held."""
    fleet = FleetConfig.from_table(
        {
            "data": {"path": "nowhere"},
            "model": {"hidden": [HIDDEN]},
            "training": {"rounds": rounds},
            "device": [{"name": "pi", "memory": "64MiB", "count": devices}],
        }
    )
    held: list[tuple[int, int]] = []
    reports = 0

    def note(event: Event) -> None:
        nonlocal reports
        reports += isinstance(event, TaskAnswered) and event.answer.status == "trained"
        if reports % (devices * rounds // SAMPLES) == 0:
            held.append((reports, resident_bytes()))

    Loop(PromptGrid(devices), fleet, notify=note).run()
    print(json.dumps(held))


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
