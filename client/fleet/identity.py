"""Who a device is to the Fleet API: a key that signs the coordinator's time, and that time."""

from __future__ import annotations

import base64
import datetime
import email.utils
import time

from edgetrain.signing import PrivateKey

__all__ = ["ServerClock", "signed", "since_boot"]

DATE_RESOLUTION = 1.0
"""Seconds: a Date header counts whole ones."""
TOLERANCE = 2.0
"""Seconds that two readings of one clock may differ by, for Dates are whole and answers travel."""


class ServerClock:
    """The coordinator's time, as it was told with its last answer; `heard` says whether it was.

    Flower takes a signature whose time is between 5 s ahead and 300 s behind its own clock. A
    device without a battery for its clock is hours off until somebody sets it; counted from a
    Date header by a clock that nobody sets, the time is right before and after that.
    """

    def __init__(self, guess: float | None = None) -> None:
        """Take the device's own clock, or `guess`, for right until an answer says otherwise."""
        self._offset = (time.time() if guess is None else guess) - since_boot()
        self.heard = False

    def now(self) -> float:
        """Return seconds since 1970 by the coordinator's clock; by our own before it was heard."""
        return self._offset + since_boot()

    def hear(self, date: str | None) -> bool:
        """Take the time from a Date header; return whether it was another than was thought."""
        try:
            told = email.utils.parsedate_to_datetime(date or "").timestamp()
        except ValueError:
            return False
        self.heard = True
        offset = told + DATE_RESOLUTION / 2 - since_boot()
        moved = abs(offset - self._offset) > TOLERANCE
        if moved:
            self._offset = offset
        return moved


def signed(key: PrivateKey, now: float) -> dict[str, str]:
    """Return the headers by which Flower knows a node: its public key and a signed time.

    `now` is in seconds since 1970, by the coordinator's clock.
    """
    timestamp = datetime.datetime.fromtimestamp(now, datetime.UTC).isoformat()
    return {
        "flwr-public-key": base64.b64encode(key.public_pem).decode(),
        "flwr-timestamp": timestamp,
        "flwr-signature": base64.b64encode(key.sign(timestamp.encode())).decode(),
    }


def since_boot() -> float:
    """Return seconds by a clock that runs on while the device sleeps, and that nobody sets."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)
