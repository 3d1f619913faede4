"""A ledger's signed digest: what it says, who can have signed it, and what passes for one."""

from __future__ import annotations

import json
import stat
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from hypothesis import given
from hypothesis import strategies as st

from edgetrain.digest import LedgerDigest
from edgetrain.errors import ConfigError, PayloadError, StorageError
from edgetrain.memory_profiler.budget import Budget
from edgetrain.memory_profiler.ledger import Ledger, verify
from edgetrain.memory_profiler.ledger_line import Intent, Outcome
from edgetrain.memory_profiler.signature import device_key, signed_digest
from edgetrain.memory_profiler.signature_check import is_signed, point_of_pem
from edgetrain.signing import PrivateKey
from edgetrain.task import PlanSummary

KEY = ec.generate_private_key(ec.SECP384R1())
SIGNER = PrivateKey(KEY.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
INTENT = Intent("train", 3, "left", PlanSummary("bnn", 30, 1, 9), 17 << 20, Budget())
OUTCOMES = (
    Outcome("trained", "", 18 << 20, 540, 2.5, 1.5, "measured"),
    Outcome("failed", "the worker was killed"),
    Outcome("trained", "", 16 << 20, 540, 2.5, 0.5, "modelled"),
)


def digest_of(path: Path, outcomes: tuple[Outcome, ...] = OUTCOMES) -> LedgerDigest:
    """Return the digest of a ledger of these outcomes."""
    with Ledger(path) as ledger:
        for outcome in outcomes:
            ledger.begin(INTENT)
            ledger.end(outcome)
        return signed_digest(ledger, SIGNER)


@pytest.fixture(scope="module")
def digest(tmp_path_factory: pytest.TempPathFactory) -> LedgerDigest:
    return digest_of(tmp_path_factory.mktemp("ledger") / "ledger")


def test_it_says_what_the_ledger_says(tmp_path: Path) -> None:
    found = digest_of(tmp_path / "ledger")
    verdict = verify(tmp_path / "ledger")
    assert (found.head, found.lines, found.tasks) == (verdict.digest, verdict.lines, len(OUTCOMES))
    assert (found.seconds, found.seconds_unknown) == (5.0, 1)
    assert (found.joules, found.joules_unknown, found.joules_source) == (2.0, 1, "mixed")
    assert found.peak_bytes == 18 << 20
    assert is_signed(found)


def test_what_nobody_knows_is_null(tmp_path: Path) -> None:
    found = digest_of(tmp_path / "ledger", OUTCOMES[1:2])
    assert (found.seconds, found.joules, found.peak_bytes) == (None, None, None)
    assert found.joules_source == "none"
    assert is_signed(found)


def test_it_survives_json(digest: LedgerDigest) -> None:
    told = json.loads(json.dumps(digest.to_fields()))
    assert LedgerDigest.from_fields("digest", told) == digest


def test_a_change_of_any_field_shows(digest: LedgerDigest) -> None:
    other = ec.generate_private_key(ec.SECP384R1()).public_key()
    changes: dict[str, Any] = {
        "head": "0" * 64,
        "joules_source": "measured",
        "key": other.public_bytes(Encoding.X962, PublicFormat.CompressedPoint).hex(),
        "signature": digest.signature[:-2] + "00",
    }
    for field in fields(digest):
        value = changes.get(field.name) or getattr(digest, field.name) + 1
        assert not is_signed(replace(digest, **{field.name: value})), field.name


@pytest.mark.parametrize(
    "change",
    [
        {"version": 2},
        {"lines": 0},
        {"lines": True},
        {"head": "0" * 63},
        {"head": "G" * 64},
        {"head": ["0" * 64]},
        {"joules": float("nan")},
        {"joules": -1},
        {"seconds": 10**400},
        {"joules_source": "x" * 33},
        {"key": "02"},
        {"signature": "00" * 200},
        {"signature": ""},
        {"more": 1},
    ],
    ids=str,
)
def test_anything_else_is_refused(digest: LedgerDigest, change: dict[str, Any]) -> None:
    with pytest.raises(PayloadError):
        LedgerDigest.from_fields("digest", digest.to_fields() | change)


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(), st.lists))
def test_nonsense_is_refused(value: object) -> None:
    with pytest.raises(PayloadError):
        LedgerDigest.from_fields("digest", value)


@given(key=st.binary(min_size=49, max_size=49), signature=st.binary(min_size=8, max_size=104))
def test_no_bytes_make_a_signature(key: bytes, signature: bytes) -> None:
    forged = LedgerDigest(
        2, "0" * 64, 1, None, 1, None, 1, "none", None, key.hex(), signature.hex()
    )
    assert not is_signed(forged)


def test_a_key_is_made_once_and_for_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "key"
    made = device_key(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert device_key(path).public_der == made.public_der
    assert [found.name for found in tmp_path.iterdir()] == ["key"]
    with pytest.raises(StorageError):
        device_key(tmp_path / "absent" / "key")


def test_the_key_of_a_flower_node_will_do(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.touch(0o600)
    path.write_bytes(KEY.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()))
    assert device_key(path).public_der == SIGNER.public_der


def test_a_key_that_others_may_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "key"
    device_key(path)
    path.chmod(0o640)
    with pytest.raises(ConfigError, match="chmod 600"):
        device_key(path)


@pytest.mark.parametrize("kind", ["garbage", "another curve", "a folder"])
def test_what_is_no_such_key_is_refused_in_one_line(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "key"
    if kind == "a folder":
        path.mkdir(0o700)
    else:
        path.touch(0o600)
        other = ec.generate_private_key(ec.SECP256R1())
        pem = other.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        path.write_bytes(pem if kind == "another curve" else b"not a key")
    with pytest.raises(ConfigError) as caught:
        device_key(path)
    assert "\n" not in str(caught.value)


def test_a_public_key_is_named_the_same_from_its_pem(digest: LedgerDigest) -> None:
    public = KEY.public_key()
    pem = public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    assert point_of_pem(pem) == digest.key
    for other in (b"", b"no key", pem[:40]):
        with pytest.raises(PayloadError):
            point_of_pem(other)
