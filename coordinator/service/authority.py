"""A federation's private certificate authority, made on first use, and the server's certificate.

Devices trust this authority alone. All clocks are given a year: a device without a clock of its own
may wake up in the past, and must still be able to ask for the time.
"""

from __future__ import annotations

import datetime
import ipaddress
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from edgetrain.errors import ConfigError
from edgetrain.storage import replace_file

__all__ = ["Authority"]

CURVE = ec.SECP256R1
BACKDATED = datetime.timedelta(days=365)
AUTHORITY_LIFE = datetime.timedelta(days=3650)
SERVER_LIFE = datetime.timedelta(days=397)
OPERATOR_LIFE = datetime.timedelta(days=90)
"""An operator's certificate can be revoked; one that everybody forgot should not last."""
RENEWED_BEFORE = datetime.timedelta(days=60)
"""A server's certificate that has less left than this is replaced when the service starts."""
LOCAL = ("localhost", "127.0.0.1")
"""Names by which the machine's own processes reach SuperLink."""


@dataclass(frozen=True)
class Authority:
    """The files of an authority and of the server's certificate that it has signed."""

    folder: Path

    @property
    def certificate(self) -> Path:
        """What devices trust; a PEM, and no secret."""
        return self.folder / "ca.crt"

    @property
    def key(self) -> Path:
        """The authority's own secret."""
        return self.folder / "ca.key"

    @property
    def server_certificate(self) -> Path:
        """What the server shows."""
        return self.folder / "server.crt"

    @property
    def server_key(self) -> Path:
        """The server's secret."""
        return self.folder / "server.key"

    def prepare(self, host: str) -> None:
        """Make what is missing, and a server's certificate for `host` where none fits.

        Raises ConfigError for files that are none of an authority, StorageError.
        """
        if not self.certificate.exists():
            self._found()
        if not self._fits(host):
            self._sign(host)

    def _found(self) -> None:
        """Make a new authority."""
        key = ec.generate_private_key(CURVE())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "edgetrain federation")])
        public = key.public_key()
        certificate = (
            builder(name, name, public, AUTHORITY_LIFE)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(usage(signs_certificates=True), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
            .sign(key, SHA256())
        )
        replace_file(self.key, [pem_of(key)], private=True)
        replace_file(self.certificate, [certificate.public_bytes(Encoding.PEM)])

    def _fits(self, host: str) -> bool:
        """Say whether the server's certificate is there, is for `host`, and has time left."""
        if not self.server_certificate.exists() or not self.server_key.exists():
            return False
        found = self._read(self.server_certificate)
        names = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        left = found.not_valid_after_utc - datetime.datetime.now(datetime.UTC)
        return set(names) == set(names_of(host)) and left > RENEWED_BEFORE

    def _sign(self, host: str) -> None:
        """Make a new key and certificate for the server."""
        server = ExtendedKeyUsageOID.SERVER_AUTH
        certificate, key = self._issue(host, server, SERVER_LIFE, names_of(host))
        replace_file(self.server_key, [key], private=True)
        replace_file(self.server_certificate, [certificate])

    def operator(self, name: str) -> tuple[bytes, bytes]:
        """Return a certificate and its key, PEM both, for an operator; nothing is kept.

        Raises ConfigError.
        """
        alternative: list[x509.GeneralName] = [x509.DNSName(name)]
        return self._issue(name, ExtendedKeyUsageOID.CLIENT_AUTH, OPERATOR_LIFE, alternative)

    def _issue(
        self,
        name: str,
        purpose: x509.ObjectIdentifier,
        life: datetime.timedelta,
        names: list[x509.GeneralName],
    ) -> tuple[bytes, bytes]:
        """Return a new certificate, signed by the authority, and its key."""
        authority = self._read(self.certificate)
        try:
            signer = load_pem_private_key(self.key.read_bytes(), password=None)
        except (OSError, ValueError) as error:
            raise ConfigError(f"cannot use {self.key}: {error}: restore it from a backup") from None
        if not isinstance(signer, ec.EllipticCurvePrivateKey):
            raise ConfigError(f"{self.key} is no key of ours: restore it from a backup")
        key = ec.generate_private_key(CURVE())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key())
        certificate = (
            builder(subject, authority.subject, key.public_key(), life)
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(usage(signs_certificates=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
            .add_extension(issuer, critical=False)
            .sign(signer, SHA256())
        )
        return certificate.public_bytes(Encoding.PEM), pem_of(key)

    def _read(self, path: Path) -> x509.Certificate:
        try:
            return x509.load_pem_x509_certificate(path.read_bytes())
        except (OSError, ValueError) as error:
            raise ConfigError(f"cannot use {path}: {error}: restore it from a backup") from None


def builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePublicKey,
    life: datetime.timedelta,
) -> x509.CertificateBuilder:
    """Return what all certificates have in common."""
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - BACKDATED)
        .not_valid_after(now + life)
    )


def usage(*, signs_certificates: bool) -> x509.KeyUsage:
    """Return what a key may be used for: certificates alone, or connections alone."""
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def names_of(host: str) -> list[x509.GeneralName]:
    """Return the names that a server's certificate is for; an address is not a name of DNS."""
    found: list[x509.GeneralName] = []
    for name in dict.fromkeys((host, *LOCAL)):
        try:
            found.append(x509.IPAddress(ipaddress.ip_address(name)))
        except ValueError:
            found.append(x509.DNSName(name))
    return found


def pem_of(key: ec.EllipticCurvePrivateKey) -> bytes:
    """Return a private key as a PEM, which is a secret."""
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
