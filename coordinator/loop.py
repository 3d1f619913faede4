"""The rounds of a fleet: select, send, fold each report as it comes, judge, keep, go on.

The loop works over any Flower Grid, a real SuperLink's or a simulated one, and over any clock. It
holds one model and one sum, never a list of updates.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import chain

from flwr.serverapp import Grid

from edgetrain.config import FleetConfig
from edgetrain.coordinator.accounts import (
    Loss,
    answered,
    folded,
    introduced,
    mean,
    tallied,
    weighed,
)
from edgetrain.coordinator.aggregate import Accumulator
from edgetrain.coordinator.allowance import audited, exhausted, withheld
from edgetrain.coordinator.checkpoint import Checkpoint, CheckpointFolder
from edgetrain.coordinator.exchange import Answer, Clock, Member, RealClock, ask
from edgetrain.coordinator.global_model import GlobalModel
from edgetrain.coordinator.history import History, RoundRecord
from edgetrain.coordinator.members import data_shape, enrol, gather
from edgetrain.coordinator.select import select
from edgetrain.task import Kind, Task

__all__ = ["Event", "Loop", "RoundBegun", "RoundEnded", "TaskAnswered"]

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


Event = RoundBegun | TaskAnswered | RoundEnded


def ignore(_: Event) -> None:
    """Listen to nothing."""


class Loop:
    """One run of a fleet over a Grid.

    `notify` is called for every event; whatever it raises ends the run. With `checkpoints` the
    run goes on from the newest version there and keeps every new one.
    """

    def __init__(
        self,
        grid: Grid,
        fleet: FleetConfig,
        *,
        clock: Clock | None = None,
        checkpoints: CheckpointFolder | None = None,
        notify: Callable[[Event], None] | None = None,
    ) -> None:
        self.grid = grid
        self.fleet = fleet
        self.clock = clock or RealClock()
        self.checkpoints = checkpoints
        self.notify = notify or ignore
        self.history = History()
        self.members: dict[str, Member] = {}

    def run(self) -> GlobalModel:
        """Return the model after all rounds; `history` then tells how it came about.

        Raises an EdgetrainError when the fleet cannot start or a version cannot be kept.
        """
        counts = [device.count for device in self.fleet.devices]
        expected = 1 if None in counts else sum(count for count in counts if count is not None)
        self.members = gather(self.grid, self.clock, expected)
        self.model = self._begin()
        known = self.history.devices
        devices = {name: introduced(one, known.get(name)) for name, one in self.members.items()}
        self.history = replace(self.history, devices={**known, **devices})
        while self.model.version < self.fleet.training.rounds:
            self.members = enrol(self.grid, self.clock, self.members)
            trainers, barred = self._allowed("train")
            if barred and not trainers:
                log.warning("no device may be asked to train any more")
                for answer in barred:
                    self._count(self.model.version + 1, answer)
                break
            self._round(trainers, barred)
        return self.model

    def _begin(self) -> GlobalModel:
        """Return the newest version kept, or a new model that fits the members' data."""
        features, classes = data_shape(self.members.values())
        model = self.fleet.model.build(features, classes)
        if self.checkpoints is not None:
            kept = self.checkpoints.newest(self.fleet.to_table())
            if kept is not None:
                self.history = kept.history
                return kept.model
        return GlobalModel.fresh(model, self.fleet.model.mode, self.fleet.training.seed)

    def _round(self, trainers: list[str], barred: list[Answer]) -> None:
        """Do one round: train, aggregate, judge, keep."""
        training, begun = self.fleet.training, self.clock.now()
        names = select(trainers, training.fraction, training.seed, self.model.version)
        number = self.model.version + 1
        self.notify(RoundBegun(number, training.rounds, len(names)))
        record = self._train(RoundRecord(number, asked=len(names)), names, barred)
        if number % training.evaluate_every == 0 or number == training.rounds:
            record = self._evaluate(record)
        # Rounded, so that a run that was cut off tells the same story as one that was not.
        record = replace(record, seconds=round(self.clock.now() - begun, MICROSECONDS))
        self.history = replace(self.history, rounds=(*self.history.rounds, record))
        if self.checkpoints is not None:
            self.checkpoints.save(Checkpoint(self.model, self.history, self.fleet.to_table()))
        self.notify(RoundEnded(record, training.rounds))

    def _train(
        self, record: RoundRecord, names: tuple[str, ...], barred: list[Answer]
    ) -> RoundRecord:
        """Ask devices to train, fold what they send, and step to the next version."""
        accumulator = Accumulator(self.model, self.fleet.training.codec)
        losses: list[Loss] = []
        for answer in chain(barred, self._ask("train", names, record.round)):
            outcome = folded(accumulator, self._audited(answer))
            losses += weighed(outcome, "trained")
            record = tallied(record, outcome)
            self._count(record.round, outcome)
        if not accumulator.examples:
            log.warning("round %d: no device has sent an update", record.round)
        self.model = accumulator.apply()
        return replace(
            record,
            reported=len(accumulator.devices),
            examples=accumulator.examples,
            training_loss=mean(losses),
        )

    def _evaluate(self, record: RoundRecord) -> RoundRecord:
        """Ask the held-out devices to judge the new version."""
        judges, barred = self._allowed("evaluate")
        losses: list[Loss] = []
        for answer in chain(barred, self._ask("evaluate", tuple(judges), record.round)):
            outcome = self._audited(answer)
            losses += weighed(outcome, "evaluated")
            record = tallied(record, outcome)
            self._count(record.round, outcome)
        judged = sum(loss.examples for loss in losses)
        right = sum(loss.right for loss in losses)
        accuracy = right / judged if judged else None
        return replace(record, accuracy=accuracy, loss=mean(losses), judged=judged)

    def _allowed(self, role: str) -> tuple[list[str], list[Answer]]:
        """Return who of a role may be asked, and what stands for the answers of all others."""
        classes = {one.name: one for one in self.fleet.devices}
        names, barred = [], []
        for member in [one for one in self.members.values() if one.role == role]:
            known = self.history.devices.get(member.name) or introduced(member)
            if reason := exhausted(known, classes.get(member.device_class)):
                barred.append(withheld(member, reason))
            else:
                names.append(member.name)
        return names, barred

    def _audited(self, answer: Answer) -> Answer:
        """Return an answer after its ledger's digest, if there is one, was checked."""
        known = self.history.devices.get(answer.member.name)
        return audited(answer, known.digest if known else None)

    def _ask(self, kind: Kind, names: tuple[str, ...], round: int) -> Iterator[Answer]:
        """Send a task about the present version to each device; yield the answers as they come."""
        training, version, state = self.fleet.training, self.model.version, self.model.state()
        rate = training.rate(min(version, training.rounds - 1))

        def task_for(member: Member) -> Task:
            return Task(
                kind,
                version,
                member.name,
                self.model.model,
                self.fleet.model.mode,
                training.batch,
                training.local_epochs,
                rate,
                training.codec,
                training.seed,
                training.deadline,
                state,
            )

        members = [self.members[name] for name in names]
        yield from ask(
            self.grid,
            self.clock,
            members,
            task_for,
            group=f"{kind}-{round}",
            deadline=training.deadline,
        )

    def _count(self, round: int, answer: Answer) -> None:
        """Write an answer into its device's record and tell whoever listens."""
        name = answer.member.name
        before = self.history.devices.get(name) or introduced(answer.member)
        devices = {**self.history.devices, name: answered(before, answer)}
        self.history = replace(self.history, devices=devices)
        self.notify(TaskAnswered(round, answer))
