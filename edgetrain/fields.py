"""Rules for the fields of a message: one table of them validates, reads and writes its header.

A rule is called with a field's name and its value, and returns the value or raises PayloadError.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from edgetrain.errors import PayloadError

__all__ = ["Rule", "check_fields", "choice", "flag", "maybe", "real", "several", "text", "whole"]

Rule = Callable[[str, Any], Any]


def whole(low: int, high: int) -> Rule:
    """Accept a whole number from `low` to `high`, both included."""

    def check(name: str, value: Any) -> Any:
        if type(value) is not int or not low <= value <= high:
            raise PayloadError(f"{name} is {shown(value)}: it must be whole, {low} to {high}")
        return value

    return check


def real(low: float, high: float) -> Rule:
    """Accept a finite number from `low` to `high`, both included, and make it a float."""

    def check(name: str, value: Any) -> Any:
        if type(value) not in (int, float) or not (low <= value <= high and math.isfinite(value)):
            raise PayloadError(
                f"{name} is {shown(value)}: it must be a number, {low:g} to {high:g}"
            )
        return float(value)

    return check


def text(limit: int, *, empty: bool = False) -> Rule:
    """Accept one line of text without control characters, at most `limit` characters long."""

    def check(name: str, value: Any) -> Any:
        fits = isinstance(value, str) and value.isprintable() and len(value) <= limit
        if not fits or not (value or empty):
            raise PayloadError(
                f"{name} is {shown(value)}: it must be one line of 1 to {limit} characters"
            )
        return value

    return check


def choice(*options: str) -> Rule:
    """Accept one of a few words."""

    def check(name: str, value: Any) -> Any:
        if not isinstance(value, str) or value not in options:
            raise PayloadError(f"{name} is {shown(value)}: it must be one of {', '.join(options)}")
        return value

    return check


def flag(name: str, value: Any) -> Any:
    """Accept true or false; this is itself a rule."""
    if not isinstance(value, bool):
        raise PayloadError(f"{name} is {shown(value)}: it must be true or false")
    return value


def maybe(rule: Rule) -> Rule:
    """Accept what another rule accepts, or None where it is not known."""
    return lambda name, value: None if value is None else rule(name, value)


def several(rule: Rule, most: int) -> Rule:
    """Accept a list of at most so many values that another rule accepts."""

    def check(name: str, value: Any) -> Any:
        if not isinstance(value, list) or len(value) > most:
            raise PayloadError(f"{name} is {shown(value)}: it must be a list of at most {most}")
        return [rule(name, element) for element in value]

    return check


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
