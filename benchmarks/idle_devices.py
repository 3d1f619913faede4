"""Thousands of devices that have nothing to do, in one process; `held_load.py` starts it.

Each keeps a TLS connection of its own, asks for work as the daemon does, is held, and rests before
it asks again; each is heard of in the daemon's interval, over a connection for that alone. What
happens is told as JSON lines: asked (the head of an answer has come), message, beat and failed.

    python idle_devices.py DEVICES.json HOLD_SECONDS HEARTBEAT_SECONDS
"""

from __future__ import annotations

import asyncio
import json
import random
import ssl
import sys
import time
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from pathlib import Path
from typing import Any

import uvloop

from edgetrain.client.backoff import Backoff, jittered
from edgetrain.client.daemon import RETURN_SECONDS
from edgetrain.client.fleet.hold import APPLIED, PREFER, preference
from edgetrain.client.fleet.identity import signed
from edgetrain.client.fleet.transport import SPOKEN, TIMEOUT, trust
from edgetrain.client.fleet.wire import decode, encode
from edgetrain.client.heart import EARLY
from edgetrain.signing import PrivateKey

ARRIVING = 24
"""Devices that arrive at once, as when a fleet is switched on little by little."""
TROUBLE = (OSError, asyncio.IncompleteReadError, ValueError)


class Device:
    """One device, and its connection."""

    def __init__(self, fields: dict[str, str], context: ssl.SSLContext, node_id: int = 0) -> None:
        self.fields = fields
        self.context = context
        self.node_id = node_id
        self.host, _, self.port = fields["address"].partition(":")
        self.key = PrivateKey(fields["key"].encode())
        self.streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    @property
    def node(self) -> dict[str, Any]:
        """What most messages say of who asks."""
        return {"node": {"node_id": self.node_id}}

    async def ask(self, call: str, message: bytes, hold: float = 0) -> bytes | None:
        """Return the content of an answer, or None where it is held."""
        if self.streams is None:
            self.streams = await asyncio.open_connection(self.host, self.port, ssl=self.context)
        reader, writer = self.streams
        headers = SPOKEN | signed(self.key, time.time()) | {"content-length": str(len(message))}
        if hold:
            headers[PREFER] = preference(hold)
        lines = [f"POST /v1/fleet/{call} HTTP/1.1", f"host: {self.host}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        writer.write("\r\n".join(lines).encode() + b"\r\n\r\n" + message)
        async with asyncio.timeout(TIMEOUT):
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            if APPLIED.encode() in head:
                return None
            length = head.partition(b"content-length:")[2].partition(b"\r\n")[0]
            body = await reader.readexactly(int(length))
        if (status := int(head[9:12])) != HTTPStatus.OK:
            raise ValueError(f"{call}: {status}")
        return body

    async def until_woken(self) -> None:
        """Wait for the end of an answer that is held."""
        assert self.streams is not None
        await self.streams[0].readuntil(b"0\r\n\r\n")

    def hang_up(self) -> None:
        """Close the connection."""
        if self.streams is not None:
            self.streams[1].close()
            self.streams = None


class Fleet:
    """All devices."""

    def __init__(self, hold_seconds: float, heartbeat_seconds: float) -> None:
        self.hold_seconds = hold_seconds
        self.heartbeat_seconds = heartbeat_seconds
        self.arriving = asyncio.Semaphore(ARRIVING)

    async def live(self, device: Device) -> None:
        """Be one device, for ever."""
        async with self.arriving:
            await patiently(self.arrive, device)
        beating = Device(device.fields, device.context, device.node_id)
        await asyncio.gather(patiently(self.idle, device), patiently(self.beat, beating))

    async def arrive(self, device: Device) -> None:
        """Come online."""
        fields = {"public_key": device.key.public_pem, "heartbeat_interval": self.heartbeat_seconds}
        body = await device.ask("activate-node", encode("ActivateNodeRequest", fields))
        assert body is not None
        device.node_id = decode("ActivateNodeResponse", body)["node_id"]

    async def idle(self, device: Device) -> None:
        """Ask for work, again and again; at first as one that began to wait at any moment."""
        hold = random.uniform(1, self.hold_seconds)
        while True:
            begun = time.monotonic()
            body = await device.ask(
                "pull-messages", encode("PullMessagesRequest", device.node), hold
            )
            tell("asked", device, took=time.monotonic() - begun, held=body is None)
            if body is None:
                await device.until_woken()
            else:
                for message in decode("PullMessagesResponse", body)["messages_list"]:
                    tell("message", device, id=message["metadata"]["message_id"])
            await asyncio.sleep(jittered(RETURN_SECONDS))
            hold = jittered(self.hold_seconds)

    async def beat(self, device: Device) -> None:
        """Be heard of, from any moment of the interval on."""
        interval = EARLY * self.heartbeat_seconds
        await asyncio.sleep(random.uniform(0, interval))
        fields = device.node | {"heartbeat_interval": self.heartbeat_seconds}
        while True:
            await device.ask("send-node-heartbeat", encode("SendNodeHeartbeatRequest", fields))
            device.hang_up()
            tell("beat", device)
            await asyncio.sleep(interval)


async def patiently(what: Callable[[Device], Awaitable[None]], device: Device) -> None:
    """Do something until it is done, with pauses when it fails."""
    backoff = Backoff()
    while True:
        try:
            return await what(device)
        except TROUBLE as error:
            tell("failed", device, what=what.__name__, why=str(error) or type(error).__name__)
            device.hang_up()
            await asyncio.sleep(backoff.next())


def tell(event: str, device: Device, **fields: Any) -> None:
    """Say what has happened."""
    known = {"event": event, "at": time.monotonic(), "node": device.node_id}
    print(json.dumps(known | fields), flush=True)


async def main(path: Path, hold_seconds: float, heartbeat_seconds: float) -> None:
    """Be all devices in a file, until told to end."""
    found = json.loads(path.read_text())
    context = trust(found["ca"])
    fleet = Fleet(hold_seconds, heartbeat_seconds)
    devices = [Device(fields, context) for fields in found["devices"]]
    await asyncio.gather(*(fleet.live(device) for device in devices))


if __name__ == "__main__":
    uvloop.run(main(Path(sys.argv[1]), *map(float, sys.argv[2:])))
