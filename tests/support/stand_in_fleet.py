"""A fleet of modelled devices whose training is a stand-in: every latent moves a step up."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from flwr.app import Context, Message

from edgetrain.client.flower_record import hello_to_record, record_to_task, report_to_record
from edgetrain.config import DeviceConfig, FleetConfig
from edgetrain.coordinator.checkpoint import CheckpointFolder
from edgetrain.coordinator.directions import Directions
from edgetrain.coordinator.global_model import GlobalModel
from edgetrain.coordinator.loop import Event, Loop
from edgetrain.coordinator.simulation.devices import SimulatedDevice
from edgetrain.coordinator.simulation.virtual_grid import VirtualGrid
from edgetrain.task import Report, Task
from edgetrain.tensorfile import Tensor

FEATURES, CLASSES = 6, 3
Behaviour = Callable[[Message, Task], Message]


def fleet(**training: Any) -> FleetConfig:
    """Return a fleet of three devices that train and two that judge."""
    return FleetConfig.from_table(
        {
            "data": {"path": "nowhere"},
            "model": {"hidden": [8]},
            "training": {"rounds": 3, "codec": "raw8", **training},
            "device": [
                {"name": "pi", "memory": "64MiB", "count": 3, "examples_per_second": 100},
                {"name": "judge", "memory": "64MiB", "count": 2, "role": "evaluate"},
            ],
        }
    )


def devices(config: FleetConfig, **changes: Any) -> list[SimulatedDevice]:
    """Return the fleet's devices, which hold 10, 20, 30, ... examples that nobody reads."""
    found: list[SimulatedDevice] = []
    for settings in config.devices:
        for number in range(settings.count or 0):
            changed = replace(settings, **changes.get(f"{settings.name}_{number}", {}))
            found.append(device(f"{settings.name}-{number}", len(found), changed))
    return found


def device(name: str, index: int, settings: DeviceConfig) -> SimulatedDevice:
    """Return one device."""
    return SimulatedDevice(
        name, 100 + index, settings.role, settings, Path("nowhere"), 10 * (index + 1)
    )


def stepped(task: Task) -> dict[str, Tensor]:
    """Return the task's state with every latent a step up, as far as it goes."""
    state = dict(task.state)
    for name in [name for name in state if name.endswith(".latent")]:
        values = np.frombuffer(state[name].data, np.int8).astype(int) + 1
        state[name] = Tensor("I8", state[name].shape, values.clip(-127, 127).astype("i1").tobytes())
    return state


def train(message: Message, task: Task, examples: int) -> Message:
    """Answer as a device that moved every latent a step up."""
    report = Report(
        "trained", task.version, task.device, examples=examples, loss=1.0, accuracy=0.5,
        measured_peak_bytes=5, predicted_peak_bytes=6, joules=2.0, energy_source="modelled",
        update=stepped(task),
    )  # fmt: skip
    return Message(report_to_record(report), reply_to=message)


def evaluate(message: Message, task: Task, examples: int) -> Message:
    """Answer as a device that gets half of its examples right."""
    report = Report(
        "evaluated", task.version, task.device, examples=examples, loss=0.7, accuracy=0.5
    )
    return Message(report_to_record(report), reply_to=message)


def client(
    members: Iterable[SimulatedDevice], odd: dict[str, Behaviour] | None = None
) -> Callable[[Message, Context], Message]:
    """Return a client app; the devices in `odd` answer tasks in their own way."""
    held = {member.name: member for member in members}

    def app(message: Message, context: Context) -> Message:
        member = held[str(context.node_config["device"])]
        if message.metadata.message_type == "query":
            fields = {
                "name": member.name, "device_class": member.settings.name, "role": member.role,
                "examples": member.examples, "features": FEATURES, "classes": CLASSES,
                "memory": member.settings.memory,
            }  # fmt: skip
            return Message(hello_to_record(fields), reply_to=message)
        task = record_to_task(message.content)
        if odd and member.name in odd:
            return odd[member.name](message, task)
        work = train if task.kind == "train" else evaluate
        return work(message, task, member.examples)

    return app


def run(
    config: FleetConfig,
    odd: dict[str, Behaviour] | None = None,
    *,
    checkpoints: CheckpointFolder | None = None,
    notify: Callable[[Event], None] | None = None,
    directions: Callable[[], Directions] = Directions,
    workers: int = 2,
    **changes: Any,
) -> tuple[Loop, GlobalModel]:
    """Run a fleet to its end."""
    members = devices(config, **changes)
    with VirtualGrid(client(members, odd), members, workers=workers) as grid:
        loop = Loop(
            grid, config, clock=grid.clock, checkpoints=checkpoints, notify=notify,
            directions=directions,
        )  # fmt: skip
        return loop, loop.run()
