"""What a worker is told, by whoever starts it: one job, as JSON text.

It lies apart from the worker, so that who starts one need not load the engine.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import ClassVar

from edgetrain.fields import Rule, check_fields, flag, text, whole
from edgetrain.tensorfile import parse_json

__all__ = ["PROBE", "SERVE", "Job", "debug_wanted"]

PROBE = "--probe"
SERVE = "--serve"
DEBUG_VARIABLE = "EDGETRAIN_DEBUG"
MAX_PATH = 4096


@dataclass(frozen=True)
class Job:
    """What one worker is told: where its files lie, and the plan that was chosen for it.

    Attributes:
        task, data, report: paths of the encoded Task, of the `.etd` file, and of the report to
            write.
        micro_batch, threads, recompute: the plan's choices; recompute says that it makes what
            decides the peak more than once.
        durable: whether to wait until the disk holds the report.
    """

    task: str
    data: str
    report: str
    micro_batch: int
    threads: int = 1
    recompute: bool = False
    durable: bool = True

    RULES: ClassVar[Mapping[str, Rule]] = {
        "task": text(MAX_PATH),
        "data": text(MAX_PATH),
        "report": text(MAX_PATH),
        "micro_batch": whole(1, 1 << 20),
        "threads": whole(1, 1024),
        "recompute": flag,
        "durable": flag,
    }

    def to_json(self) -> str:
        """Return the job as JSON text."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Job:
        """Return the job that JSON text describes. Raises PayloadError naming what is wrong."""
        return cls(**check_fields(parse_json(text), cls.RULES, "job"))


def debug_wanted() -> bool:
    """Say whether tracebacks are wanted."""
    return os.environ.get(DEBUG_VARIABLE, "") not in ("", "0")
