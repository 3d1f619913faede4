"""What a device has used in all, as far as it can be known, and whether it may be asked again.

A device that keeps a ledger sends its signed digest with every report. The coordinator remembers
the last one: another must be by the same key, reach further, and take nothing back. Where no ledger
is kept, the sums of the device's reports stand in its place; where both are known, the larger.
"""

from __future__ import annotations

from edgetrain.config import DeviceConfig
from edgetrain.coordinator.answer import Answer, Member
from edgetrain.coordinator.history import NOT_ASKED, DeviceRecord
from edgetrain.digest import LedgerDigest
from edgetrain.errors import PayloadError
from edgetrain.memory_profiler.budget import format_joules, format_seconds
from edgetrain.memory_profiler.signature_check import is_signed
from edgetrain.task import one_line

__all__ = ["WITHHELD", "check_digest", "exhausted", "withheld"]

WITHHELD = "withheld"
GROWING = ("tasks", "seconds", "seconds_unknown", "joules", "joules_unknown", "peak_bytes")
"""What never becomes less in a ledger that only grows."""


def check_digest(found: LedgerDigest, before: LedgerDigest | None, key: str | None) -> None:
    """Raise PayloadError, saying why, for a digest that cannot be believed.

    `key` is the one that the device was enrolled with; for a device that never was, the key of
    its first digest is the one to keep to.
    """
    if key is None and before is not None:
        key = before.key
    if key is not None and found.key != key:
        raise PayloadError("is by another key than the device was enrolled with")
    if not is_signed(found):
        raise PayloadError("is not signed by its key")
    if before is None or before.key != found.key:
        return
    if found.lines <= before.lines:
        raise PayloadError(
            f"ends at line {found.lines}, and one that ended at {before.lines} came before: it is "
            "old, or the ledger was begun anew, and then the device must be enrolled anew"
        )
    for name in GROWING:
        if (getattr(found, name) or 0) < (getattr(before, name) or 0):
            raise PayloadError(f"takes back {name.replace('_', ' ')} that an earlier one had")


def exhausted(record: DeviceRecord, allowed: DeviceConfig | None) -> str:
    """Return why a device may not be asked again, or nothing.

    `allowed` is its class in the fleet's configuration, None for a class that is not there.
    """
    if allowed is None:
        return ""
    digest = record.digest
    joules = larger(record.joules, digest.joules if digest else None)
    seconds = larger(record.seconds, digest.seconds if digest else None)
    for what, used, limit, text in (
        ("energy", joules, allowed.total_energy, format_joules),
        ("time", seconds, allowed.total_seconds, format_seconds),
    ):
        if limit is not None and used >= limit:
            return f"{NOT_ASKED}: it has used {text(used)} of the {text(limit)} of {what} allowed"
    return ""


def larger(reported: float | None, signed: float | None) -> float:
    """Return the larger of two sums; one that nobody knows holds nothing against a device."""
    return max(reported or 0.0, signed or 0.0)


def withheld(member: Member, reason: str) -> Answer:
    """Return what stands for the answer of a device that was not asked."""
    return Answer(member, WITHHELD, one_line(reason))
