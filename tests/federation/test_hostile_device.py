"""A device that was enrolled and means harm: the coordinator serves the others, and in time."""

from __future__ import annotations

import contextlib
import os
import socket
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from device_daemon import daemon
from federation import STOP_SECONDS, Federation, kept_checkpoint
from kept_versions import all_versions_kept
from small_fleet import write_fleet

from edgetrain.client.enrolment import read_enrolment
from edgetrain.client.fleet.identity import ServerClock, signed
from edgetrain.client.fleet.messages import Instruction, make_reply
from edgetrain.client.fleet.objects import (
    FlowerObject,
    array_record,
    config_record,
    make_object,
    record_dict,
)
from edgetrain.client.fleet.transport import Transport, trust
from edgetrain.client.fleet_api import FleetApi
from edgetrain.client.records import HELLO, PAYLOAD, SERIALISATION
from edgetrain.coordinator.journal import read_journal
from edgetrain.coordinator.simulation.devices import SimulatedDevice
from edgetrain.errors import FleetError, PayloadError
from edgetrain.signing import PrivateKey

ROUNDS = 4
"""The last is without it: whose answer is still on its way is not asked anything else."""
DEADLINE = 45.0
"""Seconds of a round in this test."""
MARGIN = 60.0
"""Seconds that a round may take beyond its deadline on a busy machine; a hang takes minutes."""
LOOK_SECONDS = 0.2
HEARTBEAT_SECONDS = 60.0
GIGABYTE = 1 << 30
FIELD_OF_A_GIGABYTE = b"\x0a\x80\x80\x80\x80\x04"
"""The head of a field in Protocol Buffers: its number, 1, its type, bytes, and how many."""
CONNECTIONS, HOLDS = 60, 100
"""Held open at a time, and for how many looks: longer than the door has patience."""
PROMPT = 30.0
"""Seconds of a round in which an honest device has reported, on a busy machine."""
ROUTES = ("pull-messages", "push-messages", "push-object", "pull-object", "send-node-heartbeat")


class HostileDevice:
    """A device with a key of its own that answers every task in another bad way."""

    def __init__(self, folder: Path, device: SimulatedDevice) -> None:
        enrolment = read_enrolment(folder / f"{device.name}.toml")
        self.address = enrolment.address
        self.context = trust(enrolment.ca)
        key = PrivateKey(enrolment.key.encode())
        self.api = FleetApi(Transport(enrolment.address, self.context, key, ServerClock()))
        self.name = device.name
        self.answers = [self.garbage, self.another, self.lies]
        self.given: list[str] = []
        self.ended = threading.Event()
        self.fault: BaseException | None = None

    def work(self) -> None:
        """Introduce itself as any device does, and then do harm until it is told to end."""
        try:
            self.api.activate(HEARTBEAT_SECONDS)
            while not self.ended.wait(LOOK_SECONDS):
                instruction = self.api.pull_message()
                if instruction is None:
                    continue
                if instruction.message_type == "query":
                    self.send(instruction, record_dict({HELLO: config_record(self.hello())}))
                    continue
                answer = self.answers[len(self.given) % len(self.answers)]
                self.given.append(answer.__name__)
                # What it is refused is the coordinator's to say.
                with contextlib.suppress(FleetError):
                    answer(instruction)
        except BaseException as error:
            self.fault = error
        finally:
            self.api.transport.close()

    def hello(self) -> dict[str, str | int]:
        return {
            "name": self.name,
            "device_class": "node",
            "role": "train",
            "examples": 50,
            "features": 20,
            "classes": 3,
        }

    def garbage(self, instruction: Instruction) -> None:
        """Answer with bytes that are no report, and once more."""
        for _ in range(2):
            self.send(instruction, self.payload(os.urandom(5000)))

    def another(self, instruction: Instruction) -> None:
        """Answer with objects of no kind that Flower has, and declare a gigabyte."""
        self.send(instruction, make_object("RecordDict", b"{}" * 5000))
        path, body = "/v1/fleet/push-object", b"\xff" * 1000
        for declared in (GIGABYTE, 10**18):
            assert raw_status(self, path, body, declared) in (400, 413)
        for route in ROUTES:
            for noise in (os.urandom(200), FIELD_OF_A_GIGABYTE + os.urandom(200)):
                with pytest.raises((FleetError, PayloadError)):
                    self.api.transport.post(f"/v1/fleet/{route}", noise, 1 << 12)

    def lies(self, instruction: Instruction) -> None:
        """Announce an answer, send other bytes for its objects, and never the right ones."""
        reply = make_reply(
            instruction, self.api.node_id, instruction.created_at, self.payload(bytes(4000))
        )
        session, missing = self.api.push_message(reply, 1.0)
        for object_id in missing:
            lie = FlowerObject(object_id, b"Message  3\0", b"lie", ())
            with contextlib.suppress(FleetError):
                self.api.push_object(instruction.run_id, session, lie)

    def payload(self, data: bytes) -> FlowerObject:
        return record_dict({PAYLOAD: array_record(PAYLOAD, SERIALISATION, data)})

    def send(self, instruction: Instruction, content: FlowerObject) -> None:
        """Send a whole answer."""
        reply = make_reply(instruction, self.api.node_id, instruction.created_at, content)
        session, missing = self.api.push_message(reply, 1.0)
        for piece in reply.root.walk():
            if piece.object_id in missing:
                self.api.push_object(instruction.run_id, session, piece)


def raw_status(device: HostileDevice, path: str, body: bytes, declared: int) -> int:
    """Return the status of a signed request that declares more bytes than it has."""
    with connected(device) as connection:
        connection.sendall(head(device, path, declared) + body)
        return int(connection.recv(1000).split(b" ")[1])


def connected(device: HostileDevice) -> ssl.SSLSocket:
    """Return a connection to the coordinator."""
    host, _, port = device.address.partition(":")
    raw = socket.create_connection((host, int(port)), STOP_SECONDS)
    return device.context.wrap_socket(raw, server_hostname=host)


def head(device: HostileDevice, path: str, declared: int) -> bytes:
    """Return the head of a signed request that declares so many bytes."""
    transport = device.api.transport
    headers = signed(transport.key, transport.clock.now())
    lines = [f"POST {path} HTTP/1.1", f"host: {device.address}", f"content-length: {declared}"]
    lines += ["content-type: application/protobuf"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join(lines).encode() + b"\r\n\r\n"


def dawdle(device: HostileDevice) -> None:
    """Hold connections open, and let a byte come now and then."""
    while not device.ended.is_set():
        with contextlib.ExitStack() as stack:
            held = []
            for number in range(CONNECTIONS):
                with contextlib.suppress(OSError):
                    held.append(stack.enter_context(opened(device, number % 3)))
            for _ in range(HOLDS):
                if device.ended.wait(LOOK_SECONDS):
                    break
                for one in held:
                    with contextlib.suppress(OSError):
                        one.send(b"a")


def opened(device: HostileDevice, kind: int) -> socket.socket:
    """Return a connection on which a handshake, a head or a body never comes to its end."""
    if kind == 0:
        host, _, port = device.address.partition(":")
        return socket.create_connection((host, int(port)), STOP_SECONDS)
    connection = connected(device)
    request = head(device, "/v1/fleet/push-object", 1 << 20)
    connection.sendall(request[:40] if kind == 1 else request)
    return connection


@contextlib.contextmanager
def at_work(device: HostileDevice) -> Iterator[None]:
    """Let a device do all the harm it can."""
    threads = [threading.Thread(target=device.work)]
    threads.append(threading.Thread(target=dawdle, args=[device]))
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        device.ended.set()
        for thread in threads:
            thread.join(STOP_SECONDS)
    assert not any(thread.is_alive() for thread in threads)
    assert device.fault is None


@pytest.mark.slow
def test_a_device_that_means_harm_costs_the_others_nothing(federation: Federation) -> None:
    fleet, devices = write_fleet(federation.folder, ROUNDS, training=f"deadline = {DEADLINE}")
    honest, hostile_name = devices
    federation.up()
    federation.call("enroll", hostile_name.name)
    hostile = HostileDevice(federation.folder, hostile_name)
    kept = federation.folder / "kept"
    with at_work(hostile), daemon(federation, honest):
        federation.call("start", "fleet.toml")
        with all_versions_kept(federation.checkpoints, kept):
            federation.wait_for("the end", lambda found: found["run"]["status"] == "completed")
    assert set(hostile.given) == {answer.__name__ for answer in hostile.answers}
    history = kept_checkpoint(federation, fleet).history
    assert [one.reported for one in history.rounds] == [1] * ROUNDS
    assert max(one.seconds for one in history.rounds) < DEADLINE + MARGIN
    assert history.devices[honest.name].answered == ROUNDS
    known = history.devices[hostile_name.name]
    assert (known.answered, known.examples) == (0, 0)
    assert any("makes no sense" in reason for reason in known.reasons)
    entries = [entry for path in sorted(kept.glob("*.reports")) for entry in read_journal(path)]
    assert [entry.answer.member.name for entry in entries] == [honest.name] * ROUNDS
    assert max(entry.seconds for entry in entries) < PROMPT
