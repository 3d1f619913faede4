"""A device's own signature under what its ledger says, and how anyone checks it.

The key is of the curve P-384, as Flower's nodes have, so that a device that was enrolled with one
needs no other; where there is none, the first use makes one. The signed bytes begin with what they
are, so that no signature of Flower's protocol can pass for one of these, nor the other way round.

This module loads `cryptography`, which a worker must not pay for: nothing that a worker imports
may import it.
"""

from __future__ import annotations

import stat
from dataclasses import replace
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
    load_ssh_private_key,
)

from edgetrain.digest import LedgerDigest
from edgetrain.errors import ConfigError, PayloadError
from edgetrain.memory_profiler.ledger import Ledger
from edgetrain.storage import replace_file

__all__ = ["device_key", "is_signed", "point_of", "point_of_pem", "signed_digest"]

CURVE = ec.SECP384R1
ALGORITHM = ec.ECDSA(SHA256())
OTHERS = stat.S_IRWXG | stat.S_IRWXO
OPENSSH = b"-----BEGIN OPENSSH PRIVATE KEY-----"
UNSIGNED = "00" * 8


def device_key(path: Path) -> ec.EllipticCurvePrivateKey:
    """Return the private key in a file (PEM or OpenSSH); make the file where there is none.

    Raises ConfigError for a file that others may read or that holds no such key, StorageError
    when it cannot be made.
    """
    if not path.exists():
        fresh = ec.generate_private_key(CURVE())
        pem = fresh.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        replace_file(path, [pem], private=True)
    try:
        if path.stat().st_mode & OTHERS:
            raise ConfigError(f"others may read the key {path}: chmod 600 {path}")
        raw = path.read_bytes()
        load = load_ssh_private_key if raw.startswith(OPENSSH) else load_pem_private_key
        key = load(raw, password=None)
    except (OSError, ValueError, TypeError) as error:
        raise ConfigError(f"cannot use the key {path}: {error}: move it away to make one") from None
    if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, CURVE):
        raise ConfigError(f"{path} is no key of the curve P-384: move it away to make one")
    return key


def signed_digest(ledger: Ledger, key: ec.EllipticCurvePrivateKey) -> LedgerDigest:
    """Return what an open ledger says up to its last line, signed."""
    totals = ledger.totals
    unsigned = LedgerDigest(
        ledger.lines,
        ledger.head,
        totals.tasks,
        totals.seconds,
        totals.seconds_unknown,
        totals.joules,
        totals.joules_unknown,
        totals.joules_source,
        totals.measured_peak_bytes,
        point_of(key.public_key()),
        UNSIGNED,
    )
    return replace(unsigned, signature=key.sign(unsigned.signed_bytes, ALGORITHM).hex())


def is_signed(digest: LedgerDigest) -> bool:
    """Say whether the owner of the digest's key has signed it as it is."""
    try:
        key = ec.EllipticCurvePublicKey.from_encoded_point(CURVE(), bytes.fromhex(digest.key))
        key.verify(bytes.fromhex(digest.signature), digest.signed_bytes, ALGORITHM)
    except (InvalidSignature, ValueError):
        return False
    return True


def point_of(key: ec.EllipticCurvePublicKey) -> str:
    """Return a public key as a digest names it: its compressed point in hexadecimal digits."""
    return key.public_bytes(Encoding.X962, PublicFormat.CompressedPoint).hex()


def point_of_pem(pem: bytes) -> str:
    """Return `point_of` the public key in a PEM. Raises PayloadError for any other bytes."""
    try:
        key = load_pem_public_key(pem)
    except (ValueError, TypeError) as error:
        raise PayloadError(f"this is no public key: {error}") from None
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, CURVE):
        raise PayloadError("the public key is not of the curve P-384")
    return point_of(key)
