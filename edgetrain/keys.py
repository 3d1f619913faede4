"""Keys for random draws, derived from names and numbers.

Two draws that must differ (two devices, two rounds, two tensors) get keys from different parts;
two machines that must agree derive the same key. Not a cryptographic hash: the parts are no
secret, and a worker on a small device does not pay the 4 MiB that a cryptographic library takes.
"""

from __future__ import annotations

__all__ = ["derive_key"]

WORD = (1 << 64) - 1
GOLDEN = 0x9E3779B97F4A7C15
WORD_BYTES = 8


def derive_key(*parts: int | str) -> int:
    """Return a 64-bit key for the parts, in their order.

    Each part's text is absorbed 8 bytes at a time, then its length, by the SplitMix64 permutation:
    state <- mix(state ^ word).
    """
    state = 0
    for part in parts:
        text = str(part).encode("utf-8")
        for start in range(0, len(text), WORD_BYTES):
            state = mix(state ^ int.from_bytes(text[start : start + WORD_BYTES], "little"))
        state = mix(state ^ len(text))
    return state


def mix(word: int) -> int:
    """Return SplitMix64's permutation of a 64-bit word (Steele, Lea and Flood, 2014)."""
    word = (word + GOLDEN) & WORD
    word = ((word ^ (word >> 30)) * 0xBF58476D1CE4E5B9) & WORD
    word = ((word ^ (word >> 27)) * 0x94D049BB133111EB) & WORD
    return word ^ (word >> 31)
