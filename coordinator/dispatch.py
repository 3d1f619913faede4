"""Who is at work on which version of the model, and who is asked next."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

from edgetrain.config import FleetConfig
from edgetrain.coordinator.aggregate import Accumulator
from edgetrain.coordinator.answer import Answer, Member
from edgetrain.coordinator.exchange import LATE, Exchange
from edgetrain.coordinator.global_model import GlobalModel
from edgetrain.coordinator.members import Register
from edgetrain.coordinator.rounds import Rule
from edgetrain.coordinator.select import select
from edgetrain.task import Kind, Task

__all__ = ["Dispatch"]

UNNEEDED = "unneeded"
TOO_LATE = "late: no answer by the deadline"


class Dispatch:
    """The tasks about the present version of the model, and those about older ones still out.

    `asked` are the devices that were asked to train the present version: each is once.
    """

    def __init__(self, fleet: FleetConfig, register: Register, exchange: Exchange) -> None:
        self.fleet = fleet
        self.register = register
        self.exchange = exchange
        self.asked: set[str] = set()

    def begin(self, model: GlobalModel) -> None:
        """Go over to another version: all tasks from now on are about it."""
        training = self.fleet.training
        self.version = model.version
        self.asked.clear()
        self._task = Task(
            kind="train",
            version=model.version,
            device="any",
            model=model.model,
            mode=model.mode,
            batch=training.batch,
            local_epochs=training.local_epochs,
            learning_rate=training.rate(min(model.version, training.rounds - 1)),
            codec=training.codec,
            seed=training.seed,
            deadline=training.deadline,
            state=model.state(),
        )

    def set_to_work(self, trainers: Iterable[str], rule: Rule) -> None:
        """Ask idle devices to train until enough are at work."""
        busy = {sent.member.name for sent in self.exchange.out("train")}
        idle = [name for name in trainers if name not in busy and name not in self.asked]
        room = rule.at_work - len(busy if rule.continuous else self.asked)
        names = select(idle, max(0, room), self.fleet.training.seed, self.version)
        self.asked.update(names)
        self._send("train", names)

    def reports(
        self, trainers: Iterable[str], rule: Rule, accumulator: Accumulator
    ) -> Iterator[Answer]:
        """Yield answers, keeping devices at work by the rule, until the sum has enough."""
        end = self._deadline()
        # Where all are still at work for earlier rounds, this one begins with whoever ends.
        continuous = rule.continuous or not self.asked
        while not rule.satisfied(accumulator):
            answer = self.exchange.next(
                "train", end, lambda task: continuous or task.version == self.version
            )
            if answer is None:
                break
            yield answer
            if continuous and not rule.satisfied(accumulator):
                self.set_to_work(trainers, rule)
        yield from self._given_up(enough=rule.satisfied(accumulator))

    def judgements(self, judges: Iterable[str]) -> Iterator[Answer]:
        """Send the present version to those who judge it; yield the answers as they come."""
        end = self._deadline()
        self._send("evaluate", judges)
        while answer := self.exchange.next("evaluate", end):
            yield answer
        yield from self.exchange.give_up("evaluate", LATE, TOO_LATE)

    def _deadline(self) -> float | None:
        """Return the time at which a round that begins now has to end, or None."""
        deadline = self.fleet.training.deadline
        return None if deadline is None else self.exchange.clock.now() + deadline

    def _given_up(self, *, enough: bool) -> list[Answer]:
        """Return answers for the tasks whose reports would be refused in the next round."""
        training, version = self.fleet.training, self.version + 1
        lag = 0 if version == training.rounds else training.staleness
        # Not to be needed is no fault, and has no reason to be listed.
        status, reason = (UNNEEDED, "") if enough and not lag else (LATE, TOO_LATE)
        return self.exchange.give_up(
            "train", status, reason, lambda task: task.version < version - lag
        )

    def _send(self, kind: Kind, names: Iterable[str]) -> None:
        """Send a task about the present version to each device."""
        training = self.fleet.training
        round, life = self.version, training.deadline
        if kind == "train":
            round += 1
            life = None if life is None else life * (1 + training.staleness)

        def task_for(member: Member) -> Task:
            return replace(self._task, kind=kind, device=member.name)

        members = [self.register.members[name] for name in names]
        self.exchange.send(members, task_for, group=f"{kind}-{round}", life=life)
