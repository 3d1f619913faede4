"""Byte counts as people write them: "64MiB" in, "64.0 MiB" out."""

from __future__ import annotations

import re

from edgetrain.errors import ConfigError

__all__ = ["format_size", "parse_size"]

UNITS = {
    "": 1,
    "B": 1,
    "KB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "KIB": 2**10,
    "MIB": 2**20,
    "GIB": 2**30,
}


def parse_size(text: str | int) -> int:
    """Return the bytes that a size names, e.g. "64MiB" or 67108864.

    Raises ConfigError when the text is not a positive number with a known unit.
    """
    if isinstance(text, int) and not isinstance(text, bool):
        size = text
    else:
        match = re.fullmatch(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([A-Za-z]*)\s*", str(text))
        if match is None or match[2].upper() not in UNITS:
            raise ConfigError(f"{text!r} is not a size: write a number and a unit, e.g. 64MiB")
        size = int(float(match[1]) * UNITS[match[2].upper()])
    if size <= 0:
        raise ConfigError(f"{text!r} is not a size: it must be positive")
    return size


def format_size(size: int | float) -> str:
    """Return a byte count with a binary unit and one decimal, e.g. "1.5 MiB"."""
    for unit, factor in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if abs(size) >= factor:
            return f"{size / factor:.1f} {unit}"
    return f"{int(size)} B"
