"""A coordinator in a process of its own that is killed at a line of its code, and its devices.

What a device sends is a function of its name and of the version that it was sent, as it is of real
ones; so a test can say what every report must be.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import numpy as np
from flwr.app import Message
from stand_in_fleet import devices, evaluate, run

import edgetrain.storage
import edgetrain.tensorfile
from edgetrain.client.flower_record import report_to_record
from edgetrain.config import FleetConfig
from edgetrain.coordinator import (
    accounts,
    aggregate,
    checkpoint,
    dispatch,
    gathering,
    journal,
    loop,
)
from edgetrain.coordinator.checkpoint import CheckpointFolder
from edgetrain.keys import derive_key
from edgetrain.model import Model
from edgetrain.task import Report, Task
from edgetrain.tensorfile import State, Tensor
from edgetrain.update import update_schema

ALL_VERSIONS = 1_000_000
WATCHED = {
    module.__file__
    for module in (
        *(accounts, aggregate, checkpoint, dispatch, gathering, journal, loop),
        *(edgetrain.storage, edgetrain.tensorfile),
    )
}
"""The files in whose lines the process is killed."""


def update_of(device: str, version: int, model: Model, mode: str, codec: str) -> State:
    """Return what a device sends about a version: random, and always the same."""
    draw = np.random.default_rng(derive_key("stand-in", device, version))
    update: State = {}
    for name, (dtype, shape) in update_schema(model, mode, codec).items():
        if dtype == "F32":
            raw = np.abs(draw.normal(0, 30, shape)).astype("<f4").tobytes()
        elif dtype == "U32":
            raw = draw.integers(0, 255, shape).astype("<u4").tobytes()
        elif dtype == "I8":
            raw = draw.integers(-127, 128, shape).astype("i1").tobytes()
        else:
            raw = draw.integers(0, 256, shape).astype("u1").tobytes()
        update[name] = Tensor(dtype, shape, raw)
    return update


def train(message: Message, task: Task) -> Message:
    """Answer a training task with the device's own update, any other as a judge does."""
    if task.kind == "evaluate":
        return evaluate(message, task, 9)
    seed = derive_key("examples", task.device, task.version)
    report = Report(
        "trained", task.version, task.device, examples=1 + seed % 50, loss=(seed % 97) / 7,
        accuracy=0.5,
        update=update_of(task.device, task.version, task.model, task.mode, task.codec),
    )  # fmt: skip
    return Message(report_to_record(report), reply_to=message)


def live(config: FleetConfig, folder: Path, acknowledged: Path, kill_at: int) -> None:
    """Run a fleet, and be killed at a line; 0 is never.

    The name of every report that was counted is added to the file `acknowledged`.
    """
    descriptor = os.open(acknowledged, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def note(event: loop.Event) -> None:
        if isinstance(event, loop.TaskAnswered) and event.answer.status == "trained":
            assert event.answer.report is not None
            line = f"{event.answer.report.device} {event.answer.report.version}\n"
            os.write(descriptor, line.encode())

    if kill_at:
        sys.settrace(killer(kill_at))
    members = devices(config)
    run(
        config,
        {member.name: train for member in members},
        checkpoints=CheckpointFolder(folder, kept=ALL_VERSIONS),
        notify=note,
    )


def killer(kill_at: int) -> Callable[[FrameType, str, Any], Any]:
    """Return a trace function that kills the process at the so manieth line of WATCHED files."""
    left = kill_at

    def at_line(_: FrameType, event: str, __: Any) -> Any:
        nonlocal left
        left -= event == "line"
        if left <= 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return at_line

    def at_call(frame: FrameType, _: str, __: Any) -> Any:
        code: CodeType = frame.f_code
        return at_line if code.co_filename in WATCHED else None

    return at_call
