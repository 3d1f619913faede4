"""Typed settings: frozen dataclasses whose every field knows what it accepts.

A class that derives from Settings checks and normalises its fields however it is made, from a
TOML table or by hand, so that nothing past it has to. Every refusal is one line that names the
table, the key, what was found and what would do.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import re
import reprlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar, Self

from edgetrain.errors import ConfigError
from edgetrain.sizes import parse_size

__all__ = [
    "Check",
    "Settings",
    "choice",
    "nearest",
    "optional",
    "quantity",
    "real",
    "setting",
    "size",
    "text",
    "whole",
    "wholes",
    "word",
]

Check = Callable[[Any], Any]
"""Takes what was written and returns what it means; raises ValueError saying what would do."""

TIME = {"": 1.0, "ms": 1e-3, "s": 1.0, "min": 60.0, "h": 3600.0}
ENERGY = {"": 1.0, "mJ": 1e-3, "J": 1.0, "kJ": 1e3, "Wh": 3600.0}
RATE = {"": 1.0, "bit/s": 1.0, "kbit/s": 1e3, "Mbit/s": 1e6, "Gbit/s": 1e9}
QUANTITIES = {"seconds": (TIME, "90s"), "joules": (ENERGY, "5J"), "rate": (RATE, "2Mbit/s")}


def setting(check: Check, default: Any = dataclasses.MISSING) -> Any:
    """Return a dataclass field that accepts what `check` accepts; required without a default."""
    return dataclasses.field(default=default, metadata={"check": check})


@dataclasses.dataclass(frozen=True)
class Settings:
    """Base of every table of a configuration file."""

    table: ClassVar[str] = ""

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            found = getattr(self, field.name)
            try:
                object.__setattr__(self, field.name, field.metadata["check"](found))
            except (ValueError, ConfigError) as error:
                raise ConfigError(
                    f"{self.table} {field.name} = {reprlib.repr(found)}: {error}"
                ) from None

    @classmethod
    def from_table(cls, found: object) -> Self:
        """Return the settings in a table. Raises ConfigError for a key that is unknown or missing.

        For an unknown key the error names the nearest valid one.
        """
        if not isinstance(found, Mapping):
            raise ConfigError(f"{cls.table} must be a table of keys, not {reprlib.repr(found)}")
        fields = {field.name: field for field in dataclasses.fields(cls)}
        for key in found:
            if key not in fields:
                raise ConfigError(f"{cls.table} has no key {key!r}: {nearest(key, fields)}")
        for name, field in fields.items():
            if field.default is dataclasses.MISSING and name not in found:
                raise ConfigError(f"{cls.table} lacks the key {name!r}: add it")
        return cls(**found)

    def to_table(self) -> dict[str, Any]:
        """Return the settings as a table that makes them again, without what is not set."""
        found = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in found.items()
            if value is not None
        }


def nearest(word: object, known: Iterable[str]) -> str:
    """Return what to write in place of an unknown word, as the end of a sentence."""
    names = list(known)
    close = difflib.get_close_matches(str(word), names, n=1, cutoff=0.5)
    if close:
        return f"did you mean {close[0]!r}?"
    return f"the valid ones are {', '.join(names)}"


def text(value: Any) -> str:
    """Accept a text that is not empty."""
    if not isinstance(value, str) or not value.strip():
        raise ValueError("write a text in quotes")
    return value


def word(value: Any) -> str:
    """Accept a name that may stand in a file name: letters, digits, dot, dash, underscore."""
    if not isinstance(value, str) or not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", value):
        raise ValueError("write a name of letters, digits and . - _, at most 64 of them")
    return value


def choice(*words: str) -> Check:
    """Accept one of a few words."""

    def check(value: Any) -> str:
        if not isinstance(value, str) or value not in words:
            raise ValueError(f"{nearest(value, words)} (one of {', '.join(words)})")
        return value

    return check


def whole(least: int, most: int) -> Check:
    """Accept a whole number within bounds, both included."""

    def check(value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            raise ValueError(f"write a whole number from {least} to {most}")
        return value

    return check


def wholes(least: int, most: int, shortest: int = 0) -> Check:
    """Accept a list of whole numbers within bounds, as a tuple."""
    element = whole(least, most)

    def check(value: Any) -> tuple[int, ...]:
        if isinstance(value, str | Mapping) or not isinstance(value, Iterable):
            raise ValueError(f"write a list of whole numbers from {least} to {most}")
        found = tuple(element(item) for item in value)
        if len(found) < shortest:
            raise ValueError(f"write at least {shortest} of them")
        return found

    return check


def real(above: float, most: float, *, included: bool = False) -> Check:
    """Accept a number within bounds; the lower one belongs to them only where `included`."""

    def check(value: Any) -> float:
        numeric = isinstance(value, int | float) and not isinstance(value, bool)
        if not numeric or not (above < value <= most or (included and value == above)):
            raise ValueError(f"write a number {'from' if included else 'above'} {above} to {most}")
        return float(value)

    return check


def quantity(kind: str) -> Check:
    """Accept a positive number, or one with a unit; `kind` is a key of QUANTITIES."""
    units, sample = QUANTITIES[kind]

    def check(value: Any) -> float:
        written = "" if isinstance(value, bool) else str(value)
        match = re.fullmatch(r"\s*([0-9]*\.?[0-9]+(?:[eE][+-]?[0-9]+)?)\s*([A-Za-z/]*)\s*", written)
        if match is None or match[2] not in units:
            known = ", ".join(unit for unit in units if unit)
            raise ValueError(f"write a number and one of {known}, e.g. {sample!r}")
        found = float(match[1]) * units[match[2]]
        if not 0 < found < math.inf:
            raise ValueError("it must be positive and finite")
        return found

    return check


def size(value: Any) -> int:
    """Accept a size in bytes, or with a unit, e.g. "48MiB"."""
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise ValueError("write a size, e.g. '48MiB'")
    return parse_size(value)


def optional(check: Check) -> Check:
    """Accept None besides what `check` accepts."""
    return lambda value: None if value is None else check(value)
