"""What a device needs to join a federation: made here, in the form that the device reads."""

from __future__ import annotations

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from edgetrain.client.enrolment import Enrolment

__all__ = ["fresh_enrolment", "openssh_key", "public_key"]


def fresh_enrolment(name: str, address: str, ca: str) -> Enrolment:
    """Return an enrolment with a new key, of the curve P-384, as Flower's nodes have."""
    key = ec.generate_private_key(ec.SECP384R1())
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return Enrolment(name, address, ca, pem.decode("ascii"))


def public_key(enrolment: Enrolment) -> bytes:
    """Return the PEM that SuperLink knows the device by."""
    public = load_pem_private_key(enrolment.key.encode("ascii"), None).public_key()
    return public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def openssh_key(enrolment: Enrolment) -> bytes:
    """Return the private key as `flower-supernode --auth-supernode-private-key` reads it."""
    key = load_pem_private_key(enrolment.key.encode("ascii"), None)
    return key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())
