"""The rounds of a fleet: select, send, fold each report as it comes, judge, keep, go on.

The loop works over any Flower Grid, a real SuperLink's or a simulated one, and over any clock. It
holds one model and one sum, never a list of updates.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from itertools import chain

from flwr.serverapp import Grid

from edgetrain.config import FleetConfig
from edgetrain.coordinator.accounts import Means, answered, introduced, tallied
from edgetrain.coordinator.admission import Standing, admitted
from edgetrain.coordinator.allowance import exhausted, withheld
from edgetrain.coordinator.answer import Answer
from edgetrain.coordinator.checkpoint import Checkpoint, CheckpointFolder
from edgetrain.coordinator.directions import Directions
from edgetrain.coordinator.dispatch import Dispatch
from edgetrain.coordinator.exchange import Clock, Exchange, RealClock
from edgetrain.coordinator.gathering import Gathering
from edgetrain.coordinator.global_model import GlobalModel
from edgetrain.coordinator.history import DeviceRecord, History, RoundRecord
from edgetrain.coordinator.journal import Entry, Journal
from edgetrain.coordinator.members import Register, data_shape
from edgetrain.coordinator.rounds import rule_of

__all__ = ["Event", "Loop", "Paused", "RoundBegun", "RoundEnded", "TaskAnswered"]

ENROL_SECONDS, RETURN_SECONDS = 600.0, 180.0
"""How long a fleet is waited for to be complete, at first and when a run goes on."""
EMPTY_ROUND_SECONDS = 60.0
"""A pause after a round in which nobody was there, so that a night does not use up a run."""
PAUSED_SECONDS = 1.0
"""How often a run that pauses looks whether it still should."""
MICROSECONDS = 6
"""Decimals of a second that a record keeps."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class RoundBegun:
    """A round begins, from 1, of so many."""

    round: int
    rounds: int
    asked: int


@dataclass(frozen=True)
class TaskAnswered:
    """A device has answered, or will not any more."""

    round: int
    answer: Answer


@dataclass(frozen=True)
class RoundEnded:
    """A round is over, and kept where there is a folder for it."""

    record: RoundRecord
    rounds: int


@dataclass(frozen=True)
class Paused:
    """The operator wants no new tasks: nobody is asked after this version until that changes."""

    version: int


Event = RoundBegun | TaskAnswered | RoundEnded | Paused


def ignore(_: Event) -> None:
    """Listen to nothing."""


class Loop:
    """One run of a fleet over a Grid.

    `notify` is called for every event; whatever it raises ends the run. With `checkpoints` the
    run goes on from the newest version there and keeps every new one. `directions` is asked before
    every round what the operator wants.
    """

    def __init__(
        self,
        grid: Grid,
        fleet: FleetConfig,
        *,
        clock: Clock | None = None,
        checkpoints: CheckpointFolder | None = None,
        notify: Callable[[Event], None] | None = None,
        directions: Callable[[], Directions] = Directions,
    ) -> None:
        self.fleet = fleet
        self.clock = clock or RealClock()
        self.checkpoints = checkpoints
        self.notify = notify or ignore
        self.directions = directions
        self.register = Register(grid, self.clock)
        self.dispatch = Dispatch(fleet, self.register, Exchange(grid, self.clock))
        self._rounds: list[RoundRecord] = []
        self._devices: dict[str, DeviceRecord] = {}
        self._begun = self.clock.now()

    @property
    def history(self) -> History:
        """What has happened so far."""
        return History(tuple(self._rounds), dict(self._devices))

    def run(self) -> GlobalModel:
        """Return the model after all rounds; `history` then tells how it came about.

        Raises an EdgetrainError when the fleet cannot start or a version cannot be kept.
        """
        self._begin()
        self.dispatch.begin(self.model)
        while self.model.version < self.fleet.training.rounds:
            self._pause()
            self.register.update()
            self._introduce()
            trainers, barred = self._allowed("train")
            if barred and not trainers:
                log.warning("no device may be asked to train any more")
                for answer in barred:
                    self._count(self.model.version + 1, answer)
                break
            self._round(trainers, barred)
        return self.model

    def _begin(self) -> None:
        """Wait for the fleet; go on from the newest version kept, or begin with a new model."""
        kept = self.checkpoints.newest(self.fleet.to_table()) if self.checkpoints else None
        counts = [device.count for device in self.fleet.devices]
        expected = 1 if None in counts else sum(count for count in counts if count is not None)
        self.register.gather(expected, RETURN_SECONDS if kept else ENROL_SECONDS)
        features, classes = data_shape(self.register.members.values())
        model = self.fleet.model.build(features, classes)
        if kept:
            self.model = kept.model
            self._rounds = list(kept.history.rounds)
            self._devices = dict(kept.history.devices)
        else:
            training = self.fleet.training
            self.model = GlobalModel.fresh(model, self.fleet.model.mode, training.seed)
            self._save()  # a journal is worth nothing without the version that it is about

    def _pause(self) -> None:
        """Wait for as long as the operator wants no new tasks."""
        if not self.directions().paused:
            return
        self.notify(Paused(self.model.version))
        while self.directions().paused:
            self.clock.wait(PAUSED_SECONDS)

    def _introduce(self) -> None:
        """Write who the members are into the records of their devices."""
        for name, member in self.register.members.items():
            self._devices[name] = introduced(member, self._devices.get(name))

    def _round(self, trainers: list[str], barred: list[Answer]) -> None:
        """Do one round: train, aggregate, judge, keep."""
        training, self._begun = self.fleet.training, self.clock.now()
        with self._journal() as journal:
            record = self._train(trainers, barred, journal)
        self.dispatch.begin(self.model)
        last = record.round == training.rounds or self.directions().paused
        if training.aggregation == "buffered" and not last:
            trainers, _ = self._allowed("train")  # nobody who trains waits while others judge
            self.dispatch.set_to_work(trainers, rule_of(training, len(trainers)))
        if record.round % training.evaluate_every == 0 or record.round == training.rounds:
            record = self._evaluate(record)
        record = replace(record, seconds=self._seconds())
        self._rounds.append(record)
        self._save()
        self.notify(RoundEnded(record, training.rounds))

    def _train(
        self, trainers: list[str], barred: list[Answer], journal: Journal | None
    ) -> RoundRecord:
        """Ask devices to train, fold what they send, and step to the next version.

        A report that counts is in the journal before it does.
        """
        gathering = Gathering(self.model)
        if journal is not None:
            self._recover(journal, gathering)
        accumulator, number = gathering.accumulator, self.model.version + 1
        rule = rule_of(self.fleet.training, len(trainers))
        if not rule.satisfied(accumulator):
            self.dispatch.set_to_work(trainers, rule)
        asked = self.dispatch.asked
        self.notify(RoundBegun(number, self.fleet.training.rounds, len(asked)))
        for answer in chain(barred, self.dispatch.reports(trainers, rule, accumulator)):
            outcome = admitted(answer, self._standing_of(answer, accumulator.examples))
            if outcome.status == "trained" and journal is not None:
                journal.append(Entry.of(outcome, self.model.version, self._seconds()))
            gathering.take(outcome, outcome.task.state if outcome.task else None)
            self._count(number, outcome)
        if not accumulator.examples:
            log.warning("round %d: no device has sent an update", number)
            self.clock.wait(EMPTY_ROUND_SECONDS)
        self.model = accumulator.apply()
        return gathering.record(len(asked))

    def _recover(self, journal: Journal, gathering: Gathering) -> None:
        """Take in what the round had counted before the run was cut off."""
        seconds = 0.0
        for entry in journal.entries():
            gathering.take(entry.answer, entry.sent)
            self._record(entry.answer)
            report, seconds = entry.answer.report, entry.seconds
            if report is not None and report.version == self.model.version:
                self.dispatch.asked.add(report.device)
        self._begun = self.clock.now() - seconds

    def _evaluate(self, record: RoundRecord) -> RoundRecord:
        """Ask the held-out devices to judge the new version."""
        judges, barred = self._allowed("evaluate")
        means = Means()
        for answer in chain(barred, self.dispatch.judgements(judges)):
            outcome = admitted(answer, self._standing_of(answer))
            means.add(outcome, "evaluated")
            record = tallied(record, outcome)
            self._count(record.round, outcome)
        return replace(record, accuracy=means.accuracy, loss=means.loss, judged=means.examples)

    def _allowed(self, role: str) -> tuple[list[str], list[Answer]]:
        """Return who of a role may be asked, and what stands for the answers of all others."""
        directions = self.directions()
        classes = {one.name: directions.allowed(one) for one in self.fleet.devices}
        names, barred = [], []
        for member in [one for one in self.register.members.values() if one.role == role]:
            known = self._devices.get(member.name) or introduced(member)
            if reason := exhausted(known, classes.get(member.device_class)):
                barred.append(withheld(member, reason))
            else:
                names.append(member.name)
        return names, barred

    def _standing_of(self, answer: Answer, examples: int = 0) -> Standing:
        """Return what an answer is judged by, in a round that weighs so many examples already."""
        member = self.register.members.get(answer.member.name, answer.member)
        return Standing(
            known=self._record_of(answer),
            node_id=member.node_id,
            version=self.model.version,
            staleness=self.fleet.training.staleness,
            examples=examples,
        )

    def _record_of(self, answer: Answer) -> DeviceRecord:
        """Return what is known of the device that an answer is by."""
        return self._devices.get(answer.member.name) or introduced(answer.member)

    def _count(self, round: int, answer: Answer) -> None:
        """Write an answer into its device's record and tell whoever listens."""
        if answer.refusal:
            log.warning("%s: %s", answer.member.name, answer.reason)
        self._record(answer)
        self.notify(TaskAnswered(round, answer))

    def _record(self, answer: Answer) -> None:
        """Write an answer into its device's record."""
        self._devices[answer.member.name] = answered(self._record_of(answer), answer)

    def _seconds(self) -> float:
        """Return how long the round has taken, rounded as JSON will have it."""
        return round(self.clock.now() - self._begun, MICROSECONDS)

    def _journal(self) -> AbstractContextManager[Journal | None]:
        """Return a context that holds the round's journal, if the run is kept at all."""
        return self.checkpoints.open_journal(self.model) if self.checkpoints else nullcontext()

    def _save(self) -> None:
        """Keep the present version, if the run is kept at all."""
        if self.checkpoints is not None:
            self.checkpoints.save(Checkpoint(self.model, self.history, self.fleet.to_table()))
