"""The run that the operator wants is kept going: whatever ends it too early, it is begun again.

A ServerApp that is ended, or whose SuperLink was away for too long, leaves a run that Flower calls
failed, and Flower does not try again. The keeper does, and the new ServerApp goes on from the last
checkpoint. A run that fails over and over is tried ever more rarely, until it gets further.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from edgetrain.coordinator.checkpoint import CheckpointFolder, version_of
from edgetrain.coordinator.service.control import RunState
from edgetrain.coordinator.service.place import Place, read_json
from edgetrain.errors import ServiceError
from edgetrain.task import one_line

__all__ = [
    "CHECKPOINTS",
    "FLEET",
    "RESULT",
    "Keeper",
    "RunRecord",
    "Wish",
    "directions_of",
    "run_folder",
]

FLEET, CHECKPOINTS, RESULT = "fleet.toml", "checkpoints", "result.json"
DIRECTIONS = "directions.json"
FIRST_WAIT, LONGEST_WAIT = 2.0, 300.0
"""Seconds before a run that failed is begun again; doubled until it gets further."""
MISSED_LOOKS = 3
"""So often must the ServerApp of a running run be missing before it is taken for dead."""
ASK_SECONDS = 30.0
"""How often SuperLink, which logs every question, is asked about a run whose ServerApp is there."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Wish:
    """What the operator wants: a run by its name, and whether it should go on."""

    run: str
    go_on: bool

    @classmethod
    def read(cls, place: Place) -> Wish | None:
        """Return the wish in the folder, or None where nobody has wished for anything."""
        found = read_json(place.wish)
        return cls(found["run"], found["go_on"]) if found else None


@dataclass(frozen=True)
class RunRecord:
    """What became of the wish so far.

    Attributes:
        run: the name of the run.
        run_id: Flower's number of the attempt at hand; None between attempts.
        attempts: how often it was begun.
        status: pending, starting, running, waiting, stopped or completed.
        reason: why the last attempt ended too early, or nothing.
    """

    run: str = ""
    run_id: int | None = None
    attempts: int = 0
    status: str = "waiting"
    reason: str = ""

    @classmethod
    def read(cls, place: Place) -> RunRecord:
        """Return the record that the service last stored."""
        return cls(**read_json(place.state).get("run", {}))

    def to_fields(self) -> dict[str, Any]:
        """Return the record as JSON has it."""
        return asdict(self)


class Runs(Protocol):
    """What the keeper needs of SuperLink; Control has it."""

    def start(self, settings: Mapping[str, str]) -> int:
        """Start a run and return its id."""
        ...

    def stop(self, run_id: int) -> None:
        """Stop a run that is not finished."""
        ...

    def run(self, run_id: int) -> RunState | None:
        """Return a run, or None where there is none of this id."""
        ...


class Keeper:
    """Follows the operator's wish; whoever owns it calls `tick` every second or so.

    `working` says whether a ServerApp runs, `clear` ends any that does. `record` is what became of
    the wish so far.
    """

    def __init__(
        self,
        place: Place,
        runs: Runs,
        working: Callable[[], bool],
        clear: Callable[[], object],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.place = place
        self.runs = runs
        self.working = working
        self.clear = clear
        self.clock = clock
        self.record = RunRecord.read(place)
        self._version = 0
        self._missed = 0
        self._asked = -ASK_SECONDS
        self._due, self._wait = clock(), FIRST_WAIT

    def tick(self) -> None:
        """Do what the wish asks for; where SuperLink cannot be reached, another time."""
        wish = Wish.read(self.place)
        if wish is None:
            return
        try:
            if wish.run != self.record.run:
                self._end_attempt()
                self.record = RunRecord(wish.run)
                self._be_patient_again()
            if self.record.status != "completed":
                self._go_on() if wish.go_on else self._end_attempt()
        except ServiceError as error:
            log.warning("run %s: %s", wish.run, error)

    def _go_on(self) -> None:
        if self.record.run_id is None:
            if self.clock() >= self._due:
                self._begin()
            return
        working = self.working()
        recent = self.clock() < self._asked + ASK_SECONDS
        if working and recent and self.record.status == "running":
            return
        self._asked = self.clock()
        found = self.runs.run(self.record.run_id)
        if found is None:
            self._ended("SuperLink does not know it any more")
        elif found.status == "finished" and found.outcome == "completed":
            self.record = replace(self.record, run_id=None, status="completed", reason="")
        elif found.status == "finished":
            self._ended(found.details or found.outcome)
        elif found.status == "running" and not working:
            self._missed += 1
            if self._missed == MISSED_LOOKS:
                self.runs.stop(found.run_id)
                self._ended("its ServerApp was ended")
        else:
            self._missed = 0
            self.record = replace(self.record, status=found.status)

    def _begin(self) -> None:
        # Two ServerApps must never work on one run.
        self.clear()
        folder = run_folder(self.place, self.record.run)
        run_id = self.runs.start(
            {
                "fleet": str(folder / FLEET),
                "checkpoints": str(folder / CHECKPOINTS),
                "result": str(folder / RESULT),
                "directions": str(directions_of(self.place, self.record.run)),
                "waker": str(self.place.waker),
            }
        )
        self._missed = 0
        attempts = self.record.attempts + 1
        self.record = replace(self.record, run_id=run_id, attempts=attempts, status="pending")
        log.info("run %s: attempt %d is Flower's run %d", self.record.run, attempts, run_id)

    def _ended(self, reason: str) -> None:
        """Note that an attempt ended too early, and when there will be another."""
        version = newest_version(self.place, self.record.run)
        if version > self._version:
            self._version = version
            self._be_patient_again()
        log.warning("run %s: %s; again in %.0f s", self.record.run, reason, self._wait)
        self._due = self.clock() + self._wait
        self._wait = min(2 * self._wait, LONGEST_WAIT)
        self.record = replace(self.record, run_id=None, status="waiting", reason=one_line(reason))

    def _end_attempt(self) -> None:
        """Stop what the operator does not want any more."""
        if self.record.run_id is not None:
            found = self.runs.run(self.record.run_id)
            if found is not None and found.status != "finished":
                self.runs.stop(found.run_id)
            self.clear()
        if self.record.run:
            self.record = replace(self.record, run_id=None, status="stopped", reason="")
        self._be_patient_again()

    def _be_patient_again(self) -> None:
        self._due, self._wait = self.clock(), FIRST_WAIT


def run_folder(place: Place, run: str) -> Path:
    """Return where a run keeps its fleet, its checkpoints and its result."""
    return place.runs / run


def directions_of(place: Place, run: str) -> Path:
    """Return the file in which the operator's directions for a run stand."""
    return run_folder(place, run) / DIRECTIONS


def newest_version(place: Place, run: str) -> int:
    """Return how far a run has come: the number of its newest checkpoint, 0 without any."""
    folder = run_folder(place, run) / CHECKPOINTS
    if not folder.is_dir():
        return 0
    return max((version_of(path) for path in CheckpointFolder(folder).versions()), default=0)
