"""Whether a ledger's digest is signed by the key that it names; for who receives it."""

from __future__ import annotations

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key

from edgetrain.digest import LedgerDigest
from edgetrain.errors import PayloadError

__all__ = ["is_signed", "point_of", "point_of_pem"]

CURVE = ec.SECP384R1
ALGORITHM = ec.ECDSA(SHA256())


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
