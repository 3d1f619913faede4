"""The file with which a device joins a federation; the coordinator's operator carries it there.

It is TOML, and `edgetrain-coordinator enroll` writes it:

    name = "pi-3"                      what the operator calls the device
    address = "fleet.example:8443"     where the coordinator is
    ca = '''-----BEGIN CERTIFICATE...  the authority of the certificates that it shows
    key = '''-----BEGIN PRIVATE KEY... the device's own key, of an elliptic curve
    poll_seconds = 15.0                optional: how often to ask for work, on the average
    hold_seconds = 240.0               optional: how long, on the average, the coordinator's door
                                       may wait with the answer until there is work; 0 for never
    heartbeat_seconds = 300.0          optional: how often to be heard of; 10 to 1800

Whoever has it is the device.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from edgetrain.client.fleet.hold import LONGEST_HOLD
from edgetrain.errors import ConfigError, PayloadError
from edgetrain.fields import Rule, check_fields, real, text
from edgetrain.storage import map_file

__all__ = ["Enrolment", "read_enrolment"]

OPTIONAL = ("poll_seconds", "hold_seconds", "heartbeat_seconds")
HEADER = "# For `edgetrain-client join`. Whoever has this file is the device: keep it secret.\n"
LONGEST_NAME = 128
LONGEST_PEM = 1 << 14
LARGEST_FILE = 1 << 16
HOST_AND_PORT = re.compile(r"(\[[0-9a-fA-F:.]{2,45}\]|[A-Za-z0-9.-]{1,253}):[0-9]{1,5}")


def host_and_port(name: str, value: Any) -> Any:
    """Accept a host and a port; a rule like those of edgetrain.fields."""
    if not isinstance(value, str) or not HOST_AND_PORT.fullmatch(value):
        raise PayloadError(f"{name} is no host and port, like fleet.example:8443 or [::1]:8443")
    return value


def pem(name: str, value: Any) -> Any:
    """Accept what may be a PEM; a rule like those of edgetrain.fields."""
    if not isinstance(value, str) or len(value) > LONGEST_PEM or "-----BEGIN " not in value:
        raise PayloadError(f"{name} is no PEM")
    return value


@dataclass(frozen=True)
class Enrolment:
    """What a device knows of its federation.

    Attributes:
        name: what the operator calls the device; its introduction says the same.
        address: host and port of the coordinator.
        ca: PEM of the authority whose certificates the coordinator shows.
        key: PEM of the device's private key.
        poll_seconds: how long it waits, on the average, between two questions for work that the
            coordinator's door does not hold, and how often it looks meanwhile whether it is paused.
        hold_seconds: how long it would be held, on the average.
        heartbeat_seconds: it is taken for lost after twice that without a word from it.
    """

    name: str
    address: str
    ca: str
    key: str = field(repr=False)
    poll_seconds: float = 15.0
    hold_seconds: float = 240.0
    heartbeat_seconds: float = 300.0

    RULES: ClassVar[Mapping[str, Rule]] = {
        "name": text(LONGEST_NAME),
        "address": host_and_port,
        "ca": pem,
        "key": pem,
        "poll_seconds": real(0.1, 86400),
        # What is drawn around it is LONGEST_HOLD at most.
        "hold_seconds": real(0, LONGEST_HOLD / 1.5),
        # Flower takes no others.
        "heartbeat_seconds": real(10, 1800),
    }

    @classmethod
    def from_fields(cls, fields: Mapping[str, Any]) -> Enrolment:
        """Return the enrolment in a table. Raises PayloadError naming what is wrong."""
        given = {name: getattr(cls, name) for name in OPTIONAL}
        return cls(**check_fields({**given, **fields}, cls.RULES, "enrolment"))

    def to_toml(self) -> str:
        """Return the file's text; what is optional is left to its default."""
        return (
            f'{HEADER}name = "{self.name}"\naddress = "{self.address}"\n'
            f'ca = """\n{self.ca}"""\nkey = """\n{self.key}"""\n'
        )


def read_enrolment(path: Path) -> Enrolment:
    """Return the enrolment in a file.

    Raises DataError when it cannot be read, ConfigError when it is none, PayloadError when
    something is missing from it or makes no sense.
    """
    # Only who joins pays for a TOML parser.
    import tomllib  # noqa: PLC0415

    raw = map_file(path)
    if len(raw) > LARGEST_FILE:
        raise ConfigError(f"{path} is too large to be an enrolment: check the path")
    try:
        fields = tomllib.loads(bytes(raw).decode("utf-8"))
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"{path} is no enrolment: {error}: ask for it again") from error
    return Enrolment.from_fields(fields)
