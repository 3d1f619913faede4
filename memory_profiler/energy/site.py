"""What a meter is given to work with: where it reads, by which clock, and for which work.

Files of sysfs are hostile until read: one that is missing, closed to us, or no number is a
DataError whose line says which and what to do.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from edgetrain.errors import DataError
from edgetrain.memory_profiler.energy.law import EnergyFit, Work

__all__ = ["Site", "read_count", "read_line"]

LONGEST_LINE = 256
"""Characters of the longest line that a file of one value may hold."""
LARGEST_COUNT = 1 << 63


@dataclass(frozen=True)
class Site:
    """Where a meter stands.

    Attributes:
        root: the folder under which /sys lies, so that tests can give a tree of fixtures.
        clock: seconds that never run backwards.
        work: returns the operations and bytes that were done so far, which modelled meters need.
        fit: this machine's calibration, if there is one.
    """

    root: Path = Path("/")
    clock: Callable[[], float] = time.monotonic
    work: Callable[[], Work] | None = None
    fit: EnergyFit | None = None


def read_line(path: Path, cure: str = "") -> str:
    """Return the one line that a file of sysfs holds, stripped.

    Raises DataError, with `cure` as what to do, where it cannot be read or holds no such line.
    """
    try:
        with path.open(encoding="ascii") as file:
            found = file.read(LONGEST_LINE + 1)
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}{cure and ': '}{cure}") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not text: is it really the kernel's?") from error
    line = found.strip()
    if len(found) > LONGEST_LINE or not line.isprintable():
        raise DataError(f"{path} holds more than one short line: is it really the kernel's?")
    return line


def read_count(path: Path, cure: str = "") -> int:
    """Return the number, 0 or more, that a file of sysfs holds. Raises DataError as `read_line`."""
    line = read_line(path, cure)
    if not line.isdecimal() or int(line) >= LARGEST_COUNT:
        raise DataError(f"{path} says {line!r}: expected a count")
    return int(line)
