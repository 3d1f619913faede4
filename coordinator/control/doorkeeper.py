"""Who is answered over TLS: operators whose certificates the federation still keeps.

TLS itself lets in every certificate of the authority that has not ended, and gRPC reads no list of
revoked ones. So each call, of whatever service, is checked once more.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any

import grpc

from edgetrain.coordinator.control.messages import ERROR_KEY
from edgetrain.coordinator.service.operators import OperatorFolder
from edgetrain.errors import ServiceError

__all__ = ["Doorkeeper"]

LOCAL = "unix:"
"""How gRPC's name of a client begins that has come by the socket, which is its owner's alone."""
REFUSAL = (
    "this operator's certificate is not valid any more: have `edgetrain-coordinator operator` "
    "make another"
)


class Doorkeeper(grpc.ServerInterceptor):  # type: ignore[misc]
    """Refuses every call over TLS by an operator who is not known (any more).

    A stream that is open is looked at before each of its answers.
    """

    def __init__(self, operators: OperatorFolder) -> None:
        self.operators = operators

    def intercept_service(self, continuation: Callable[[Any], Any], details: Any) -> Any:
        """Return the method that is asked for, behind the check; None where there is none."""
        handler = continuation(details)
        if handler is None:
            return None
        kind = "_".join(
            "stream" if streams else "unary"
            for streams in (handler.request_streaming, handler.response_streaming)
        )
        guard = self.guarded_stream if handler.response_streaming else self.guarded
        return getattr(grpc, f"{kind}_rpc_method_handler")(
            guard(getattr(handler, kind)),
            request_deserializer=handler.request_deserializer,
            response_serializer=handler.response_serializer,
        )

    def guarded(self, behaviour: Callable[..., Any]) -> Callable[..., Any]:
        """Return what answers once, after the check."""

        @functools.wraps(behaviour)
        def answer(request: Any, context: Any) -> Any:
            self.admit(context)
            return behaviour(request, context)

        return answer

    def guarded_stream(self, behaviour: Callable[..., Any]) -> Callable[..., Any]:
        """Return what answers many times, each after the check."""

        # What gRPC's own services ask of the server is written on their methods.
        @functools.wraps(behaviour)
        def answer(request: Any, context: Any, *send: Any) -> Any:
            self.admit(context)
            found = behaviour(request, context, *send)
            # A method that is given something to send with answers by that: health, which tells
            # no more than that the service is there.
            return found if send else self.each(found, context)

        return answer

    def each(self, answers: Iterator[Any], context: Any) -> Iterator[Any]:
        """Yield answers for as long as the client is known."""
        for answer in answers:
            self.admit(context)
            yield answer

    def admit(self, context: Any) -> None:
        """End a call by anyone who is neither this machine's nor known."""
        if context.peer().startswith(LOCAL):
            return
        shown = context.auth_context().get("x509_pem_cert", [])
        if len(shown) == 1 and self.operators.knows(shown[0]):
            return
        context.set_trailing_metadata(((ERROR_KEY, ServiceError.__name__),))
        context.abort(grpc.StatusCode.PERMISSION_DENIED, REFUSAL)
