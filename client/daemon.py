"""The device's daemon: asks the coordinator for work, does it, and is there when it is not.

It is made to be killed. Everything it has taken on is on the disk, so that it starts where it was;
and after each instruction it asks to be started afresh, so that the memory of what a task loads
goes back to the system. What needs the planner and the engine is imported when there is work.
"""

from __future__ import annotations

import contextlib
import http.client
import time
from collections.abc import Callable

from edgetrain.client.backoff import Backoff, jittered
from edgetrain.client.enrolment import Enrolment
from edgetrain.client.fleet.hold import Hold
from edgetrain.client.fleet.identity import ServerClock
from edgetrain.client.fleet.transport import Transport, trust
from edgetrain.client.fleet_api import FleetApi
from edgetrain.client.heart import Heart
from edgetrain.client.journal import Journal
from edgetrain.client.state import StateFolder
from edgetrain.client.systemd import notify
from edgetrain.errors import EdgetrainError, FleetError
from edgetrain.signing import PrivateKey

__all__ = ["Daemon", "connect"]

UNAUTHORISED, PRECONDITION_FAILED = http.client.UNAUTHORIZED, http.client.PRECONDITION_FAILED
RETURN_SECONDS = 0.5
"""Between a question that was held and the next: many may have been woken at once."""
QUIET_SECONDS = 60.0
"""A reply is looked for every second; this long after the last one it has been found."""
REFUSALS = (UNAUTHORISED, PRECONDITION_FAILED)
"""What Flower says to a key that it does not know, and to a node that it takes for online."""
CURE = "; if this device was revoked, have it enrolled again, and join with the new file"


def connect(enrolment: Enrolment, node_id: int) -> FleetApi:
    """Return the Fleet API of a coordinator; nothing is sent yet. Raises ConfigError."""
    key = PrivateKey(enrolment.key.encode())
    transport = Transport(enrolment.address, trust(enrolment.ca), key, ServerClock())
    return FleetApi(transport, node_id)


class Daemon:
    """One device at work; `run` holds its state folder meanwhile.

    `wait` and `say` are time.sleep and print but for tests: `say` is told every change of what the
    daemon does, in a line.
    """

    def __init__(
        self,
        state: StateFolder,
        *,
        wait: Callable[[float], None] = time.sleep,
        say: Callable[[str], None] = lambda line: print(line, flush=True),
    ) -> None:
        enrolment = state.enrolment
        self._state = state
        self._enrolment = enrolment
        self._say = say
        self._sleep = wait
        self._told = ""
        self._heart = Heart(enrolment.heartbeat_seconds)
        self._backoff = Backoff()
        self._online = False
        self._served = state.ring.exists()
        self._born = time.monotonic()
        self._api = connect(enrolment, state.node_id)

    def run(self) -> None:
        """Work until the process should be started afresh: an instruction is done with, mostly.

        Raises ConfigError when another daemon works here. Whatever else ends it, the next daemon
        goes on from there; one that is told to stop when it has nothing to do says goodbye.
        """
        with self._state.hold():
            journal = self._state.journal()
            notify("READY=1")
            try:
                with self._heart:
                    while not self._step(journal):
                        pass
            except BaseException:
                if not journal.events:
                    self._go_offline()
                raise
            finally:
                self._api.transport.close()

    def _step(self, journal: Journal) -> bool:
        """Do the next thing there is to do; return whether to start afresh."""
        self._heart.step()
        try:
            done = self._go_on(journal)
        except EdgetrainError as error:
            if isinstance(error, FleetError):
                self._online = False
            what = trouble(error)
            self._tell(what, f"{error}{CURE if what == 'refused' else ''}")
            self._wait(self._backoff.next())
            return False
        self._backoff.reset()
        return done

    def _go_on(self, journal: Journal) -> bool:
        if not journal.events and self._ring_is_new():
            return True
        if not journal.events and self._state.paused:
            self._go_offline()
            self._tell("paused")
            self._wait(jittered(self._enrolment.poll_seconds))
            return False
        if not self._online:
            self._come_online(journal)
        if journal.events:
            self._finish(journal)
            return True
        self._state.require_room()
        # What a predecessor left, who was killed when it was done, belongs to no other task.
        self._state.clear_work()
        self._tell("idle")
        hold = self._hold()
        instruction = self._api.pull_message(hold)
        if instruction is not None:
            journal.append({"event": "pulled", "instruction": instruction.to_fields()})
            return False
        self._wait(jittered(RETURN_SECONDS if hold.applied else self._enrolment.poll_seconds))
        return False

    def _hold(self) -> Hold:
        """Return for how long this device would wait to be told of work, unless it is paused."""
        enrolment = self._enrolment
        return Hold(
            seconds=jittered(enrolment.hold_seconds),
            look_seconds=enrolment.poll_seconds,
            wanted=lambda: not (self._state.paused or self._ring_is_new()),
        )

    def _ring_is_new(self) -> bool:
        """Say whether samples began to be recorded: a daemon that starts afresh serves them."""
        return self._state.ring.exists() and not self._served

    def _come_online(self, journal: Journal) -> None:
        try:
            self._connect()
        except FleetError:
            # There may be work to do without the coordinator.
            if not journal.events:
                raise
        else:
            if self._api.node_id != self._state.node_id:
                journal.clear()
                self._state.node_id = self._api.node_id
            self._heart.beat_from(self._api)
            self._online = True

    def _connect(self) -> None:
        """Be heard of by this node's number, or by its key where the number is not known."""
        interval = self._enrolment.heartbeat_seconds
        if self._api.node_id:
            try:
                if self._api.heartbeat(interval):
                    return
            except FleetError as error:
                if error.status != UNAUTHORISED:
                    raise
        try:
            self._api.activate(interval)
        except FleetError as refusal:
            if refusal.status != PRECONDITION_FAILED:
                raise
            try:
                self._api.register()
            except FleetError:
                raise refusal from None
            self._api.activate(interval)

    def _finish(self, journal: Journal) -> None:
        """Carry out the instruction in the journal."""
        from edgetrain.client.errand import Errand  # noqa: PLC0415 - the planner, the engine

        errand = Errand(self._state, journal, self._api, step=self._tell, wait=self._wait)
        outcome = errand.carry_out()
        self._say(f"{errand.instruction.message_type}: {outcome}")

    def _go_offline(self) -> None:
        """Say goodbye; not yet where a reply may not have been taken, for Flower then drops it."""
        if self._online and time.monotonic() - self._born >= QUIET_SECONDS:
            self._heart.rest()
            self._online = False
            with contextlib.suppress(EdgetrainError):
                self._api.deactivate()

    def _tell(self, state: str, detail: str = "") -> None:
        """Make known what the daemon does, where that is something else than before."""
        self._heart.step()
        line = f"{state}: {detail}" if detail else state
        if line == self._told:
            return
        self._told = line
        self._say(line)
        notify(f"STATUS={line}")
        self._state.tell({"state": state, "detail": detail, "since": time.time()})

    def _wait(self, seconds: float) -> None:
        self._heart.step()
        self._sleep(seconds)


def trouble(error: EdgetrainError) -> str:
    """Return in a word what an error means for the daemon, which tries again whatever it is."""
    if isinstance(error, FleetError) and error.status is None:
        return "unreachable"
    if isinstance(error, FleetError) and error.status in REFUSALS:
        return "refused"
    return "failing"
