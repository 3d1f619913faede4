"""What a device says: to a task a report, to the question who it is an introduction."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edgetrain.client.job import Workplace
from edgetrain.client.node_settings import NodeSettings
from edgetrain.client.records import check_hello
from edgetrain.client.run import run_task
from edgetrain.data import store
from edgetrain.errors import PayloadError
from edgetrain.task import Report, Task

__all__ = ["introduction", "work"]


def work(task: Task, kind: str, node: NodeSettings, workplace: Workplace | None = None) -> Report:
    """Return the report of a task that came with a message of type `kind`.

    `workplace` is run_task's. Raises PayloadError for a task that is not this device's to do.
    """
    if task.kind != kind:
        raise PayloadError(f"a task to {task.kind} came to {kind}")
    if task.device != node.device:
        raise PayloadError(f"this is {node.device!r}, and the task is for {task.device!r}")
    return run_task(
        task,
        node.dataset,
        node.budget,
        node.machine,
        workplace=workplace,
        simulated=node.clock == "virtual",
        ledger=None if node.ledger is None else Path(node.ledger),
        ledger_key=None if node.ledger_key is None else Path(node.ledger_key),
        policy=node.policy,
    )


def introduction(node: NodeSettings) -> dict[str, Any]:
    """Return who a device is and what its data look like; see records.check_hello.

    Raises DataError when its data file cannot be used.
    """
    examples = features = classes = 0
    if node.dataset is not None:
        with store.open(node.dataset) as data:
            examples, features, classes = data.examples, data.feature_count, data.classes
    return check_hello(
        {
            "name": node.device,
            "device_class": node.device_class,
            "role": node.role,
            "examples": examples,
            "features": features,
            "classes": classes,
            "memory": node.memory,
        }
    )
