"""The file with which an operator on another machine reaches a federation, over mutual TLS."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import grpc

from edgetrain.client.enrolment import LARGEST_FILE, LONGEST_NAME, host_and_port, pem
from edgetrain.coordinator.service.authority import Authority
from edgetrain.coordinator.service.operators import OperatorFolder
from edgetrain.coordinator.service.place import Place
from edgetrain.errors import ConfigError, PayloadError
from edgetrain.fields import Rule, check_fields, text

__all__ = ["Operator", "fresh_operator", "read_operator"]


@dataclass(frozen=True)
class Operator:
    """Who asks, and whom.

    Attributes:
        name: what the operator is called.
        address: host and port of the control service.
        ca: PEM of the authority whose certificate the service shows.
        certificate, key: PEM of what the operator shows.
    """

    name: str
    address: str
    ca: str
    certificate: str
    key: str = field(repr=False)

    RULES: ClassVar[Mapping[str, Rule]] = {
        "name": text(LONGEST_NAME),
        "address": host_and_port,
        "ca": pem,
        "certificate": pem,
        "key": pem,
    }

    def credentials(self) -> Any:
        """Return what a channel to the service needs."""
        parts = (self.ca, self.key, self.certificate)
        return grpc.ssl_channel_credentials(*(part.encode("utf-8") for part in parts))

    def to_toml(self) -> str:
        """Return the file's text."""
        # A string of JSON is one of TOML too, as long as it is ASCII.
        lines = [f"{name} = {json.dumps(value)}" for name, value in asdict(self).items()]
        return "\n".join(("# Whoever has this file is the operator: keep it secret.", *lines, ""))


def fresh_operator(place: Place, name: str) -> Operator:
    """Return an operator with a new certificate, good for 90 days, who is known from now on.

    Raises ConfigError where the federation serves no operators of other machines, or knows one of
    that name, and StorageError.
    """
    address = place.known_settings().control_address
    authority = Authority(place.authority)
    certificate, key = authority.operator(name)
    OperatorFolder(place.operators).add(name, certificate)
    ca = authority.certificate.read_text(encoding="ascii")
    return Operator(name, address, ca, certificate.decode(), key.decode())


def read_operator(path: Path) -> Operator:
    """Return the operator in a file. Raises ConfigError."""
    try:
        with path.open("rb") as file:
            content = file.read(LARGEST_FILE + 1)
        if len(content) > LARGEST_FILE:
            raise PayloadError("it is too large")
        fields = tomllib.loads(content.decode("utf-8"))
        return Operator(**check_fields(fields, Operator.RULES, "operator"))
    except (OSError, ValueError, TypeError, PayloadError) as error:
        raise ConfigError(
            f"cannot use {path}: {error}: have `edgetrain-coordinator operator` make another"
        ) from None
