"""VirtualGrid: Flower's Grid without a network, over devices whose time is modelled.

A message's work is real: the ClientApp runs, trains in its own process and answers. Its timing is
not: the answer arrives when the device's class says it would, on a clock that jumps from one
arrival to the next. Two runs of one fleet are therefore equal, however fast the machine is.
"""

from __future__ import annotations

import heapq
import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import count

from flwr.app import Context, Error, Message, RecordDict
from flwr.common.constant import ErrorCode
from flwr.serverapp import Grid
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity

from edgetrain.coordinator.exchange import content_bytes
from edgetrain.coordinator.simulation.devices import SimulatedDevice
from edgetrain.keys import derive_key

__all__ = ["ClientApp", "VirtualClock", "VirtualGrid"]

ClientApp = Callable[[Message, Context], Message]
"""A Flower ClientApp, or any function like it."""

SIMULATED_ID = 1
"""The run, task and node that messages made here carry: there is no SuperLink to number them."""
EXAMPLES_METRIC = "num-examples"
EXPIRY_NOTICE_SECONDS = 1e-3
"""A message's end is noticed only after it, never by who waits exactly as long as it lives."""


class VirtualClock:
    """Seconds since the simulation began; they pass only while somebody waits."""

    def __init__(self, start: float = 0.0) -> None:
        self._now = start
        self.next_event: Callable[[], float | None] = lambda: None

    def now(self) -> float:
        """Return the virtual time in seconds."""
        return self._now

    def wait(self, seconds: float) -> None:
        """Let time pass: up to the next event, and `seconds` at most."""
        event = self.next_event()
        end = self._now + seconds
        self._now = max(self._now, end if event is None else min(end, event))


class VirtualGrid(Grid):
    """A Grid over simulated devices.

    `app` is called for each message with the Context that the device's SuperNode would give it,
    by at most `workers` threads at a time (default: one a processor). A context manager: leaving
    it ends the threads.
    """

    def __init__(
        self,
        app: ClientApp,
        devices: Sequence[SimulatedDevice],
        *,
        seed: int = 0,
        clock: VirtualClock | None = None,
        workers: int | None = None,
    ) -> None:
        TaskIdentity.task_id = TaskIdentity.run_id = TaskIdentity.node_id = SIMULATED_ID
        self.clock = clock or VirtualClock()
        self.clock.next_event = self._next_arrival
        self._app = app
        self._devices = {device.node_id: device for device in devices}
        self._contexts = {device.node_id: context_of(device) for device in devices}
        self._seed = seed
        self._pool = ThreadPoolExecutor(workers or os.cpu_count() or 1, "device")
        self._ids = count(1)
        self._working: list[tuple[float, str, Message, Future[Message]]] = []
        self._arrivals: list[tuple[float, str]] = []
        self._landed: dict[str, float] = {}
        self._free: dict[int, float] = {}
        self._replies: dict[str, Message] = {}
        self._run: Run | None = None

    def __enter__(self) -> VirtualGrid:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the threads; work that has not begun is dropped."""
        self._pool.shutdown(wait=True, cancel_futures=True)

    def set_run(self, run: Run) -> None:
        """Set the run that this Grid works in."""
        self._run = run

    @property
    def run(self) -> Run:
        """The run that was set. Raises RuntimeError when none was."""
        if self._run is None:
            raise RuntimeError("a simulation has no Flower run")
        return self._run

    def create_message(
        self,
        content: RecordDict,
        message_type: str,
        dst_node_id: int,
        group_id: str,
        ttl: float | None = None,
    ) -> Message:
        """Return a message; the constructor of Message does the same."""
        return Message(content, dst_node_id, message_type, ttl=ttl, group_id=group_id)

    def get_node_ids(self) -> Iterable[int]:
        """Return the node ids of all devices, also of those that are away."""
        return list(self._devices)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Give each message to its device and return the messages' ids."""
        return [self._push(message) for message in messages]

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Return the replies to these messages that have arrived by now; each only once."""
        self._land()
        arrived = sorted(
            (self._landed[identity], identity)
            for identity in set(message_ids)
            if identity in self._landed
        )
        for _, identity in arrived:
            del self._landed[identity]
        return [self._replies.pop(identity) for _, identity in arrived]

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        """Push messages and return the replies that arrive within `timeout` virtual seconds."""
        waiting = set(self.push_messages(messages))
        end = None if timeout is None else self.clock.now() + timeout
        replies: list[Message] = []
        while waiting:
            for reply in self.pull_messages(waiting):
                waiting.discard(reply.metadata.reply_to_message_id)
                replies.append(reply)
            left = float("inf") if end is None else end - self.clock.now()
            if left <= 0:
                break
            if waiting:
                self.clock.wait(left)
        return replies

    def _push(self, message: Message) -> str:
        device = self._devices[message.metadata.dst_node_id]
        identity = f"message-{next(self._ids):09d}"
        message.metadata.__dict__["_message_id"] = identity  # Flower's SuperLink does it so
        if self._is_away(device, message):
            error = Error(ErrorCode.NODE_UNAVAILABLE, f"{device.name} is away")
            self._arrive(self.clock.now(), identity, Message(error, reply_to=message))
        else:
            context = self._contexts[device.node_id]
            future = self._pool.submit(answer, self._app, message, context)
            self._working.append((self.clock.now(), identity, message, future))
        return identity

    def _is_away(self, device: SimulatedDevice, message: Message) -> bool:
        """Draw whether a device misses a round, from the seed, the round and its name alone."""
        if message.metadata.message_type == "query":
            return False
        key = derive_key("availability", self._seed, message.metadata.group_id, device.name)
        return key / 2.0**64 >= device.settings.availability

    def _settle(self) -> None:
        """Wait for the work in hand: when an answer arrives depends on what it holds.

        A device does one task at a time, in the order in which it was asked.
        """
        for asked, identity, message, future in self._working:
            reply = future.result()
            node_id = message.metadata.dst_node_id
            begun = max(asked, self._free.get(node_id, 0.0))
            when = begun + self._devices[node_id].seconds(
                message.metadata.message_type,
                examples_of(reply),
                content_bytes(message),
                content_bytes(reply),
            )
            self._free[node_id] = when
            if when - asked <= message.metadata.ttl:
                self._arrive(when, identity, reply)
            else:
                expired = Error(ErrorCode.REPLY_MESSAGE_UNAVAILABLE, "the reply came too late")
                when = asked + message.metadata.ttl + EXPIRY_NOTICE_SECONDS
                self._arrive(when, identity, Message(expired, reply_to=message))
        self._working.clear()

    def _arrive(self, when: float, identity: str, reply: Message) -> None:
        heapq.heappush(self._arrivals, (when, identity))
        self._replies[identity] = reply

    def _land(self) -> None:
        """Note which replies have arrived by now."""
        self._settle()
        while self._arrivals and self._arrivals[0][0] <= self.clock.now():
            when, identity = heapq.heappop(self._arrivals)
            self._landed[identity] = when

    def _next_arrival(self) -> float | None:
        """Return when the next reply arrives; those that nobody fetched in time are past."""
        self._land()
        return self._arrivals[0][0] if self._arrivals else None


def answer(app: ClientApp, message: Message, context: Context) -> Message:
    """Return the app's reply; an exception becomes the error message that Flower makes of it."""
    try:
        return app(message, context)
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"
        return Message(Error(ErrorCode.CLIENT_APP_RAISED_EXCEPTION, reason), reply_to=message)


def context_of(device: SimulatedDevice) -> Context:
    """Return the Context that a SuperNode would give the device's ClientApp."""
    return Context(
        run_id=SIMULATED_ID,
        node_id=device.node_id,
        node_config=dict(device.node_config()),
        state=RecordDict(),
        run_config={},
    )


def examples_of(reply: Message) -> int:
    """Return the examples that a reply says were used; 0 where it does not say."""
    if not reply.has_content():
        return 0
    metrics = [record.get(EXAMPLES_METRIC) for record in reply.content.metric_records.values()]
    return sum(int(value) for value in metrics if isinstance(value, int | float))
