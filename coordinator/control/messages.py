"""Messages of the control service as dicts, by the schema in control.proto.

control_pb2.py is made from it by protoc: `make proto`; a test holds the two together.
"""

from __future__ import annotations

from typing import Any

from google.protobuf.message_factory import GetMessageClass

from edgetrain.coordinator.control import control_pb2

__all__ = ["DESCRIPTOR", "ERROR_KEY", "SERVICE", "fields_of", "message_of", "path_of"]

DESCRIPTOR: Any = control_pb2.DESCRIPTOR
SERVICE: Any = DESCRIPTOR.services_by_name["Control"]
ERROR_KEY = "edgetrain-error"
"""Under this key a refusal names our class of error, so that commands end with its code."""


def path_of(method: Any) -> str:
    """Return what a method of the service is called on the wire."""
    return f"/{SERVICE.full_name}/{method.name}"


def message_of(kind: Any, fields: dict[str, Any]) -> Any:
    """Return a message of a descriptor; what is None is absent."""
    return GetMessageClass(kind)(**fields)


def fields_of(message: Any) -> dict[str, Any]:
    """Return a message as a dict with all of its fields; what is absent and optional is None."""
    return {field.name: value_of(message, field) for field in message.DESCRIPTOR.fields}


def value_of(message: Any, field: Any) -> Any:
    """Return one field's value."""
    value = getattr(message, field.name)
    if field.has_presence and not message.HasField(field.name):
        return None
    if field.message_type is None:
        return list(value) if field.is_repeated else value
    if not field.message_type.GetOptions().map_entry:
        return [fields_of(one) for one in value] if field.is_repeated else fields_of(value)
    nested = field.message_type.fields_by_name["value"].message_type is not None
    return {key: fields_of(one) if nested else one for key, one in sorted(value.items())}
