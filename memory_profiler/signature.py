"""A device's own signature under what its ledger says; signature_check is how anyone checks it.

The key is of the curve P-384, as Flower's nodes have, so that a device that was enrolled with one
needs no other; where there is none, the first use makes one. The signed bytes begin with what they
are, so that no signature of Flower's protocol can pass for one of these, nor the other way round.
"""

from __future__ import annotations

import stat
from dataclasses import replace
from pathlib import Path

from edgetrain.digest import LedgerDigest
from edgetrain.errors import ConfigError
from edgetrain.memory_profiler.ledger import Ledger
from edgetrain.signing import PrivateKey
from edgetrain.storage import replace_file

__all__ = ["device_key", "signed_digest"]

OTHERS = stat.S_IRWXG | stat.S_IRWXO
OPENSSH = b"-----BEGIN OPENSSH PRIVATE KEY-----"
POINT_BYTES = 49
"""Of a point of the curve P-384 in its short form: a sign, and 384 bits."""
UNSIGNED = "00" * 8


def device_key(path: Path) -> PrivateKey:
    """Return the private key in a file (PEM or OpenSSH); make the file where there is none.

    Raises ConfigError for a file that others may read or that holds no such key, StorageError
    when it cannot be made.
    """
    try:
        if not path.exists():
            # Only whoever has no key yet pays for `cryptography`.
            from edgetrain.memory_profiler.key_files import fresh_key  # noqa: PLC0415

            replace_file(path, [fresh_key()], private=True)
        if path.stat().st_mode & OTHERS:
            raise ConfigError(f"others may read the key {path}: chmod 600 {path}")
        raw = path.read_bytes()
        if raw.startswith(OPENSSH):
            from edgetrain.memory_profiler.key_files import pem_of_openssh  # noqa: PLC0415

            raw = pem_of_openssh(raw)
        key = PrivateKey(raw)
    except (OSError, ValueError, TypeError) as error:
        raise ConfigError(f"cannot use the key {path}: {error}: move it away to make one") from None
    if len(key.public_point) != POINT_BYTES:
        raise ConfigError(f"{path} is no key of the curve P-384: move it away to make one")
    return key


def signed_digest(ledger: Ledger, key: PrivateKey) -> LedgerDigest:
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
        key.public_point.hex(),
        UNSIGNED,
    )
    return replace(unsigned, signature=key.sign(unsigned.signed_bytes).hex())
