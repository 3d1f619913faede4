"""Admission: may a command begin at all, as this machine is now?

Each check says what it found and why that is or is not enough. What nobody tells is unknown and
stands in nobody's way: a machine without a battery needs none. What is told in a form that nobody
understands does stand in the way.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from edgetrain.errors import BudgetError, ConfigError, DataError
from edgetrain.memory_profiler.kernel_files import text_of
from edgetrain.memory_profiler.memory import available_bytes
from edgetrain.sizes import format_size

__all__ = ["Admission", "Check", "Policy", "admit"]

ROOT = Path("/")
SUPPLIES = "sys/class/power_supply"
ZONES = "sys/class/thermal"
CHARGED = ("Charging", "Full", "Not charging")
"""States of a battery that somebody feeds."""
BELIEVABLE_CELSIUS = (-60.0, 150.0)
"""A sensor that is not connected tells what no machine survives."""


@dataclass(frozen=True)
class Policy:
    """What an owner asks for before a command begins. Raises ConfigError for what cannot be.

    Attributes:
        headroom: bytes that must be left beside what the command may use.
        battery: least share of its charge, 0 to 1, or None for any.
        charger: whether somebody must feed the machine.
        celsius: most that the hottest part may have, or None for any.
    """

    headroom: int = 0
    battery: float | None = None
    charger: bool = False
    celsius: float | None = None

    def __post_init__(self) -> None:
        if self.headroom < 0:
            raise ConfigError(f"a headroom of {self.headroom} bytes: give 0 or more")
        if self.battery is not None and not 0 <= self.battery <= 1:
            raise ConfigError(f"a battery of {self.battery}: give a share from 0 to 1")
        if self.celsius is not None and not math.isfinite(self.celsius):
            raise ConfigError(f"a temperature of {self.celsius}: give degrees Celsius")


@dataclass(frozen=True)
class Check:
    """One thing that was looked at.

    passed is None where nobody tells; value is in the unit that the reason names, or None.
    """

    name: str
    passed: bool | None
    reason: str
    value: float | None = None


@dataclass(frozen=True)
class Admission:
    """All checks; a command may begin unless one of them failed."""

    checks: tuple[Check, ...]

    @property
    def refusals(self) -> tuple[Check, ...]:
        """The checks that stand in the way."""
        return tuple(check for check in self.checks if check.passed is False)

    def require(self) -> None:
        """Raise BudgetError naming every refusal, unless there is none."""
        if self.refusals:
            reasons = "; ".join(check.reason for check in self.refusals)
            raise BudgetError(f"not now: {reasons}: wait, or ask for less")


def admit(policy: Policy, memory: int | None = None, root: Path = ROOT) -> Admission:
    """Return whether a command that may use so many bytes may begin.

    Looked at are the memory that is left to it (the least of MemAvailable and the room in every
    control group above this process) and what the policy asks for. Files are those under `root`.
    """
    checks: list[tuple[str, Callable[[], Check]]] = []
    if memory is not None:
        checks.append(("memory", lambda: check_memory(memory, policy.headroom, root)))
    if policy.battery is not None:
        least = policy.battery
        checks.append(("battery", lambda: check_battery(least, root)))
    if policy.charger:
        checks.append(("charger", lambda: check_charger(root)))
    if policy.celsius is not None:
        most = policy.celsius
        checks.append(("temperature", lambda: check_temperature(most, root)))
    found = []
    for name, look in checks:
        try:
            found.append(look())
        except DataError as error:
            found.append(Check(name, False, str(error)))
    return Admission(tuple(found))


def check_memory(needed: int, headroom: int, root: Path) -> Check:
    """Return whether the memory that is left is enough."""
    left = available_bytes(root)
    if left is None:
        return Check("memory", None, "nobody tells how much memory is left")
    wanted = f"{format_size(needed)} wanted"
    if headroom:
        wanted += f" and {format_size(headroom)} to be spared"
    passed = left >= needed + headroom
    return Check("memory", passed, f"{format_size(left)} of memory left, {wanted}", left)


def check_battery(least: float, root: Path) -> Check:
    """Return whether the emptiest battery is full enough."""
    shares = [share for share in map(battery_share, supplies(root, "Battery")) if share is not None]
    if not shares:
        return Check("battery", None, "there is no battery that tells its charge")
    share = min(shares)
    return Check("battery", share >= least, f"battery at {share:.0%}, {least:.0%} wanted", share)


def check_charger(root: Path) -> Check:
    """Return whether somebody feeds the machine."""
    chargers = [
        whole_in(path / "online") for kind in ("Mains", "USB") for path in supplies(root, kind)
    ]
    states = [(text_of(path / "status") or "").strip() for path in supplies(root, "Battery")]
    if any(chargers) or any(state in CHARGED for state in states):
        return Check("charger", True, "a charger is connected")
    if states or any(online == 0 for online in chargers):
        return Check("charger", False, "no charger is connected")
    return Check("charger", None, "there is neither a battery nor a charger that tells")


def check_temperature(most: float, root: Path) -> Check:
    """Return whether the hottest part is cool enough."""
    zones = [whole_in(path / "temp") for path in sorted((root / ZONES).glob("thermal_zone*"))]
    low, high = BELIEVABLE_CELSIUS
    told = [zone / 1000 for zone in zones if zone is not None and low <= zone / 1000 <= high]
    if not told:
        return Check("temperature", None, "no thermal zone tells its temperature")
    hottest = max(told)
    reason = f"{hottest:.0f} degrees Celsius, {most:.0f} allowed"
    return Check("temperature", hottest <= most, reason, hottest)


def supplies(root: Path, kind: str) -> Iterator[Path]:
    """Yield the folders of the machine's own supplies of a kind, not those of a mouse."""
    for path in sorted((root / SUPPLIES).glob("*")):
        ours = (text_of(path / "scope") or "System").strip() == "System"
        if ours and (text_of(path / "type") or "").strip() == kind:
            yield path


def battery_share(path: Path) -> float | None:
    """Return a battery's charge as a share of what it holds when full, or None if unknown."""
    percent = whole_in(path / "capacity")
    if percent is not None:
        return min(1.0, max(0, percent) / 100)
    for name in ("energy", "charge"):
        now, full = whole_in(path / f"{name}_now"), whole_in(path / f"{name}_full")
        if now is not None and full:
            return min(1.0, max(0, now) / full)
    return None


def whole_in(path: Path) -> int | None:
    """Return the whole number in a file, or None where there is no file or it tells nothing.

    Raises DataError for anything else.
    """
    text = (text_of(path) or "").strip()
    if not text:
        return None
    digits = text.removeprefix("-")
    if not (digits.isdecimal() and digits.isascii() and len(digits) <= 18):
        raise DataError(f"{path} says {text[:40]!r}: expected a whole number")
    return int(text)
