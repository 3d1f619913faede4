"""The control service: gRPC on a socket of the machine, and over mutual TLS where asked for.

Health and reflection are gRPC's own, so that standard tools can be used:
https://github.com/grpc/grpc/blob/master/doc/health-checking.md, .../server-reflection.md
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
from google.protobuf.message_factory import GetMessageClass
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from edgetrain.coordinator.control.doorkeeper import Doorkeeper
from edgetrain.coordinator.control.messages import ERROR_KEY, SERVICE, fields_of, message_of
from edgetrain.coordinator.control.operations import OPERATIONS, STREAMS
from edgetrain.coordinator.service.authority import Authority
from edgetrain.coordinator.service.operators import OperatorFolder
from edgetrain.coordinator.service.place import Place
from edgetrain.errors import ConfigError, EdgetrainError

__all__ = ["serve_control"]

WORKERS, MOST_STREAMS, MOST_CALLS = 16, 12, 64
"""Threads, how many of them streams may hold, and calls at a time: the rest are refused."""
LARGEST_REQUEST = 64 << 10
LONGEST_SOCKET = 107
"""Bytes of a socket's path, by Linux."""
STOP_SECONDS = 1.0

OPTIONS = (
    ("grpc.so_reuseport", 0),
    ("grpc.max_receive_message_length", LARGEST_REQUEST),
)


@contextlib.contextmanager
def serve_control(place: Place, address: str | None) -> Iterator[None]:
    """Serve a federation's operators on its socket and, if given, on HOST:PORT over TLS.

    Over TLS only clients are served that show a certificate by the federation's own authority, and
    whom it knows as operators. Raises ConfigError where either cannot be listened on.
    """
    server = grpc.server(
        ThreadPoolExecutor(WORKERS),
        interceptors=(Doorkeeper(OperatorFolder(place.operators)),),
        options=OPTIONS,
        maximum_concurrent_rpcs=MOST_CALLS,
    )
    server.add_generic_rpc_handlers((handlers(place),))
    servicer = health.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    names = (SERVICE.full_name, health.SERVICE_NAME, reflection.SERVICE_NAME)
    reflection.enable_server_reflection(names, server)
    for name in ("", SERVICE.full_name):
        servicer.set(name, health_pb2.HealthCheckResponse.SERVING)
    listen(server, place, address)
    server.start()
    try:
        # The folder is the owner's alone; so is the socket itself.
        place.control.chmod(0o600)
        yield
    finally:
        servicer.enter_graceful_shutdown()
        server.stop(STOP_SECONDS).wait()
        place.control.unlink(missing_ok=True)


def listen(server: Any, place: Place, address: str | None) -> None:
    """Open the socket and the port. Raises ConfigError."""
    if len(bytes(place.control)) > LONGEST_SOCKET:
        raise ConfigError(f"{place.control} is too long for a socket: choose a shorter --folder")
    place.control.unlink(missing_ok=True)
    try:
        server.add_insecure_port(f"unix:{place.control}")
        if address is not None:
            server.add_secure_port(address, credentials(Authority(place.authority)))
    except RuntimeError:
        raise ConfigError(
            f"cannot listen on {address or place.control}: choose another --control"
        ) from None


def credentials(authority: Authority) -> Any:
    """Return what the server shows, and whom it lets in: operators with a certificate."""
    pair = authority.server_key.read_bytes(), authority.server_certificate.read_bytes()
    trusted = authority.certificate.read_bytes()
    return grpc.ssl_server_credentials([pair], trusted, require_client_auth=True)


def handlers(place: Place) -> Any:
    """Return the service's methods as gRPC calls them."""
    streams = threading.BoundedSemaphore(MOST_STREAMS)
    found = {}
    for method in SERVICE.methods:
        if method.server_streaming:
            make, behaviour = (
                grpc.unary_stream_rpc_method_handler,
                streaming(place, method, streams),
            )
        else:
            make, behaviour = grpc.unary_unary_rpc_method_handler, answering(place, method)
        found[method.name] = make(
            behaviour,
            request_deserializer=GetMessageClass(method.input_type).FromString,
            response_serializer=GetMessageClass(method.output_type).SerializeToString,
        )
    return grpc.method_handlers_generic_handler(SERVICE.full_name, found)


def answering(place: Place, method: Any) -> Callable[[Any, Any], Any]:
    """Return what answers a method once."""

    def answer(request: Any, context: Any) -> Any:
        with refusing(context):
            fields = OPERATIONS[method.name](place, fields_of(request))
            return message_of(method.output_type, fields)

    return answer


def streaming(
    place: Place, method: Any, streams: threading.BoundedSemaphore
) -> Callable[[Any, Any], Iterator[Any]]:
    """Return what answers a method until nobody listens any more."""

    def answer(_: Any, context: Any) -> Iterator[Any]:
        if not streams.acquire(blocking=False):
            context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "too many watch already")
        try:
            gone = threading.Event()
            if context.add_callback(gone.set):
                with refusing(context):
                    for fields in STREAMS[method.name](place, gone.wait):
                        yield message_of(method.output_type, fields)
        finally:
            streams.release()

    return answer


@contextlib.contextmanager
def refusing(context: Any) -> Iterator[None]:
    """Tell the client what is wrong, in one line and by its class."""
    try:
        yield
    except EdgetrainError as error:
        context.set_trailing_metadata(((ERROR_KEY, type(error).__name__),))
        context.abort(grpc.StatusCode.FAILED_PRECONDITION, str(error))
