"""LedgerDigest: what a device's ledger says in all, small enough to travel with every Report.

It names the last line of the ledger's chain of hashes and the sums up to there, and carries a
signature over both. Here stands what it holds; edgetrain.memory_profiler.signature makes and
checks the signature, with a library that a worker must not load.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from edgetrain.errors import PayloadError
from edgetrain.fields import Rule, check_fields, maybe, real, text, whole

__all__ = ["LedgerDigest"]

VERSION = 1
MAX_COUNT = 1 << 48
MAX_SUM = 1e300
MAX_SOURCE = 32
DIGITS = frozenset("0123456789abcdef")


def digits(least: int, most: int) -> Rule:
    """Accept from `least` to `most` bytes, written as hexadecimal digits."""
    limited = text(2 * most)

    def check(name: str, value: Any) -> Any:
        found = limited(name, value)
        if len(found) % 2 or len(found) < 2 * least or not DIGITS.issuperset(found):
            raise PayloadError(f"{name} must be {least} to {most} bytes in hexadecimal digits")
        return found

    return check


@dataclass(frozen=True)
class LedgerDigest:
    """A ledger's end and sums, as its device signed them.

    Attributes:
        lines: whole lines of the ledger; it only grows, so that an older digest has fewer.
        head: sha256 of the last of them, which stands for all.
        tasks: outcomes among them.
        seconds, joules: sums over the tasks of which they are known; None where of none.
        seconds_unknown, joules_unknown: tasks that the sums leave out.
        joules_source: where the joules come from: a meter's name, "modelled", "mixed" or "none".
        peak_bytes: the largest measured peak of a training process, or None.
        key: the device's public key, a compressed point of the curve P-384.
        signature: ECDSA with SHA-256 over `signed_bytes`, in DER.
    """

    lines: int
    head: str
    tasks: int
    seconds: float | None
    seconds_unknown: int
    joules: float | None
    joules_unknown: int
    joules_source: str
    peak_bytes: int | None
    key: str
    signature: str

    RULES: ClassVar[Mapping[str, Rule]] = {
        "lines": whole(1, MAX_COUNT),
        "head": digits(32, 32),
        "tasks": whole(0, MAX_COUNT),
        "seconds": maybe(real(0, MAX_SUM)),
        "seconds_unknown": whole(0, MAX_COUNT),
        "joules": maybe(real(0, MAX_SUM)),
        "joules_unknown": whole(0, MAX_COUNT),
        "joules_source": text(MAX_SOURCE),
        "peak_bytes": maybe(whole(0, MAX_COUNT)),
        "key": digits(49, 49),
        "signature": digits(8, 104),
    }

    def __post_init__(self) -> None:
        check_fields({name: getattr(self, name) for name in self.RULES}, self.RULES, "digest")

    @property
    def signed_bytes(self) -> bytes:
        """What the signature covers: what this is, and every field but itself."""
        told = self.to_fields()
        del told["signature"]
        written = json.dumps(told, sort_keys=True, separators=(",", ":"))
        return b"edgetrain-ledger-digest\n" + written.encode("ascii")

    def to_fields(self) -> dict[str, Any]:
        """Return the fields as JSON holds them."""
        return {"version": VERSION, **{name: getattr(self, name) for name in self.RULES}}

    @classmethod
    def from_fields(cls, name: str, value: Any) -> LedgerDigest:
        """Return the digest that JSON holds; a rule like those of edgetrain.fields."""
        checked = check_fields(value, {"version": whole(VERSION, VERSION), **cls.RULES}, name)
        del checked["version"]
        return cls(**checked)
