"""Signatures by an elliptic-curve key, made by the OpenSSL that Python's own TLS is linked to.

A device signs every request. The package `cryptography` brings an OpenSSL of its own, 10 MiB of
memory beside the one that is in memory anyway; so libcrypto is called here, by its documented
EVP_DigestSign interface, and `cryptography` only where it cannot be reached (a Python with
OpenSSL built in).
"""

from __future__ import annotations

import base64
import ctypes
import ssl
import weakref
from collections.abc import Callable
from functools import cache
from typing import Any

from edgetrain.errors import ConfigError

__all__ = ["PrivateKey"]

Pointer, Bytes, Size = ctypes.c_void_p, ctypes.c_char_p, ctypes.c_size_t
FUNCTIONS: dict[str, tuple[Any, tuple[Any, ...]]] = {
    "BIO_new_mem_buf": (Pointer, (Bytes, ctypes.c_int)),
    "BIO_free": (ctypes.c_int, (Pointer,)),
    "PEM_read_bio_PrivateKey": (Pointer, (Pointer, Pointer, Pointer, Bytes)),
    "EVP_PKEY_free": (None, (Pointer,)),
    "i2d_PUBKEY": (ctypes.c_int, (Pointer, Pointer)),
    "EVP_sha256": (Pointer, ()),
    "EVP_MD_CTX_new": (Pointer, ()),
    "EVP_MD_CTX_free": (None, (Pointer,)),
    "EVP_DigestSignInit": (ctypes.c_int, (Pointer, Pointer, Pointer, Pointer, Pointer)),
    "EVP_DigestSign": (ctypes.c_int, (Pointer, Pointer, Pointer, Bytes, Size)),
    "ERR_clear_error": (None, ()),
}
"""What is called of libcrypto, 1.1.1 or later: the types of the result and of the arguments."""
LIBRARIES = ("libcrypto.so.3", "libcrypto.so.1.1")
ELLIPTIC_CURVE = bytes.fromhex("06072a8648ce3d0201")
"""The object identifier of such a public key in DER, RFC 5480."""
NO_PASSWORD = b""
"""Given where a PEM wants one; without it OpenSSL would ask at the terminal."""
PEM_COLUMNS = 64

Sign = Callable[[bytes], bytes]


class PrivateKey:
    """A private key of an elliptic curve, from a PEM without a password.

    Raises ConfigError for a PEM that holds none.

    Attributes:
        public_der, public_pem: its public half (SubjectPublicKeyInfo).
    """

    def __init__(self, pem: bytes) -> None:
        library = libcrypto()
        opened = open_with_cryptography(pem) if library is None else open_key(library, pem)
        if opened is None or ELLIPTIC_CURVE not in opened[0]:
            raise ConfigError(
                "the key is no elliptic curve's, as a PEM without a password: get another"
            )
        self.public_der, self._sign = opened

    def sign(self, message: bytes) -> bytes:
        """Return the ECDSA signature of a message, over its SHA-256, in DER."""
        return self._sign(message)

    @property
    def public_pem(self) -> bytes:
        """The public key as a PEM, with the line breaks that everybody writes."""
        text = base64.b64encode(self.public_der)
        lines = [text[at : at + PEM_COLUMNS] for at in range(0, len(text), PEM_COLUMNS)]
        return b"\n".join([b"-----BEGIN PUBLIC KEY-----", *lines, b"-----END PUBLIC KEY-----", b""])

    @property
    def public_point(self) -> bytes:
        """The public key as a point in its short form (SEC 1, 2.3.3): a sign, and x."""
        curve = self.public_der.index(ELLIPTIC_CURVE) + len(ELLIPTIC_CURVE)
        # An identifier of the curve, then a string of bits: its tag, length and a zero byte.
        bits = curve + 2 + self.public_der[curve + 1]
        length = self.public_der[bits + 1]
        point = self.public_der[bits + 3 + (length & 0x7F if length > 0x7F else 0) :]
        x, y = point[1 : len(point) // 2 + 1], point[len(point) // 2 + 1 :]
        return bytes([2 + y[-1] % 2]) + x


@cache
def libcrypto() -> ctypes.CDLL | None:
    """Return the libcrypto that is in memory, or else the system's; None where there is none."""
    for name in (getattr(ssl._ssl, "__file__", None), *LIBRARIES):  # type: ignore[attr-defined]
        try:
            library = ctypes.CDLL(name) if name else None
            for function, (returned, arguments) in FUNCTIONS.items():
                found = getattr(library, function)
                found.restype, found.argtypes = returned, arguments
        except (OSError, AttributeError):
            continue
        return library
    return None


def open_key(library: ctypes.CDLL, pem: bytes) -> tuple[bytes, Sign] | None:
    """Return the public half of the key in a PEM, in DER, and what signs with it; or None."""
    source = library.BIO_new_mem_buf(pem, len(pem))
    key = library.PEM_read_bio_PrivateKey(source, None, None, NO_PASSWORD)
    library.BIO_free(source)
    if not key:
        # What is left in its queue would be taken for an error of the next TLS connection.
        library.ERR_clear_error()
        return None
    size = library.i2d_PUBKEY(key, None)
    buffer = ctypes.create_string_buffer(max(size, 1))
    end = Pointer(ctypes.addressof(buffer))
    library.i2d_PUBKEY(key, ctypes.byref(end))

    def sign(message: bytes) -> bytes:
        return sign_with(library, key, message)

    weakref.finalize(sign, library.EVP_PKEY_free, key)
    return buffer.raw[:size], sign


def sign_with(library: ctypes.CDLL, key: int, message: bytes) -> bytes:
    """Return the signature of a message by a key of libcrypto's. Raises ConfigError."""
    context = library.EVP_MD_CTX_new()
    try:
        size = Size(0)
        begun = library.EVP_DigestSignInit(context, None, library.EVP_sha256(), None, key)
        sized = begun == 1 and library.EVP_DigestSign(
            context, None, ctypes.byref(size), message, len(message)
        )
        buffer = ctypes.create_string_buffer(size.value or 1)
        if (
            sized != 1
            or library.EVP_DigestSign(context, buffer, ctypes.byref(size), message, len(message))
            != 1
        ):
            library.ERR_clear_error()
            raise ConfigError("the key cannot sign: is it of another kind?")
        return buffer.raw[: size.value]
    finally:
        library.EVP_MD_CTX_free(context)


def open_with_cryptography(pem: bytes) -> tuple[bytes, Sign] | None:
    """Do as open_key does, where no libcrypto can be reached. Raises ConfigError without either."""
    try:
        from cryptography.hazmat.primitives import hashes, serialization  # noqa: PLC0415
        from cryptography.hazmat.primitives.asymmetric import ec  # noqa: PLC0415
    except ModuleNotFoundError:
        raise ConfigError(
            "neither OpenSSL's libcrypto nor the package cryptography is here: "
            "pip install 'edgetrain[device]'"
        ) from None
    try:
        key = serialization.load_pem_private_key(pem, None)
    except (ValueError, TypeError):
        return None
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        return None
    der = key.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return der, lambda message: key.sign(message, ec.ECDSA(hashes.SHA256()))
