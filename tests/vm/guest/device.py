"""A device's daemon in small: does tasks, each in the way it is told, and keeps a ledger.

    python3 device.py FOLDER WAY...

A way is `well`, or how the worker misbehaves: `overgrown` takes twice the memory it may, `murder`
kills the daemon that has started it. Whoever is restarted goes on behind the tasks it had begun.
What became of them, and what the kernel counted, is in FOLDER/told.json.
"""

from __future__ import annotations

import json
import os
import random
import sys
from pathlib import Path

from edgetrain import models
from edgetrain.client import processes
from edgetrain.client.run import run_task
from edgetrain.data import store
from edgetrain.memory_profiler.budget import Budget
from edgetrain.memory_profiler.ledger import read
from edgetrain.memory_profiler.ledger_line import Intent
from edgetrain.planner import plan
from edgetrain.task import Task
from edgetrain.train import Trainer

MEMORY = 48 << 20
FEATURES, CLASSES, EXAMPLES, BATCH = 16, 4, 256, 64
MODEL = models.mlp(inputs=FEATURES, classes=CLASSES, hidden=(64,))
GROW = Path(__file__).with_name("grow.py")


MURDER = "import os, signal; os.kill(os.getppid(), signal.SIGKILL); signal.pause()"


def overgrown(*_: str) -> list[str]:
    """Stand in for the worker's command."""
    return [sys.executable, str(GROW), str(2 * MEMORY)]


def murder(*_: str) -> list[str]:
    """Stand in for the worker's command."""
    return [sys.executable, "-c", MURDER]


WAYS = {"well": processes.worker_command, "overgrown": overgrown, "murder": murder}


def recorded(path: Path) -> Path:
    """Return the device's data."""
    generator = random.Random(0)
    labels = bytes(generator.randrange(CLASSES) for _ in range(EXAMPLES))
    store.write(path, generator.randbytes(EXAMPLES * FEATURES), labels, CLASSES, (FEATURES,))
    return path


def a_task(version: int) -> Task:
    """Return a task of the device's model."""
    return Task(
        kind="train",
        version=version,
        device="device",
        model=MODEL,
        mode="bnn",
        batch=BATCH,
        local_epochs=1,
        learning_rate=0.04,
        codec="luq4",
        seed=5,
        deadline=None,
        state=Trainer(plan(MODEL, BATCH), seed=5).state(),
    )


def counters(group: Path, name: str) -> dict[str, int]:
    """Return the numbers of a group's events by their names."""
    lines = (line.split() for line in (group / name).read_text().splitlines())
    return {key: int(count) for key, count in lines}


def begun(ledger: Path) -> int:
    """Return how many tasks a ledger says were begun."""
    if not ledger.exists():
        return 0
    return sum(isinstance(line.entry, Intent) for line in read(ledger))


def main(folder: Path, ways: list[str]) -> None:
    """Do the tasks that are left, and write how they went."""
    data, ledger = recorded(folder / "data.etd"), folder / "ledger"
    reports = []
    for version in range(begun(ledger), len(ways)):
        processes.worker_command = WAYS[ways[version]]
        task, budget = a_task(version), Budget(memory=MEMORY)
        report = run_task(task, data, budget, ledger=ledger)
        reports.append({"status": report.status, "reason": report.reason})
    path = Path("/proc/self/cgroup").read_text().strip().removeprefix("0::/")
    own = Path("/sys/fs/cgroup") / path
    told = {
        "user": os.getuid(),
        "reports": reports,
        "own": counters(own, "memory.events"),
        "unit": counters(own.parent, "memory.events"),
        "groups": sorted(path.name for path in own.parent.iterdir() if path.is_dir()),
    }
    (folder / "told.json").write_text(json.dumps(told))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
