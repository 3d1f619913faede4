"""The rounds of a fleet: select, send, fold each report as it comes, judge, keep, go on.

The loop works over any Flower Grid, a real SuperLink's or a simulated one, and over any clock. It
holds one model and one sum, never a list of updates.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
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
from edgetrain.coordinator.exchange import LATE, Answer, Clock, Exchange, Member, RealClock
from edgetrain.coordinator.global_model import GlobalModel
from edgetrain.coordinator.history import History, RoundRecord
from edgetrain.coordinator.members import Register, data_shape
from edgetrain.coordinator.rounds import Rule, rule_of
from edgetrain.coordinator.select import select
from edgetrain.task import Kind, Task

__all__ = ["Event", "Loop", "RoundBegun", "RoundEnded", "TaskAnswered"]

EMPTY_ROUND_SECONDS = 60.0
"""A pause after a round in which nobody was there, so that a night does not use up a run."""
MICROSECONDS = 6
"""Decimals of a second that a record keeps."""

UNNEEDED = "unneeded"
ENOUGH = "not needed: the round had enough reports"
TOO_LATE = "late: no answer by the deadline"

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
        self.fleet = fleet
        self.clock = clock or RealClock()
        self.checkpoints = checkpoints
        self.notify = notify or ignore
        self.history = History()
        self.register = Register(grid, self.clock)
        self.exchange = Exchange(grid, self.clock)
        self._asked: set[str] = set()
        self._unsent: list[Answer] = []

    def run(self) -> GlobalModel:
        """Return the model after all rounds; `history` then tells how it came about.

        Raises an EdgetrainError when the fleet cannot start or a version cannot be kept.
        """
        counts = [device.count for device in self.fleet.devices]
        expected = 1 if None in counts else sum(count for count in counts if count is not None)
        self.register.gather(expected)
        self.model = self._begin()
        while self.model.version < self.fleet.training.rounds:
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

    def _begin(self) -> GlobalModel:
        """Return the newest version kept, or a new model that fits the members' data."""
        features, classes = data_shape(self.register.members.values())
        model = self.fleet.model.build(features, classes)
        if self.checkpoints is not None:
            kept = self.checkpoints.newest(self.fleet.to_table())
            if kept is not None:
                self.history = kept.history
                return kept.model
        return GlobalModel.fresh(model, self.fleet.model.mode, self.fleet.training.seed)

    def _introduce(self) -> None:
        """Write who the members are into the records of their devices."""
        known = self.history.devices
        members = self.register.members
        devices = {name: introduced(one, known.get(name)) for name, one in members.items()}
        self.history = replace(self.history, devices={**known, **devices})

    def _round(self, trainers: list[str], barred: list[Answer]) -> None:
        """Do one round: train, aggregate, judge, keep."""
        training, begun = self.fleet.training, self.clock.now()
        number = self.model.version + 1
        record = self._train(RoundRecord(number), trainers, barred)
        if training.aggregation == "buffered" and number < training.rounds:
            trainers, _ = self._allowed("train")  # nobody who trains waits while others judge
            self._unsent += self._set_to_work(trainers, rule_of(training, len(trainers)))
        if number % training.evaluate_every == 0 or number == training.rounds:
            record = self._evaluate(record)
        # Rounded, so that a run that was cut off tells the same story as one that was not.
        record = replace(record, seconds=round(self.clock.now() - begun, MICROSECONDS))
        self.history = replace(self.history, rounds=(*self.history.rounds, record))
        if self.checkpoints is not None:
            self.checkpoints.save(Checkpoint(self.model, self.history, self.fleet.to_table()))
        self.notify(RoundEnded(record, training.rounds))

    def _train(self, record: RoundRecord, trainers: list[str], barred: list[Answer]) -> RoundRecord:
        """Ask devices to train, fold what they send, and step to the next version."""
        training = self.fleet.training
        accumulator = Accumulator(self.model, training.codec, training.staleness)
        losses: list[Loss] = []
        for answer in chain(barred, self._reports(trainers, accumulator)):
            outcome = folded(accumulator, self._audited(answer))
            losses += weighed(outcome, "trained")
            record = tallied(record, outcome)
            self._count(record.round, outcome)
        if not accumulator.examples:
            log.warning("round %d: no device has sent an update", record.round)
            self.clock.wait(EMPTY_ROUND_SECONDS)
        self.model, asked = accumulator.apply(), len(self._asked)
        self._asked.clear()
        return replace(
            record,
            asked=asked,
            reported=len(accumulator.devices),
            stale=accumulator.stale,
            examples=accumulator.examples,
            training_loss=mean(losses),
        )

    def _reports(self, trainers: list[str], accumulator: Accumulator) -> Iterator[Answer]:
        """Keep devices at work by the round's rule, and yield answers until it has enough."""
        training, version = self.fleet.training, self.model.version
        rule = rule_of(training, len(trainers))
        end = None if training.deadline is None else self.clock.now() + training.deadline
        self._unsent += self._set_to_work(trainers, rule)
        self.notify(RoundBegun(version + 1, training.rounds, len(self._asked)))
        while self._unsent:
            yield self._unsent.pop()
        # Where all are still at work for earlier rounds, this one begins with whoever ends.
        continuous = rule.continuous or not self._asked
        while not rule.satisfied(accumulator):
            answer = self.exchange.next(
                "train", end, lambda task: continuous or task.version == version
            )
            if answer is None:
                break
            yield answer
            if continuous and not rule.satisfied(accumulator):
                yield from self._set_to_work(trainers, rule)
        yield from self._given_up(version + 1, enough=rule.satisfied(accumulator))

    def _set_to_work(self, trainers: list[str], rule: Rule) -> list[Answer]:
        """Ask idle devices, each once a version; return answers for those not reached."""
        busy = {sent.member.name for sent in self.exchange.out("train")}
        idle = [name for name in trainers if name not in busy and name not in self._asked]
        room = rule.at_work - (len(busy) if rule.continuous else 0)
        seed = self.fleet.training.seed
        names = select(idle, max(0, room), seed, self.model.version)
        self._asked.update(names)
        return self._send("train", names)

    def _given_up(self, next_version: int, *, enough: bool) -> list[Answer]:
        """Return answers for the tasks whose reports would be refused from now on."""
        training = self.fleet.training
        ending = next_version == training.rounds
        lag = 0 if ending else training.staleness
        status, reason = (UNNEEDED, ENOUGH) if enough and not lag else (LATE, TOO_LATE)
        oldest = next_version - lag
        return self.exchange.give_up("train", status, reason, lambda task: task.version < oldest)

    def _evaluate(self, record: RoundRecord) -> RoundRecord:
        """Ask the held-out devices to judge the new version."""
        judges, barred = self._allowed("evaluate")
        losses: list[Loss] = []
        for answer in chain(barred, self._judgements(judges)):
            outcome = self._audited(answer)
            losses += weighed(outcome, "evaluated")
            record = tallied(record, outcome)
            self._count(record.round, outcome)
        judged = sum(loss.examples for loss in losses)
        right = sum(loss.right for loss in losses)
        accuracy = right / judged if judged else None
        return replace(record, accuracy=accuracy, loss=mean(losses), judged=judged)

    def _judgements(self, judges: list[str]) -> Iterator[Answer]:
        """Send the new version to those who judge it; yield the answers as they come."""
        deadline = self.fleet.training.deadline
        end = None if deadline is None else self.clock.now() + deadline
        yield from self._send("evaluate", judges)
        while answer := self.exchange.next("evaluate", end):
            yield answer
        yield from self.exchange.give_up("evaluate", LATE, TOO_LATE)

    def _allowed(self, role: str) -> tuple[list[str], list[Answer]]:
        """Return who of a role may be asked, and what stands for the answers of all others."""
        classes = {one.name: one for one in self.fleet.devices}
        names, barred = [], []
        for member in [one for one in self.register.members.values() if one.role == role]:
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

    def _send(self, kind: Kind, names: Iterable[str]) -> list[Answer]:
        """Send a task about the present version to each device; return what was not taken."""
        training, version, state = self.fleet.training, self.model.version, self.model.state()
        rate = training.rate(min(version, training.rounds - 1))
        life = training.deadline
        if life is not None and kind == "train":
            life *= 1 + training.staleness

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

        members = [self.register.members[name] for name in names]
        group = f"{kind}-{version + (kind == 'train')}"
        return self.exchange.send(members, task_for, group=group, life=life)

    def _count(self, round: int, answer: Answer) -> None:
        """Write an answer into its device's record and tell whoever listens."""
        name = answer.member.name
        before = self.history.devices.get(name) or introduced(answer.member)
        devices = {**self.history.devices, name: answered(before, answer)}
        self.history = replace(self.history, devices=devices)
        self.notify(TaskAnswered(round, answer))
