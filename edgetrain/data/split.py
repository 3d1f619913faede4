"""Choose the test part: whole subjects where there are any, else samples at random.

Neighbouring windows of one recording overlap, so that a window at random in the test part has
its other half in the training part and measures memory, not learning. Whoever knows whose a
sample is therefore holds out whole subjects.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from edgetrain.data.dataset import Indices
from edgetrain.errors import ConfigError

__all__ = ["held_out"]

DEFAULT_FRACTION = 0.2


def held_out(
    examples: int,
    subjects: Indices | None,
    test_groups: Sequence[int] | None = None,
    test_fraction: float | None = None,
    seed: int = 0,
) -> NDArray[np.bool_]:
    """Return which of `examples` samples are the test part, (examples,) bool.

    test_groups names subjects; test_fraction takes that part of the samples, as whole subjects
    when `subjects` (examples,) is given, in an order drawn from `seed`. Neither: one fifth.
    Both parts hold something. Raises ConfigError when that cannot be.
    """
    if test_groups is not None and test_fraction is not None:
        raise ConfigError("set test_groups or test_fraction, not both")
    if test_groups is not None:
        mask = _named(subjects, test_groups)
    else:
        fraction = DEFAULT_FRACTION if test_fraction is None else test_fraction
        if not 0 < fraction < 1:
            raise ConfigError(f"test_fraction is {fraction}: it must be above 0 and below 1")
        random = np.random.default_rng(seed)
        mask = _drawn(examples, subjects, fraction, random)
    if not mask.any() or mask.all():
        raise ConfigError(
            f"{int(mask.sum())} of {examples} samples would be for testing: leave at least one "
            "subject or sample on each side"
        )
    return mask


def _named(subjects: Indices | None, chosen: Sequence[int]) -> NDArray[np.bool_]:
    if subjects is None:
        raise ConfigError("test_groups needs a group.npy with the data: set test_fraction instead")
    known = np.unique(subjects)
    if unknown := sorted(set(chosen) - set(known.tolist())):
        shown = ", ".join(str(value) for value in known[:20]) + (", ..." if len(known) > 20 else "")
        raise ConfigError(f"test_groups names {unknown[0]}, and the data has only {shown}")
    return np.isin(subjects, list(chosen))


def _drawn(
    examples: int, subjects: Indices | None, fraction: float, random: np.random.Generator
) -> NDArray[np.bool_]:
    wanted = fraction * examples
    if subjects is None:
        mask = np.zeros(examples, np.bool_)
        mask[random.permutation(examples)[: max(1, round(wanted))]] = True
        return mask
    known, counts = np.unique(subjects, return_counts=True)
    order = random.permutation(len(known))
    # The prefix of the drawn order whose size is nearest to what was asked for, never empty and
    # never everything.
    sizes = np.cumsum(counts[order])
    last = max(1, len(known) - 1)
    take = 1 + int(np.argmin(np.abs(sizes[:last] - wanted)))
    return np.isin(subjects, known[order[:take]])
