"""What a device needs to join a federation, in one file that the operator carries to it."""

from __future__ import annotations

from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

__all__ = ["Enrolment"]

HEADER = "# For `edgetrain-client join`. Whoever has this file is the device: keep it secret.\n"


@dataclass(frozen=True)
class Enrolment:
    """A device's name and key, and where its federation is.

    Attributes:
        name: what the operator calls the device.
        address: host and port that it connects to.
        ca: PEM of the certificate authority that it trusts.
        key: PEM (PKCS8) of its private key, of the curve P-384, as Flower's nodes have.
    """

    name: str
    address: str
    ca: str
    key: str

    @classmethod
    def fresh(cls, name: str, address: str, ca: str) -> Enrolment:
        """Return an enrolment with a new key."""
        key = ec.generate_private_key(ec.SECP384R1())
        pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        return cls(name, address, ca, pem.decode("ascii"))

    @property
    def public_key(self) -> bytes:
        """The PEM that SuperLink knows the device by."""
        public = load_pem_private_key(self.key.encode("ascii"), None).public_key()
        return public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)

    @property
    def openssh_key(self) -> bytes:
        """The private key as `flower-supernode --auth-supernode-private-key` reads it."""
        key = load_pem_private_key(self.key.encode("ascii"), None)
        return key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())

    def to_toml(self) -> str:
        """Return the file's text."""
        return (
            f'{HEADER}name = "{self.name}"\naddress = "{self.address}"\n'
            f'ca = """\n{self.ca}"""\nkey = """\n{self.key}"""\n'
        )
