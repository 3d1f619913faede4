"""The door for devices: HTTPS that leads to SuperLink's Fleet API and to nothing else.

SuperLink serves the operator's and the ServerApp's interfaces on the same port without asking who
calls, so that a device must never reach it. This proxy knows one kind of request, a POST to
/v1/fleet/NAME with a body of a stated, bounded length, and makes the request to SuperLink anew:
nothing of a stranger's path or query is passed on. Whoever is slow to say what he wants is hung up
on, so that idle connections cannot keep others out.

A device that SuperLink has no work for is kept waiting if it likes, until it is sent some: see
edgetrain.client.fleet.hold.
"""

from __future__ import annotations

import asyncio
import re
import resource
import socket
import ssl
import sys
from collections.abc import Iterable
from pathlib import Path

import httpx
import uvicorn
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from uvicorn.protocols.http.h11_impl import H11Protocol

from edgetrain.client.fleet.hold import PREFER, wanted_seconds
from edgetrain.client.fleet.wire import decode
from edgetrain.coordinator import wake
from edgetrain.coordinator.service.authority import Authority
from edgetrain.coordinator.service.holding import HeldResponse, Holds
from edgetrain.errors import PayloadError

__all__ = ["application", "serve"]

CALL = re.compile(r"[a-z]{1,32}(-[a-z]{1,32}){0,4}")
"""The name of a call of the Fleet API, e.g. pull-messages."""
PULL = "pull-messages"
MAX_BODY_BYTES = 8 << 20
"""Flower sends arrays in chunks of 5 MB, one a request."""
BODY_SECONDS = 240.0
"""SuperLink gives up on a chunk after 180 s; whoever is slower than that gets nothing done."""
HEADER_SECONDS = 15.0
UPSTREAM_SECONDS = 60.0
UPSTREAM_CONNECTIONS = 32
UPSTREAM_IDLE_SECONDS = 4.0
"""SuperLink hangs up after 5 s; a request must not meet that."""
MOST_CONNECTIONS = 12000
OTHER_FILES = 100
"""Open files that are no device's."""
KEEP_ALIVE_SECONDS = 75
RETRY_SECONDS = "5"
STOP_SECONDS = 5

# These belong to one connection, or are made anew for the other one.
NOT_PASSED_ON = frozenset(
    (
        *("connection", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade"),
        *("proxy-authenticate", "proxy-authorization", "proxy-connection"),
        *("host", "content-length", "content-encoding", "accept-encoding", "date", "server"),
    )
)


def application(client: httpx.AsyncClient, holds: Holds) -> Starlette:
    """Return the proxy; `client` makes the requests, and its base URL is SuperLink's."""

    async def forward(request: Request) -> Response:
        call = request.path_params["call"]
        if status := refusal(call, request.headers.get("content-length", "")):
            return Response(status_code=status)
        try:
            async with asyncio.timeout(BODY_SECONDS):
                body = await request.body()
        except (TimeoutError, ClientDisconnect):
            return Response(status_code=408, headers={"connection": "close"})
        asked = holds.wakes
        try:
            answer = await client.post(
                f"/v1/fleet/{call}", content=body, headers=kept(request.headers.items())
            )
        except httpx.HTTPError:
            return Response(status_code=503, headers={"retry-after": RETRY_SECONDS})
        headers = dict(kept(answer.headers.items()))
        seconds = wanted_seconds(request.headers.get(PREFER))
        node = idle_node(call, body, answer) if seconds else None
        if node is None:
            return Response(answer.content, answer.status_code, headers)
        return HeldResponse(holds.until_woken(node, asked, seconds), seconds, headers)

    app = Starlette(routes=[Route("/v1/fleet/{call}", forward, methods=["POST"])])
    app.router.redirect_slashes = False
    return app


def refusal(call: str, length: str) -> int | None:
    """Return the status for a request that is not passed on, or None."""
    if not CALL.fullmatch(call):
        return 404
    if not (length.isascii() and length.isdigit()):
        return 411
    if len(length) > 12 or int(length) > MAX_BODY_BYTES:
        return 413
    return None


def idle_node(call: str, body: bytes, answer: httpx.Response) -> int | None:
    """Return the node that asked for work and was told that there is none, or None."""
    if call != PULL or answer.status_code != httpx.codes.OK or answer.content:
        return None
    try:
        node = decode("PullMessagesRequest", body)["node"]
    except PayloadError:
        return None
    return int(node["node_id"]) if node else None


def kept(headers: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """Return the headers that are passed on."""
    return [(name, value) for name, value in headers if name.lower() not in NOT_PASSED_ON]


class ImpatientProtocol(H11Protocol):
    """HTTP/1.1 that hangs up on whoever does not say in time what he wants."""

    late: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for the first request."""
        super().connection_made(transport)
        self._wait()

    def data_received(self, data: bytes) -> None:
        """Wait on while a request is incomplete, and no longer once it is there."""
        super().data_received(data)
        self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait for nothing any more."""
        super().connection_lost(exc)
        if self.late is not None:
            self.late.cancel()

    def _wait(self) -> None:
        asked = self.cycle is not None and not self.cycle.response_complete
        if asked and self.late is not None:
            self.late.cancel()
            self.late = None
        elif not asked and self.late is None:
            self.late = self.loop.call_later(HEADER_SECONDS, self.transport.close)


class Door(uvicorn.Server):
    """A server that listens for who is to be woken, and lets nobody wait when it stops."""

    def __init__(self, config: uvicorn.Config, holds: Holds, listener: socket.socket) -> None:
        super().__init__(config)
        self.holds = holds
        self.listener = listener

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to listen; see uvicorn."""
        await super().startup(sockets)
        asyncio.get_running_loop().add_reader(self.listener, self._wake)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End all waiting, and then everything; see uvicorn."""
        self.holds.wake_all()
        await super().shutdown(sockets)

    def _wake(self) -> None:
        self.holds.wake(wake.received(self.listener))


def serve(authority: Authority, listen: str, port: int, upstream: str, waker: Path) -> None:
    """Serve devices on a port until the process is told to end.

    `upstream` is SuperLink's URL, `waker` the socket of edgetrain.coordinator.wake to listen at.
    """
    # httpx looks for it several times a request; where it is not, that takes a quarter of our time.
    sys.modules.setdefault("sniffio", None)  # type: ignore[arg-type]
    trust = ssl.create_default_context(cafile=str(authority.certificate))
    client = httpx.AsyncClient(
        base_url=upstream,
        verify=trust,
        timeout=UPSTREAM_SECONDS,
        limits=httpx.Limits(
            max_connections=UPSTREAM_CONNECTIONS, keepalive_expiry=UPSTREAM_IDLE_SECONDS
        ),
        # The variables of an environment must not send a federation's messages elsewhere.
        trust_env=False,
    )
    holds = Holds()
    config = uvicorn.Config(
        application(client, holds),
        host=listen,
        port=port,
        http=ImpatientProtocol,
        ws="none",
        lifespan="off",
        ssl_certfile=authority.server_certificate,
        ssl_keyfile=authority.server_key,
        limit_concurrency=most_connections(),
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=STOP_SECONDS,
        access_log=False,
        server_header=False,
    )
    with wake.listen(waker) as listener:
        Door(config, holds, listener).run()


def most_connections() -> int:
    """Return how many devices are served at once: as many as may have an open file each."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MOST_CONNECTIONS + UPSTREAM_CONNECTIONS + OTHER_FILES
    allowed = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
    return allowed - UPSTREAM_CONNECTIONS - OTHER_FILES


def main() -> None:
    """Run the proxy: the authority's folder, where to listen, port, SuperLink's URL, the waker."""
    folder, listen, port, upstream, waker = sys.argv[1:]
    serve(Authority(Path(folder)), listen, int(port), upstream, Path(waker))


if __name__ == "__main__":
    main()
