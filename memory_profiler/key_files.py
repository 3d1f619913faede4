"""Files of private keys: a new one, and one in OpenSSH's format, as PEMs without a password."""

from __future__ import annotations

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_ssh_private_key,
)

__all__ = ["fresh_key", "pem_of_openssh"]


def fresh_key() -> bytes:
    """Return a new key of the curve P-384."""
    key = ec.generate_private_key(ec.SECP384R1())
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def pem_of_openssh(raw: bytes) -> bytes:
    """Return a key in OpenSSH's format as a PEM. Raises ValueError and TypeError for another."""
    key = load_ssh_private_key(raw, password=None)
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
