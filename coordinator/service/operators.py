"""The operators of other machines whom a federation knows: one certificate a name, in a folder.

A certificate is good while it lies there. To revoke an operator is to remove it.
"""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256

from edgetrain.errors import ConfigError, StorageError
from edgetrain.storage import replace_file

__all__ = ["KnownOperator", "OperatorFolder"]

SUFFIX = ".crt"


@dataclass(frozen=True)
class KnownOperator:
    """An operator's name, the end of the certificate, and its SHA-256 fingerprint in hex."""

    name: str
    expires: datetime.datetime
    fingerprint: str

    @property
    def expired(self) -> bool:
        """Whether the certificate has ended."""
        return self.expires <= datetime.datetime.now(datetime.UTC)


@dataclass(frozen=True)
class OperatorFolder:
    """The certificates of a federation's operators; keys are never here."""

    folder: Path

    def add(self, name: str, certificate: bytes) -> None:
        """Keep an operator's certificate, a PEM, in place of one that has ended.

        Raises ConfigError where the name has one that has not, StorageError.
        """
        if any(one.name == name and not one.expired for one in self.known()):
            raise ConfigError(
                f"{name!r} is an operator already: revoke it first, with `edgetrain-coordinator "
                f"operator {name} --revoke`, or choose a name"
            )
        try:
            self.folder.mkdir(mode=0o700, exist_ok=True)
        except OSError as error:
            raise StorageError(f"cannot make {self.folder}: {error.strerror}") from error
        replace_file(self.folder / f"{name}{SUFFIX}", [certificate])

    def revoke(self, name: str) -> None:
        """Forget an operator, who is refused from then on.

        Raises ConfigError for one that is not known, StorageError.
        """
        path = self.folder / f"{name}{SUFFIX}"
        try:
            path.unlink()
        except FileNotFoundError:
            raise ConfigError(
                f"{name!r} is no operator: see `edgetrain-coordinator operator --list`"
            ) from None
        except OSError as error:
            raise StorageError(f"cannot remove {path}: {error.strerror}") from error

    def known(self) -> list[KnownOperator]:
        """Return the operators by their names; a file that is damaged is nobody's certificate."""
        found = []
        for path in sorted(self.folder.glob(f"*{SUFFIX}")):
            try:
                certificate = x509.load_pem_x509_certificate(path.read_bytes())
            except (OSError, ValueError):
                continue
            end = certificate.not_valid_after_utc
            found.append(KnownOperator(path.stem, end, fingerprint(certificate)))
        return found

    def knows(self, shown: bytes) -> bool:
        """Say whether a certificate, a PEM off the wire, is one of an operator's."""
        try:
            wanted = fingerprint(x509.load_pem_x509_certificate(shown))
        except ValueError:
            return False
        return any(one.fingerprint == wanted for one in self.known())


def fingerprint(certificate: x509.Certificate) -> str:
    """Return what names a certificate among all others."""
    return certificate.fingerprint(SHA256()).hex()
