"""A class of device as the profiler sees it: what it allows, how fast it is, what it draws."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from edgetrain.errors import ConfigError
from edgetrain.memory_profiler.energy.law import EnergyFit

__all__ = ["Device"]


@dataclass(frozen=True)
class Device:
    """One device, or one class of equal devices.

    None always means unknown (or, for `memory`, unlimited); nothing here defaults to 0. Rates are
    those of the device with all of its `threads` at work. Raises ConfigError for a figure that
    no device can have.

    Attributes:
        name: how reports call it.
        memory: bytes that a training process may occupy.
        operations_per_second: int operations of a plan's arithmetic done in a second; preferred
            to `examples_per_second` where both are known, because it holds for every model.
        examples_per_second: examples trained on in a second, for the model at hand.
        watts: power that the whole device draws while it trains.
        threads: processor cores that training may use.
        base_bytes: peak memory of the worker process before it has done anything; None means
            that it is to be probed on this machine.
        source: where speed and power come from: "modelled" (somebody wrote them down),
            "calibrated" or "measured". Every estimate carries it along.
        fit: what a calibration of this machine found; preferred to `watts`, because it tells
            operations and bytes apart from time.
    """

    name: str = "this machine"
    memory: int | None = None
    operations_per_second: float | None = None
    examples_per_second: float | None = None
    watts: float | None = None
    threads: int = 1
    base_bytes: int | None = None
    source: str = "modelled"
    fit: EnergyFit | None = None

    SOURCES: ClassVar[tuple[str, ...]] = ("modelled", "calibrated", "measured")

    def __post_init__(self) -> None:
        for name, value in (
            ("memory", self.memory),
            ("operations_per_second", self.operations_per_second),
            ("examples_per_second", self.examples_per_second),
            ("watts", self.watts),
            ("threads", self.threads),
            ("base_bytes", self.base_bytes),
        ):
            if value is not None and not (math.isfinite(value) and value > 0):
                raise ConfigError(f"device {self.name!r}: {name} is {value}: give more than 0")
        if self.source not in self.SOURCES:
            raise ConfigError(
                f"device {self.name!r}: source {self.source!r} is none of {', '.join(self.SOURCES)}"
            )

    @property
    def knows_power(self) -> bool:
        """Whether energy can be told of some time and work."""
        return self.fit is not None or self.watts is not None

    @property
    def energy_source(self) -> str:
        """Where energies come from: one of SOURCES. A simulated calibration proves nothing."""
        if self.fit is None:
            return self.source
        return "modelled" if self.fit.simulated else "calibrated"
