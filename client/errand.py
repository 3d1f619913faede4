"""One instruction: from the journal through the work to the coordinator's receipt of the reply.

Each step is in the journal before the next one begins, so that whoever ends this process, at any
moment, ends it between two of them:

    pulled      the instruction is ours; the coordinator will not give it again
    started     another attempt at the work begins, where the last one's checkpoint ends
    answered    the reply is on our disk
    announced   the coordinator may know of the reply, and have some of its objects
    pushed      it has them all; what is left is to say that we are done

The work of a task is deterministic and its reply is always made the same, so that a step that is
done twice has the effect of one.
"""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from edgetrain import tensorfile
from edgetrain.checkpoint import trainer_fields
from edgetrain.client.answer import introduction, work
from edgetrain.client.backoff import Backoff
from edgetrain.client.fleet.incoming import save_payload
from edgetrain.client.fleet.messages import Instruction, Reply, make_reply
from edgetrain.client.fleet.objects import (
    FlowerObject,
    array_record,
    config_record,
    metric_record,
    record_dict,
)
from edgetrain.client.fleet_api import ANY_SESSION, RUN_ENDED, FleetApi
from edgetrain.client.job import Workplace
from edgetrain.client.journal import Journal
from edgetrain.client.node_settings import NodeSettings
from edgetrain.client.own_samples import exported
from edgetrain.client.records import (
    ABOUT,
    HELLO,
    METRICS,
    PAYLOAD,
    SERIALISATION,
    about_report,
    metrics_of,
)
from edgetrain.client.state import StateFolder
from edgetrain.errors import (
    DataError,
    EdgetrainError,
    FleetError,
    PayloadError,
    StorageError,
    WorkerError,
)
from edgetrain.storage import forget_pages, map_file
from edgetrain.task import Task, one_line

__all__ = ["ATTEMPTS", "Errand", "Step"]

ATTEMPTS = 10
"""A task that was cut off so many times at one point, by itself or by others, is given up."""
PATIENCE = 8
"""How often one object is asked for before the whole errand is put off."""


class Step(Protocol):
    """Is told what is about to be done: "pulling", "training", "evaluating" or "pushing"."""

    def __call__(self, state: str, detail: str = "") -> None: ...


class Errand:
    """The instruction in a journal that is not empty, at whatever point it has reached."""

    def __init__(
        self,
        state: StateFolder,
        journal: Journal,
        api: FleetApi,
        *,
        step: Step,
        wait: Callable[[float], None],
    ) -> None:
        self.instruction = Instruction.from_fields(journal.events[0]["instruction"])
        self._state = state
        self._journal = journal
        self._api = api
        self._step = step
        self._wait = wait

    def carry_out(self) -> str:
        """Do all that is left to do, and return how it ended, in a few words.

        Raises FleetError and StorageError when it has to be tried again later.
        """
        try:
            outcome = "dropped: it came too late" if self._is_late() else self._carry_out()
        except FleetError as error:
            if error.code != RUN_ENDED:
                raise
            outcome = "dropped: its run has ended"
        self._journal.clear()
        self._state.clear_work()
        return outcome

    def _is_late(self) -> bool:
        """Say whether nobody can wait for a reply, as far as is known."""
        clock = self._api.transport.clock
        return clock.heard and clock.now() > self.instruction.expires_at

    def _last(self, event: str) -> Mapping[str, Any] | None:
        """Return the last event of a kind in the journal."""
        return next((one for one in reversed(self._journal.events) if one["event"] == event), None)

    def _answer(self) -> Mapping[str, Any]:
        """Return the event that says what the reply is; work for it if nobody has yet."""
        if found := self._last("answered"):
            return found
        clock = self._api.transport.clock
        started = clock.now()
        try:
            answer = self._respond()
        except (FleetError, StorageError):
            raise
        except EdgetrainError as error:
            answer = {"error": [error.exit_code, one_line(error)]}
        except Exception as error:
            traceback.print_exc(file=sys.stderr)
            reason = one_line(f"internal error, {type(error).__name__}: {error}")
            answer = {"error": [EdgetrainError.exit_code, reason]}
        # A clock that was never set right must not make a reply that expires before it is made.
        latest = self.instruction.expires_at - 1
        created_at = min(max(clock.now(), self.instruction.created_at), latest)
        answer |= {"event": "answered", "created_at": created_at, "seconds": clock.now() - started}
        self._journal.append(answer)
        return answer

    def _respond(self) -> dict[str, Any]:
        """Return the records of the reply; a report's bytes lie in the file `reply` then."""
        node = self._node()
        if self.instruction.message_type == "query":
            known = {name: value for name, value in introduction(node).items() if value is not None}
            return {HELLO: known}
        self._state.work.mkdir(exist_ok=True)
        incoming = self._state.work / "incoming"
        if not incoming.exists():
            self._step("pulling")
            save_payload(self._pull, self.instruction.content_id, incoming)
        checkpoint = self._state.work / f"{self.instruction.content_id}.checkpoint"
        done = steps_kept(checkpoint)
        begun = [event for event in self._journal.events if event["event"] == "started"]
        if sum(event.get("kept", 0) == done for event in begun) >= ATTEMPTS:
            raise WorkerError(f"given up: cut off in {ATTEMPTS} attempts that got no further")
        self._journal.append({"event": "started", "kept": done})
        doing = "training" if self.instruction.message_type == "train" else "evaluating"
        self._step(doing, f"going on after {done} micro-batches" if done else "")
        # A worker that outlives us for a moment writes its report where nobody looks for it.
        folder = self._state.work / str(len(begun))
        folder.mkdir(exist_ok=True)
        encoded = map_file(incoming)
        task = Task.decode(encoded)
        # It has been checked; from here on the state is the worker's alone to read.
        forget_pages(encoded)
        workplace = Workplace(folder, incoming, checkpoint, node.checkpoint)
        report = work(task, self.instruction.message_type, node, workplace)
        report.write(self._state.work / "reply")
        return {ABOUT: about_report(report), METRICS: metrics_of(report)}

    def _node(self) -> NodeSettings:
        """Return what the owner says of this device; its name is the one it was enrolled by.

        Where no data file was named, the data are those that the device has recorded.
        """
        recorded = None if self._state.settings.get("dataset") else exported(self._state)
        settings = {
            "dataset": str(recorded) if recorded else None,
            "ledger_key": str(self._state.key),
            **self._state.settings,
            "device": self._state.enrolment.name,
        }
        return NodeSettings.of(settings)

    def _pull(self, object_id: str) -> memoryview:
        """Return an object's content, if need be after waiting for it or for the network."""
        backoff = Backoff()
        for _ in range(PATIENCE):
            try:
                content = self._api.pull_object(self.instruction.run_id, object_id)
            except FleetError as error:
                if error.status is not None:
                    raise
                content = None
            if content is not None:
                return content
            self._wait(backoff.next())
        raise FleetError("the coordinator does not have all of the instruction yet")

    def _carry_out(self) -> str:
        answer = self._answer()
        outcome = "delivered"
        if not self._last("pushed"):
            self._step("pushing")
            outcome = self._push(answer)
            self._journal.append({"event": "pushed"})
        self._api.confirm(self.instruction)
        return outcome

    def _push(self, answer: Mapping[str, Any]) -> str:
        reply, run_id = self._reply(answer), self.instruction.run_id
        first = not self._last("announced")
        if first:
            self._journal.append({"event": "announced"})
        session, missing = self._api.push_message(reply, answer["seconds"])
        if missing:
            for piece in wanted(reply, missing):
                if not self._api.push_object(run_id, session, piece):
                    raise FleetError("the coordinator did not wait for all of the reply")
            return "delivered"
        if first:
            return "dropped: nobody waits for it any more"
        # A ServerApp takes a reply as soon as it is announced, and then waits for its objects; from
        # then on Flower does not say what is missing. The session that we were cut off in may be
        # open still, and takes what it misses.
        taken = [self._api.push_object(run_id, ANY_SESSION, piece) for piece in reply.root.walk()]
        return "delivered" if any(taken) else "delivered before, or not waited for any more"

    def _reply(self, answer: Mapping[str, Any]) -> Reply:
        error = answer.get("error")
        return make_reply(
            self.instruction,
            self._api.node_id,
            answer["created_at"],
            None if error else self._content(answer),
            (error[0], error[1]) if error else None,
        )

    def _content(self, answer: Mapping[str, Any]) -> FlowerObject:
        if HELLO in answer:
            return record_dict({HELLO: config_record(answer[HELLO])})
        payload = map_file(self._state.work / "reply")
        return record_dict(
            {
                ABOUT: config_record(answer[ABOUT]),
                PAYLOAD: array_record(PAYLOAD, SERIALISATION, payload),
                METRICS: metric_record(answer[METRICS]),
            }
        )


def steps_kept(checkpoint: Path) -> int:
    """Return the micro-batches whose work a file keeps; 0 where it keeps none that can be used."""
    try:
        _, metadata = tensorfile.read(checkpoint)
        return int(trainer_fields(checkpoint, metadata)["steps"])
    except (DataError, PayloadError):
        return 0


def wanted(reply: Reply, missing: list[str]) -> list[FlowerObject]:
    """Return the objects of a reply that are asked for. Raises PayloadError for those of others."""
    pieces = {piece.object_id: piece for piece in reply.root.walk()}
    if strange := set(missing) - pieces.keys():
        raise PayloadError(f"{len(strange)} objects are asked for that the reply has not")
    return [piece for name, piece in pieces.items() if name in missing]
