"""The thread that is heard of: by the coordinator, and by systemd's watchdog."""

from __future__ import annotations

import threading
import time

from edgetrain.client.backoff import Backoff
from edgetrain.client.fleet.identity import since_boot
from edgetrain.client.fleet_api import FleetApi
from edgetrain.client.systemd import notify, watchdog_seconds
from edgetrain.errors import EdgetrainError

__all__ = ["Heart"]

EARLY = 0.8
"""Of the interval: a heartbeat goes out before the coordinator begins to miss it."""
LONGEST_STEP = 2 * 3600.0
"""Seconds that the main thread may take for one step, a whole task among them."""


class Heart:
    """Heartbeats at an interval while the context is open, whatever the main thread does.

    They begin with `beat_from` and rest after `rest`. One that is overdue, because the device has
    slept, is made up for at the next `step`. The watchdog is fed as long as the main thread says
    `step` now and then.
    """

    def __init__(self, interval: float) -> None:
        self._interval = interval
        self._watchdog = watchdog_seconds()
        self._api: FleetApi | None = None
        self._due = 0.0  # by a clock that runs on while the device sleeps
        self._backoff = Backoff(limit=interval / 2)
        self._stepped = time.monotonic()
        self._change = threading.Condition()
        self._stopped = False
        self._thread = threading.Thread(target=self._run, name="heart", daemon=True)

    def __enter__(self) -> Heart:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        with self._change:
            self._stopped = True
            self._change.notify()

    def beat_from(self, api: FleetApi) -> None:
        """Keep up what `api` has begun: it has just been heard of."""
        with self._change:
            self._api = api.another()
            self._due = since_boot() + EARLY * self._interval
            self._change.notify()

    def rest(self) -> None:
        """Send no more heartbeats until there is somebody to send them for."""
        with self._change:
            self._api = None

    def step(self) -> None:
        """Say that the main thread goes on."""
        self._stepped = time.monotonic()
        # The thread's own wait stood still if the device has slept meanwhile.
        if self._api and since_boot() >= self._due:
            with self._change:
                self._change.notify()

    def _run(self) -> None:
        while True:
            with self._change:
                self._change.wait(self._pause())
                if self._stopped:
                    return
                api = self._api
            if self._watchdog and time.monotonic() - self._stepped < LONGEST_STEP:
                notify("WATCHDOG=1")
            if api and since_boot() >= self._due:
                self._beat(api)

    def _pause(self) -> float | None:
        """Return the seconds until there is something to do."""
        waits = [self._watchdog / 2] if self._watchdog else []
        if self._api:
            waits.append(max(self._due - since_boot(), 0))
        return min(waits, default=None)

    def _beat(self, api: FleetApi) -> None:
        try:
            api.heartbeat(self._interval)
            self._backoff.reset()
            wait = EARLY * self._interval
        except EdgetrainError:
            # The main thread meets the same trouble, and tells of it.
            wait = self._backoff.next()
        api.transport.close()
        self._due = since_boot() + wait
