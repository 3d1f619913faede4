"""What an owner allows a round of training to use, and intervals to hold promises against it."""

from __future__ import annotations

import math
from dataclasses import dataclass

from edgetrain.errors import ConfigError
from edgetrain.sizes import format_size

__all__ = ["Budget", "Interval", "format_joules", "format_seconds"]


@dataclass(frozen=True)
class Interval:
    """A quantity known to lie between two bounds, both included.

    Bounds are finite and not negative; a quantity that nobody knows is None, never an Interval
    from 0. Raises ConfigError otherwise.
    """

    low: float
    high: float

    def __post_init__(self) -> None:
        if not (math.isfinite(self.high) and 0 <= self.low <= self.high):
            raise ConfigError(
                f"{self.low} to {self.high} is no interval: give 0 <= low <= high, both finite"
            )

    @property
    def middle(self) -> float:
        """The value half way between the bounds."""
        return self.low + (self.high - self.low) / 2

    def __contains__(self, value: float) -> bool:
        return self.low <= value <= self.high

    def scaled(self, factor: float) -> Interval:
        """Return both bounds times a factor that is not negative."""
        return Interval(self.low * factor, self.high * factor)


@dataclass(frozen=True)
class Budget:
    """What one round of training may use: bytes of memory, joules and seconds.

    None means that the owner set no limit. Raises ConfigError for a limit that is not positive.
    """

    memory: int | None = None
    energy: float | None = None
    seconds: float | None = None

    def __post_init__(self) -> None:
        for name, limit in vars(self).items():
            if limit is not None and not (math.isfinite(limit) and limit > 0):
                raise ConfigError(f"a budget's {name} of {limit} allows nothing: give more than 0")

    @classmethod
    def parse(
        cls,
        memory: str | int | None = None,
        energy: str | float | None = None,
        seconds: str | float | None = None,
    ) -> Budget:
        """Return the budget that people write, e.g. ("48MiB", "20J", "2min").

        Numbers without a unit are bytes, joules and seconds. Raises ConfigError, naming the limit,
        for what is not a quantity.
        """
        # Imported here because a worker, which imports this module, must not pay for it.
        from edgetrain.settings import quantity, size  # noqa: PLC0415

        checks = {"memory": size, "energy": quantity("joules"), "seconds": quantity("seconds")}
        limits = {}
        for name, value in (("memory", memory), ("energy", energy), ("seconds", seconds)):
            try:
                limits[name] = None if value is None else checks[name](value)
            except (ValueError, ConfigError) as error:
                raise ConfigError(f"a budget's {name} is {value!r}: {error}") from None
        return cls(**limits)

    def describe(self) -> str:
        """Return the limits as one phrase, e.g. "48.0 MiB, 20 J"."""
        limits = [
            None if self.memory is None else format_size(self.memory),
            None if self.energy is None else format_joules(self.energy),
            None if self.seconds is None else format_seconds(self.seconds),
        ]
        return ", ".join(limit for limit in limits if limit) or "no limit"


def format_joules(joules: float) -> str:
    """Return joules as people read them, e.g. "1.5 kJ"."""
    return f"{joules / 1e3:.3g} kJ" if joules >= 1e3 else f"{joules:.3g} J"


def format_seconds(seconds: float) -> str:
    """Return seconds as people read them, e.g. "1.5 s" or "2.5 min"."""
    return f"{seconds / 60:.3g} min" if seconds >= 120 else f"{seconds:.3g} s"
