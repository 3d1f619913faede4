"""Ask the control service where a federation runs, and its files where it does not."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from typing import Any

import grpc
from google.protobuf.message_factory import GetMessageClass

import edgetrain.errors
from edgetrain.coordinator.control.messages import (
    ERROR_KEY,
    SERVICE,
    fields_of,
    message_of,
    path_of,
)
from edgetrain.coordinator.control.operations import OPERATIONS, STREAMS, Fields
from edgetrain.coordinator.control.operator import Operator
from edgetrain.coordinator.service.place import Place
from edgetrain.errors import EdgetrainError, ServiceError

__all__ = ["Served", "ask", "follow"]

Served = Place | Operator
"""A federation of this machine by its folder, or another's by an operator's file."""

SECONDS = 20.0
OPTIONS = (("grpc.enable_http_proxy", 0),)


def ask(place: Served, name: str, fields: Fields | None = None) -> Fields:
    """Return the answer of a method of the control service.

    Raises what the operation raises, ServiceError where the service does not answer.
    """
    if isinstance(place, Place) and not is_served(place):
        return OPERATIONS[name](place, fields or {})
    with calling(place) as channel:
        call, request = prepared(channel, name, fields or {})
        return fields_of(call(request, timeout=SECONDS, wait_for_ready=True))


def follow(place: Served, name: str) -> Iterator[Fields]:
    """Yield the answers of a stream of the control service, as `ask` does."""
    if isinstance(place, Place) and not is_served(place):
        yield from STREAMS[name](place, time.sleep)
        return
    with calling(place) as channel:
        call, request = prepared(channel, name, {})
        for answer in call(request, wait_for_ready=isinstance(place, Place)):
            yield fields_of(answer)


def is_served(place: Place) -> bool:
    """Say whether there is a service to ask."""
    return place.control.exists() and place.is_held()


def prepared(channel: Any, name: str, fields: Fields) -> tuple[Any, Any]:
    """Return a method that can be called, and its request."""
    method = SERVICE.methods_by_name[name]
    make = channel.unary_stream if method.server_streaming else channel.unary_unary
    call = make(
        path_of(method),
        request_serializer=GetMessageClass(method.input_type).SerializeToString,
        response_deserializer=GetMessageClass(method.output_type).FromString,
    )
    return call, message_of(method.input_type, fields)


@contextlib.contextmanager
def calling(place: Served) -> Iterator[Any]:
    """Yield a channel to the service; what it refuses is raised as it was there."""
    with channel_to(place) as channel:
        try:
            yield channel
        except grpc.RpcError as error:
            raise refusal(error) from None


def channel_to(place: Served) -> Any:
    """Return a channel, over the socket or over mutual TLS."""
    if isinstance(place, Place):
        return grpc.insecure_channel(f"unix:{place.control}", options=OPTIONS)
    return grpc.secure_channel(place.address, place.credentials(), options=OPTIONS)


def refusal(error: Any) -> EdgetrainError:
    """Return our error for one of gRPC's."""
    named = dict(error.trailing_metadata() or ()).get(ERROR_KEY, "")
    kind = getattr(edgetrain.errors, named, None) if named in edgetrain.errors.__all__ else None
    if kind is not None:
        return kind(error.details())  # type: ignore[no-any-return]
    reason = " ".join((error.details() or "").split())[:200]
    return ServiceError(f"the control service does not answer ({error.code().name}): {reason}")
