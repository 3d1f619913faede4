"""What a worker has done of a training, kept on the disk so that its successor goes on from there.

A successor ends at the very bits at which one worker alone would have ended: what is kept is all
that a trainer goes on from, between two micro-batches. A file that is damaged, or of another task
or plan, is as good as none.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from pathlib import Path

from edgetrain.checkpoint import plan_fields, read_checkpoint, trainer_fields
from edgetrain.errors import DataError, PayloadError, StorageError
from edgetrain.planner import Plan
from edgetrain.task import Task
from edgetrain.train import STREAMS, Trainer, restored

__all__ = ["keeping", "kept"]

MOST_OF_THE_TIME = 0.02
"""Share of it that may go into keeping."""


def kept(path: Path, task: Task, chosen: Plan, stream: int) -> Trainer | None:
    """Return the trainer that a predecessor left at this task, with this plan and stream, or None.

    What the file claims is compared before an arena is made of it.
    """
    expected = plan_fields(chosen) | {
        "seed": task.seed,
        "stream": stream & STREAMS,
        "learning_rate": task.learning_rate,
    }
    # The same bits come of any number.
    del expected["threads"]
    try:
        tensors, metadata = read_checkpoint(path)
        fields = trainer_fields(path, metadata)
        if metadata.get("model") != task.model.to_json() or fields["epochs"] >= task.local_epochs:
            return None
        if any(fields[name] != value for name, value in expected.items()):
            return None
        return restored(path, tensors, metadata, threads=chosen.threads)
    except (DataError, PayloadError):
        return None


def keeping(
    trainer: Trainer, path: Path, seconds: float, should_stop: Callable[[], bool]
) -> Callable[[], bool]:
    """Return what says whether to stop, asked between micro-batches, and now and then keeps them.

    That is every so many seconds, or less often where it takes long. A disk that is full keeps
    nobody from training.
    """
    due = time.monotonic() + seconds

    def stop() -> bool:
        nonlocal due
        begun = time.monotonic()
        if begun >= due:
            with contextlib.suppress(StorageError):
                trainer.save(path)
            ended = time.monotonic()
            due = ended + max(seconds, (ended - begun) / MOST_OF_THE_TIME)
        return should_stop()

    return stop
