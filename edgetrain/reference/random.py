"""Counter-based random draws, keyed by (seed, step, layer, purpose): see native random.hpp."""

from __future__ import annotations

from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from edgetrain.keys import mix

__all__ = ["Key", "Purpose", "derive", "random_bits", "random_bytes", "shuffled"]

Key = tuple[int, int]
"""The low and the high 32 bits of a key."""


class Purpose(IntEnum):
    """What a draw is for."""

    INITIAL_WEIGHTS = 0
    FIXED_SIGNS = 1
    GRADIENT_CODES = 2
    WEIGHT_UPDATE = 3
    SHUFFLE = 4
    UPLOAD = 5
    BRANCH_CODES = 6


def derive(seed: int, step: int, layer: int, purpose: Purpose) -> Key:
    """Return the key of one stream of draws."""
    state = mix(seed)
    for part in (step, layer, int(purpose)):
        state = mix(state ^ part)
    return state & 0xFFFFFFFF, state >> 32


def random_bits(key: Key, counters: NDArray[np.integer]) -> NDArray[np.uint32]:
    """Return 32 random bits for each counter."""
    with np.errstate(over="ignore"):
        x = counters.astype(np.uint32) * np.uint32(0x9E3779B9) + np.uint32(key[0])
        x ^= x >> np.uint32(16)
        x *= np.uint32(0x7FEB352D)
        x ^= x >> np.uint32(15)
        x += np.uint32(key[1])
        x *= np.uint32(0x846CA68B)
        x ^= x >> np.uint32(16)
    return x


def random_bytes(key: Key, indices: NDArray[np.integer]) -> NDArray[np.int64]:
    """Return 8 random bits for each index; four indices share one word."""
    words = random_bits(key, indices >> 2)
    return ((words >> (8 * (indices & 3)).astype(np.uint32)) & np.uint32(255)).astype(np.int64)


def shuffled(count: int, seed: int, epoch: int) -> NDArray[np.uint32]:
    """Return the order of an epoch: Fisher and Yates."""
    draws = random_bits(derive(seed, epoch, 0, Purpose.SHUFFLE), np.arange(count))
    order = np.arange(count, dtype=np.uint32)
    for i in range(count - 1, 0, -1):
        j = int(draws[i]) * (i + 1) >> 32
        order[i], order[j] = order[j], order[i]
    return order
