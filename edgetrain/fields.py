"""Rules for the fields of a message: one table of them validates, reads and writes its header.

A rule is called with a field's name and its value, and returns the value or raises PayloadError.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from edgetrain.errors import PayloadError

__all__ = ["Choice", "Flag", "Maybe", "Real", "Rule", "Text", "Whole", "check_fields"]

Rule = Callable[[str, Any], Any]


@dataclass(frozen=True)
class Whole:
    """A whole number from `low` to `high`, both included."""

    low: int
    high: int

    def __call__(self, name: str, value: Any) -> int:
        if type(value) is not int or not self.low <= value <= self.high:
            raise PayloadError(
                f"{name} is {shown(value)}: it must be whole, {self.low} to {self.high}"
            )
        return value


@dataclass(frozen=True)
class Real:
    """A finite number from `low` to `high`, both included; always returned as a float."""

    low: float
    high: float

    def __call__(self, name: str, value: Any) -> float:
        fits = type(value) in (int, float) and self.low <= value <= self.high
        if not fits or not math.isfinite(value):
            raise PayloadError(
                f"{name} is {shown(value)}: it must be a number, {self.low:g} to {self.high:g}"
            )
        return float(value)


@dataclass(frozen=True)
class Text:
    """One line of text without control characters, at most `limit` characters long."""

    limit: int
    empty: bool = False

    def __call__(self, name: str, value: Any) -> str:
        fits = isinstance(value, str) and value.isprintable() and len(value) <= self.limit
        if not fits or not (value or self.empty):
            raise PayloadError(
                f"{name} is {shown(value)}: it must be one line of 1 to {self.limit} characters"
            )
        return str(value)


@dataclass(frozen=True)
class Choice:
    """One of a few words."""

    options: tuple[str, ...]

    def __call__(self, name: str, value: Any) -> str:
        if not isinstance(value, str) or value not in self.options:
            raise PayloadError(
                f"{name} is {shown(value)}: it must be one of {', '.join(self.options)}"
            )
        return value


@dataclass(frozen=True)
class Flag:
    """True or False."""

    def __call__(self, name: str, value: Any) -> bool:
        if not isinstance(value, bool):
            raise PayloadError(f"{name} is {shown(value)}: it must be true or false")
        return value


@dataclass(frozen=True)
class Maybe:
    """What another rule allows, or None where it is not known."""

    rule: Rule

    def __call__(self, name: str, value: Any) -> Any:
        return None if value is None else self.rule(name, value)


def check_fields(fields: object, rules: Mapping[str, Rule], what: str) -> dict[str, Any]:
    """Return the fields by their rules; raise PayloadError for one that is missing or unknown."""
    if not isinstance(fields, Mapping):
        raise PayloadError(f"{what} is {shown(fields)}: it must be an object")
    if unknown := sorted(fields.keys() - rules.keys()):
        raise PayloadError(f"{what} has a field {shown(unknown[0])} that this version does not")
    if missing := sorted(rules.keys() - fields.keys()):
        raise PayloadError(f"{what} lacks the field {missing[0]!r}")
    return {name: rule(f"{what}: {name}", fields[name]) for name, rule in rules.items()}


def shown(value: object) -> str:
    """Return a value as a message can show it: one short line, whatever it was."""
    text = repr(value) if isinstance(value, (str, int, float, type(None))) else type(value).__name__
    return text if len(text) <= 40 else text[:37] + "..."
