"""Signatures by libcrypto and by the package cryptography: each holds where the other judges."""

from __future__ import annotations

import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PrivateFormat, PublicFormat

from edgetrain import signing
from edgetrain.errors import ConfigError
from edgetrain.signing import PrivateKey

CURVES = (ec.SECP256R1(), ec.SECP384R1(), ec.SECP521R1())
PLAIN = serialization.NoEncryption()


@pytest.fixture
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Sign in one way or the other."""
    if request.param == "cryptography":
        monkeypatch.setattr(signing, "libcrypto", lambda: None)
    else:
        assert signing.libcrypto() is not None
    return request.param


both = pytest.mark.parametrize("way", ["libcrypto", "cryptography"], indirect=True)


def pem_of(key: ec.EllipticCurvePrivateKey, form: PrivateFormat = PrivateFormat.PKCS8) -> bytes:
    return key.private_bytes(Encoding.PEM, form, PLAIN)


@both
@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("curve", CURVES, ids=lambda curve: curve.name)
@pytest.mark.parametrize("form", [PrivateFormat.PKCS8, PrivateFormat.TraditionalOpenSSL])
def test_a_signature_holds(curve: ec.EllipticCurve, form: PrivateFormat) -> None:
    theirs = ec.generate_private_key(curve)
    ours = PrivateKey(pem_of(theirs, form))
    public = theirs.public_key()
    der = public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    pem = public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    point = public.public_bytes(Encoding.X962, PublicFormat.CompressedPoint)
    assert (ours.public_der, ours.public_pem) == (der, pem)
    assert ours.public_point == point
    for message in (b"", b"2026-11-24T10:00:00+00:00", bytes(1 << 20)):
        public.verify(ours.sign(message), message, ec.ECDSA(hashes.SHA256()))
    with pytest.raises(InvalidSignature):
        public.verify(ours.sign(b"this"), b"that", ec.ECDSA(hashes.SHA256()))


@both
@pytest.mark.usefixtures("way")
def test_what_is_no_such_key_is_refused() -> None:
    curve = ec.generate_private_key(CURVES[1])
    locked = serialization.BestAvailableEncryption(b"secret")
    bad = [
        curve.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, locked),
        ed25519.Ed25519PrivateKey.generate().private_bytes(
            Encoding.PEM, PrivateFormat.PKCS8, PLAIN
        ),
        rsa.generate_private_key(65537, 2048).private_bytes(
            Encoding.PEM, PrivateFormat.PKCS8, PLAIN
        ),
        curve.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
        pem_of(curve)[:100],
        pem_of(curve).replace(b"A", b"!"),
        b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
        b"\0" * 100,
        b"",
    ]
    for pem in bad:
        with pytest.raises(ConfigError, match="without a password"):
            PrivateKey(pem)


def test_a_refused_key_leaves_nothing_for_the_next_connection_to_trip_over() -> None:
    library = signing.libcrypto()
    assert library is not None
    with pytest.raises(ConfigError):
        PrivateKey(b"nonsense")
    assert library.ERR_peek_error() == 0
    ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


def test_threads_sign_with_one_key_at_once() -> None:
    theirs = ec.generate_private_key(CURVES[1])
    ours = PrivateKey(pem_of(theirs))
    held: list[bool] = []

    def sign(number: int) -> None:
        message = str(number).encode()
        theirs.public_key().verify(ours.sign(message), message, ec.ECDSA(hashes.SHA256()))
        held.append(True)

    threads = [threading.Thread(target=sign, args=(number,)) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(held) == 16


def test_a_device_without_either_is_told_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signing, "libcrypto", lambda: None)
    monkeypatch.setitem(sys.modules, "cryptography.hazmat.primitives", None)
    with pytest.raises(ConfigError, match="pip install"):
        PrivateKey(b"")


def test_signing_loads_no_package() -> None:
    pem = pem_of(ec.generate_private_key(CURVES[1])).decode()
    code = (
        f"import sys; from edgetrain.signing import PrivateKey; PrivateKey({pem!r}.encode())"
        ".sign(b'x'); print(*[name for name in sys.modules if name.startswith('crypto')])"
    )
    ended = subprocess.run(
        [sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True
    )
    assert ended.stdout.strip() == ""
