"""Being kept waiting: an answer that says nothing yet is held open until there is something to say.

The preference and its receipt are those of RFC 7240. Whoever asks with it gets the head of an
answer without content at once, and its end when it is worth asking again. Nothing is ever said in
such an answer, so that nothing is lost with a connection that nobody reads from any more.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

__all__ = ["APPLIED", "LONGEST_HOLD", "PREFER", "Hold", "preference", "wanted_seconds"]

PREFER, APPLIED = "prefer", "preference-applied"
"""The header of a question that may be held, and of the answer to one that is."""
LONGEST_HOLD = 600
"""Seconds; nobody is held for longer, whatever he wants."""
WAIT = re.compile(r"wait=([0-9]{1,4})")


@dataclass
class Hold:
    """Leave to hold an answer open.

    Attributes:
        seconds: how long at most.
        look_seconds: how often `wanted` is called meanwhile.
        wanted: says whether to wait on; where not, the connection is given up.
        applied: whether the answer was held. It is set with the answer.
    """

    seconds: float
    look_seconds: float
    wanted: Callable[[], bool]
    applied: bool = False


def preference(seconds: float) -> str:
    """Return the header's value that asks for so long a wait, in whole seconds."""
    return f"wait={min(round(seconds), LONGEST_HOLD)}"


def wanted_seconds(value: str | None) -> int:
    """Return the seconds in a header's value, LONGEST_HOLD at most; 0 for any other value."""
    found = WAIT.fullmatch(value or "")
    return min(int(found[1]), LONGEST_HOLD) if found else 0
