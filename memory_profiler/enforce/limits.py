"""What a command may use before it is stopped, and which belts hold it to that."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from edgetrain.errors import ConfigError
from edgetrain.sizes import format_size

__all__ = ["BELTS", "GRACE_SECONDS", "PERIOD_SECONDS", "Belt", "Limits"]

Belt = Literal["group", "data", "watchdog", "seconds", "energy", "network"]
BELTS: dict[Belt, str] = {
    "group": "a control group whose memory the kernel limits, hard",
    "data": "RLIMIT_DATA: an allocation past it fails, where the command can catch it",
    "watchdog": "resident memory is looked at every 20 ms",
    "seconds": "time since the start",
    "energy": "joules since the start, as a meter counts them",
    "network": "a filter of system calls: no socket can be made, by the command or what it starts",
}

GRACE_SECONDS = 2.0
"""From the request to stop to the end of the process: time for one micro-batch and the report."""
PERIOD_SECONDS = 0.02
"""Between two looks: a process that grows as fast as it can gains up to 26 MiB meanwhile."""
EARLY_SECONDS = 0.001
"""The same when the process has just begun; from there it doubles."""
HASTY_SECONDS = 0.005
"""The same where the limit is near, or the process has been asked to stop."""
OVERSHOOT = 8 << 20
"""Bytes past the limit at which a process is not asked any longer, but killed."""
OOM_SCORE_ADJUSTMENT = 500
"""Makes the command the kernel's choice before whoever supervises it (-1000 to 1000)."""


@dataclass(frozen=True)
class Limits:
    """What a command may use. None is no limit.

    Raises ConfigError for a limit that is not positive.

    Attributes:
        memory: bytes, for the watchdog (resident, of the command and what it starts) and for its
            control group (charged).
        data: bytes of private writable memory, as RLIMIT_DATA counts them.
        data_reserve: bytes by which the command may raise that, to tell what it has done.
        seconds: since the start.
        energy: joules since the start.
        network: "none" for no network.
        grace: seconds from the request to stop (SIGTERM) to the end (SIGKILL).
        belts: those that may be used; one without its limit is not.
    """

    memory: int | None = None
    data: int | None = None
    data_reserve: int = 0
    seconds: float | None = None
    energy: float | None = None
    network: Literal["none"] | None = None
    grace: float = GRACE_SECONDS
    belts: frozenset[Belt] = frozenset(BELTS)

    def __post_init__(self) -> None:
        for name in ("memory", "data", "seconds", "energy"):
            limit = getattr(self, name)
            if limit is not None and not (math.isfinite(limit) and limit > 0):
                raise ConfigError(f"a limit of {limit} {name} allows nothing: give more than 0")
        if self.data_reserve < 0:
            raise ConfigError(f"a reserve of {self.data_reserve} bytes: give 0 or more")
        if self.belts - BELTS.keys():
            raise ConfigError(
                f"{', '.join(sorted(self.belts - BELTS.keys()))}: belts are {', '.join(BELTS)}"
            )

    def wants(self, belt: Belt) -> bool:
        """Say whether a belt may be used and has a limit to hold."""
        limits = {"group": "memory", "watchdog": "memory"}
        return belt in self.belts and getattr(self, limits.get(belt, belt)) is not None

    def describe(self) -> str:
        """Return the limits as one phrase, e.g. "48.0 MiB, 60 s"."""
        told = [
            None if self.memory is None else format_size(self.memory),
            None if self.seconds is None else f"{self.seconds:g} s",
            None if self.energy is None else f"{self.energy:g} J",
            None if self.network is None else "no network",
        ]
        return ", ".join(part for part in told if part) or "no limit"
