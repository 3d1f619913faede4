"""Enforced: how a command ended inside its limits, and what it used."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from edgetrain.memory_profiler.enforce.limits import Belt

__all__ = ["CAUSES", "Cause", "Enforced", "Enforcement", "Network"]

Cause = Literal[
    "finished", "memory_data", "memory_soft", "memory_hard", "seconds", "energy", "killed"
]
CAUSES: dict[Cause, str] = {
    "finished": "it ended by itself",
    "memory_data": "it was refused private memory, and said so itself",
    "memory_soft": "its resident memory passed the limit",
    "memory_hard": "the kernel killed it for want of memory",
    "seconds": "its time was up",
    "energy": "its joules were used up",
    "killed": "a signal that came from elsewhere ended it",
}
Enforcement = Literal["hard", "soft"]
Network = Literal["none", "open"]


@dataclass(frozen=True)
class Enforced:
    """How a command ended inside its limits.

    Attributes:
        code: its exit code; below zero it is that of the signal which ended it.
        cause: why it ended, a key of CAUSES.
        forced: whether it had to be killed after it was asked to stop.
        seconds: from its start to its end.
        rss_peak: bytes, the most that was resident: VmHWM of the command, or of it with all that
            it had started at one look; as of the last look, which was at most PERIOD_SECONDS
            before the end, and None if it ended before the first.
        cgroup_peak: bytes, the most ever charged to its control group, or None if nobody counted.
        belts: what held it to its limits.
        no_group: why there was no control group, where there was to be one; else empty.
        no_filter: why it could use the network, where it was not to; else empty.
        words: the end of what it wrote to stderr, where that was kept.
    """

    code: int
    cause: Cause
    forced: bool
    seconds: float
    rss_peak: int | None
    cgroup_peak: int | None
    belts: tuple[Belt, ...]
    no_group: str = ""
    no_filter: str = ""
    words: str = ""

    @property
    def enforcement(self) -> Enforcement:
        """Whether the kernel itself stood guard, or a watch that a quick command can outrun."""
        return "hard" if "group" in self.belts else "soft"

    @property
    def network(self) -> Network:
        """Whether it had no network, or as much of one as whoever started it."""
        return "none" if "network" in self.belts else "open"
