"""POST over HTTPS: one kept connection, signed requests, answers of bounded size.

An answer that is held open is waited for in the kernel alone: it is probed for a peer that has
vanished, and looked at now and then for whether it is still wanted.
"""

from __future__ import annotations

import http.client
import io
import json
import select
import socket
import ssl
from collections.abc import Iterator
from dataclasses import dataclass

from edgetrain.client.fleet.hold import APPLIED, PREFER, Hold, preference
from edgetrain.client.fleet.identity import ServerClock, signed, since_boot
from edgetrain.errors import ConfigError, FleetError, PayloadError
from edgetrain.signing import PrivateKey

__all__ = ["Transport", "trust"]

TIMEOUT = 30.0
"""Seconds for BLOCK bytes to move, in either direction."""
BLOCK = 1 << 14
REUSE_SECONDS = 4.0
"""A connection idle for longer is not used again: the server closes its end after 5 s."""
PROBES = ((socket.TCP_KEEPIDLE, 60), (socket.TCP_KEEPINTVL, 15), (socket.TCP_KEEPCNT, 4))
"""After a minute without a word the peer is asked for a sign of life, and given up after another;
routers between, which forget a connection that is idle, are reminded of it as well."""
ERROR_BYTES = 1 << 16
LONGEST_REASON = 200
SPOKEN = {
    "content-type": "application/protobuf",
    "accept": "application/protobuf",
    "flwr-package-name": "flwr",
    "flwr-package-version": "1.41.0",
    "flwr-component-name": "SuperNode",
}


def trust(authority: str) -> ssl.SSLContext:
    """Return a context that believes servers with a certificate of one authority, and no others.

    `authority` is a PEM. Raises ConfigError when it is none.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_verify_locations(cadata=authority)
    except (ssl.SSLError, ValueError) as error:
        raise ConfigError(
            "the coordinator's certificate authority is no PEM: join again"
        ) from error
    return context


@dataclass(frozen=True)
class Answer:
    """What came back: status, whether its Date was news to our clock, and the body."""

    status: int
    clock_moved: bool
    body: bytearray


class Connection(http.client.HTTPSConnection):
    """HTTPS that notices when the other side has vanished."""

    def connect(self) -> None:
        """Connect; see HTTPSConnection."""
        super().connect()
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, value in PROBES:
            self.sock.setsockopt(socket.IPPROTO_TCP, option, value)


class Transport:
    """Signed requests to a coordinator over a connection of its own, for one thread."""

    def __init__(
        self, address: str, context: ssl.SSLContext, key: PrivateKey, clock: ServerClock
    ) -> None:
        self.address = address
        self.key = key
        self.clock = clock
        self._context = context
        self._connection = Connection(address, timeout=TIMEOUT, context=context)
        self._used = 0.0

    def another(self) -> Transport:
        """Return one for another thread: the same identity and clock."""
        return Transport(self.address, self._context, self.key, self.clock)

    def post(self, path: str, payload: bytes, limit: int, hold: Hold | None = None) -> bytearray:
        """Return the body of the answer to a request; an empty one where it was held in vain.

        Raises FleetError when there is no answer, or an error; PayloadError for one of more than
        `limit` bytes. A request is sent again only where its signature had the wrong time: of one
        whose answer was lost nobody knows what became of it.
        """
        answer = self._exchange(path, payload, limit, hold)
        if answer.status == http.client.UNAUTHORIZED and answer.clock_moved:
            answer = self._exchange(path, payload, limit, hold)
        if answer.status != http.client.OK:
            raise self._refusal(answer)
        return answer.body

    def close(self) -> None:
        """Close the connection; the next request opens another."""
        self._connection.close()

    def _exchange(self, path: str, payload: bytes, limit: int, hold: Hold | None) -> Answer:
        if since_boot() - self._used > REUSE_SECONDS:
            self.close()
        headers = (
            SPOKEN | signed(self.key, self.clock.now()) | {"content-length": str(len(payload))}
        )
        if hold:
            headers[PREFER] = preference(hold.seconds)
        try:
            self._connection.request("POST", path, blocks(payload), headers)
            stream = self._connection.sock
            # Whoever passes an answer on may keep its head back until its end.
            stream.settimeout(TIMEOUT + hold.seconds if hold else TIMEOUT)
            response = self._connection.getresponse()
            moved = self.clock.hear(response.headers["date"])
            if hold:
                hold.applied = APPLIED in response.headers
                if hold.applied and not ended(response.fp, stream, hold):
                    self.close()
                    return Answer(response.status, moved, bytearray())
            body = read_body(response, limit if response.status == http.client.OK else ERROR_BYTES)
        except (OSError, http.client.HTTPException) as error:
            self.close()
            reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
            raise FleetError(f"cannot reach {self.address}: {reason}: is it up?") from error
        except PayloadError:
            self.close()
            raise
        self._used = since_boot()
        return Answer(response.status, moved, body)

    def _refusal(self, answer: Answer) -> FleetError:
        """Return the error that an answer of another status than 200 stands for."""
        try:
            told = json.loads(answer.body)
        except ValueError:
            told = None
        told = told if isinstance(told, dict) else {}
        code = told.get("code")
        reason = str(told.get("detail") or http.client.responses.get(answer.status, "refused"))
        return FleetError(
            f"{self.address} answered {answer.status}: {' '.join(reason.split())[:LONGEST_REASON]}",
            status=answer.status,
            code=code if isinstance(code, int) else None,
        )


def blocks(payload: bytes) -> Iterator[memoryview]:
    """Yield a request's body in parts, each of which has TIMEOUT to leave."""
    view = memoryview(payload)
    for at in range(0, len(view), BLOCK):
        yield view[at : at + BLOCK]


def ended(answer: io.BufferedReader, stream: socket.socket, hold: Hold) -> bool:
    """Wait until there is more of an answer that is held, or its end; False where not wanted.

    Raises TimeoutError where neither comes in time.
    """
    end = since_boot() + hold.seconds + TIMEOUT
    while not readable(answer, stream):
        if not hold.wanted():
            return False
        if since_boot() >= end:
            raise TimeoutError("it did not end what it held")
        select.select([stream], [], [], hold.look_seconds)
    return True


def readable(answer: io.BufferedReader, stream: socket.socket) -> bool:
    """Say whether reading would give something, or an end, at once."""
    stream.settimeout(0)
    try:
        answer.peek(1)
    except ssl.SSLWantReadError:
        return False
    finally:
        stream.settimeout(TIMEOUT)
    return True


def read_body(response: http.client.HTTPResponse, limit: int) -> bytearray:
    """Return the body of an answer. Raises PayloadError above `limit` bytes, OSError if cut off."""
    body = bytearray()
    declared = response.length or 0
    while max(declared, len(body)) <= limit and (block := response.read(BLOCK)):
        body += block
    if max(declared, len(body)) > limit:
        raise PayloadError(f"an answer has more than the {limit} bytes that it may have")
    if response.length:
        raise ConnectionError("the answer was cut off")
    return body
