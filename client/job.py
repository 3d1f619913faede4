"""What a worker is told, by whoever starts it: one job, as JSON text.

It lies apart from the worker, so that who starts one need not load the engine.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import ClassVar

from edgetrain.fields import Rule, check_fields, flag, maybe, real, text, whole
from edgetrain.tensorfile import parse_json

__all__ = ["CHECKPOINT_SECONDS", "PROBE", "SERVE", "Job", "Workplace", "debug_wanted"]

PROBE = "--probe"
SERVE = "--serve"
DEBUG_VARIABLE = "EDGETRAIN_DEBUG"
MAX_PATH = 4096
MAX_SECONDS = 1e9
CHECKPOINT_SECONDS = 300.0
"""So much work may be lost to a kill. BinaryNet's 14 MB are 4 GB a day then, which flash bears."""


@dataclass(frozen=True)
class Job:
    """What one worker is told: where its files lie, and the plan that was chosen for it.

    Attributes:
        task, data, report: paths of the encoded Task, of the `.etd` file, and of the report to
            write.
        micro_batch, threads, recompute: the plan's choices; recompute says that it makes what
            decides the peak more than once.
        durable: whether to wait until the disk holds the report.
        checkpoint, checkpoint_seconds: those of a Workplace.
    """

    task: str
    data: str
    report: str
    micro_batch: int
    threads: int = 1
    recompute: bool = False
    durable: bool = True
    checkpoint: str | None = None
    checkpoint_seconds: float = CHECKPOINT_SECONDS

    RULES: ClassVar[Mapping[str, Rule]] = {
        "task": text(MAX_PATH),
        "data": text(MAX_PATH),
        "report": text(MAX_PATH),
        "micro_batch": whole(1, 1 << 20),
        "threads": whole(1, 1024),
        "recompute": flag,
        "durable": flag,
        "checkpoint": maybe(text(MAX_PATH)),
        "checkpoint_seconds": real(0, MAX_SECONDS),
    }

    def to_json(self) -> str:
        """Return the job as JSON text."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Job:
        """Return the job that JSON text describes. Raises PayloadError naming what is wrong."""
        return cls(**check_fields(parse_json(text), cls.RULES, "job"))


@dataclass(frozen=True)
class Workplace:
    """Where the files of a task lie that outlive the process of whoever asks for it.

    Attributes:
        folder: of the report and, unless it is encoded already, of the task; both stay there,
            safely on the disk.
        encoded: a file that holds the task, so that it is neither copied nor read here.
        checkpoint: a file that keeps what has been done of a training, and that it goes on from;
            nothing is kept without it.
        checkpoint_seconds: the least time from one such checkpoint to the next.
    """

    folder: Path
    encoded: Path | None = None
    checkpoint: Path | None = None
    checkpoint_seconds: float = CHECKPOINT_SECONDS


def debug_wanted() -> bool:
    """Say whether tracebacks are wanted."""
    return os.environ.get(DEBUG_VARIABLE, "") not in ("", "0")
