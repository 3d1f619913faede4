"""What an owner allows a round of training to use, and intervals to hold promises against it."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass

from edgetrain.errors import ConfigError
from edgetrain.sizes import format_size, parse_size

__all__ = [
    "Budget",
    "Interval",
    "format_joules",
    "format_seconds",
    "parse_energy",
    "parse_seconds",
]

# Case counts: mJ and MJ are nine orders of magnitude apart.
JOULES = {"J": 1.0, "mJ": 1e-3, "kJ": 1e3, "Wh": 3600.0, "mWh": 3.6, "kWh": 3.6e6}
SECONDS = {"s": 1.0, "ms": 1e-3, "min": 60.0, "h": 3600.0}


@dataclass(frozen=True)
class Interval:
    """A quantity known to lie between two bounds, both included.

    Bounds are finite and not negative; a quantity that nobody knows is None, never an Interval
    from 0. Raises ConfigError otherwise.
    """

    low: float
    high: float

    def __post_init__(self) -> None:
        if not (math.isfinite(self.low) and math.isfinite(self.high)):
            raise ConfigError(f"an interval from {self.low} to {self.high} has no finite bounds")
        if not 0 <= self.low <= self.high:
            raise ConfigError(
                f"an interval from {self.low} to {self.high} is not one: give 0 <= low <= high"
            )

    @property
    def middle(self) -> float:
        """The value half way between the bounds."""
        return (self.low + self.high) / 2

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
        for name, limit in (
            ("memory", self.memory),
            ("energy", self.energy),
            ("seconds", self.seconds),
        ):
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

        Numbers without a unit are bytes, joules and seconds. Raises ConfigError for text that is
        not a quantity.
        """
        return cls(
            None if memory is None else parse_size(memory),
            None if energy is None else parse_energy(energy),
            None if seconds is None else parse_seconds(seconds),
        )

    @classmethod
    def from_table(cls, table: Mapping[str, object]) -> Budget:
        """Return the budget in a table of a configuration file.

        Raises ConfigError for a key that is none of memory, energy and seconds, or for a value
        that is no quantity.
        """
        known = ("memory", "energy", "seconds")
        values: dict[str, str | float] = {}
        for key, value in table.items():
            if key not in known:
                raise ConfigError(f"a budget has no {key!r}: it knows {', '.join(known)}")
            if isinstance(value, bool) or not isinstance(value, (str, int, float)):
                raise ConfigError(f"a budget's {key} is {value!r}: write a number or a text")
            values[key] = value
        memory = values.get("memory")
        if isinstance(memory, float):
            raise ConfigError(f"a budget's memory is {memory!r}: write whole bytes, or e.g. 48MiB")
        return cls.parse(memory, values.get("energy"), values.get("seconds"))

    def describe(self) -> str:
        """Return the limits as one phrase, e.g. "48.0 MiB, 20 J"."""
        limits = [
            None if self.memory is None else format_size(self.memory),
            None if self.energy is None else format_joules(self.energy),
            None if self.seconds is None else format_seconds(self.seconds),
        ]
        return ", ".join(limit for limit in limits if limit) or "no limit"


def parse_energy(value: str | float) -> float:
    """Return the joules that a text or number names: "20J", "1.5kJ", "0.2Wh", 20.0.

    Raises ConfigError when it is not a positive quantity of energy.
    """
    return _parse_quantity(value, JOULES, "an amount of energy", "20J")


def parse_seconds(value: str | float) -> float:
    """Return the seconds that a text or number names: "90s", "2min", "1h", 90.0.

    Raises ConfigError when it is not a positive length of time.
    """
    return _parse_quantity(value, SECONDS, "a length of time", "90s")


def _parse_quantity(
    value: str | float, units: Mapping[str, float], kind: str, sample: str
) -> float:
    match = re.fullmatch(r"\s*([0-9]*\.?[0-9]+(?:[eE][+-]?[0-9]+)?)\s*([A-Za-z]*)\s*", str(value))
    if match is None or (match[2] and match[2] not in units):
        known = ", ".join(units)
        raise ConfigError(f"{value!r} is not {kind}: write a number and one of {known}: {sample}")
    quantity = float(match[1]) * units.get(match[2], 1.0)
    if not (math.isfinite(quantity) and quantity > 0):
        raise ConfigError(f"{value!r} is not {kind}: it must be positive and finite")
    return quantity


def format_joules(joules: float) -> str:
    """Return joules as people read them, e.g. "1.5 kJ"."""
    return f"{joules / 1e3:.3g} kJ" if joules >= 1e3 else f"{joules:.3g} J"


def format_seconds(seconds: float) -> str:
    """Return seconds as people read them, e.g. "1.5 s" or "2.5 min"."""
    return f"{seconds / 60:.3g} min" if seconds >= 120 else f"{seconds:.3g} s"
