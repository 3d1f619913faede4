"""How long to wait before trying again what failed: longer each time, and never all at once."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

__all__ = ["Backoff", "jittered"]


@dataclass
class Backoff:
    """Waits that double from `first` to `limit` seconds, each of them half fixed and half drawn.

    A fleet that lost its coordinator at one moment does not come back at one moment.
    """

    first: float = 1.0
    limit: float = 600.0
    _failures: int = field(default=0, init=False)

    def next(self) -> float:
        """Return the seconds to wait after one more failure."""
        longest = min(self.first * 2.0 ** min(self._failures, 30), self.limit)
        self._failures += 1
        return random.uniform(longest / 2, longest)

    def reset(self) -> None:
        """Forget the failures, after a success."""
        self._failures = 0


def jittered(seconds: float) -> float:
    """Return a wait of `seconds` on the average, half of it to half as much again."""
    return random.uniform(seconds / 2, seconds * 1.5)
