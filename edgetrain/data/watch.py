"""The bundled set: six-axis motion of a smart watch in seven shoulder exercises.

3,605 windows of 128 samples at 50 Hz (2.56 s), 3 axes of acceleration and 3 of rotation, from
ten people on their left and right sides: 20 devices. The windows overlap by half, so that a test
part must never take windows at random: it takes people. People 3, 6 and 9 are held out unless
told otherwise, which leaves 14 devices to train and 6 to judge.

`bundled/watch.npz` is written by `benchmarks/build_watch.py` from the recordings in seglearn
1.2.5 (Burns et al., BSD-3-Clause, licence beside it), scaled to int8 with constants of the
training people.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from edgetrain.data.dataset import Dataset, Splits
from edgetrain.data.scaling import Scaling
from edgetrain.data.split import held_out
from edgetrain.errors import DataError

__all__ = ["CLASS_NAMES", "TEST_SUBJECTS", "load_watch"]

BUNDLE = Path(__file__).parent / "bundled" / "watch.npz"
TEST_SUBJECTS = (3, 6, 9)
CLASS_NAMES = (
    "pendulum",
    "abduction",
    "forward elevation",
    "internal rotation",
    "external rotation",
    "trapezius extension",
    "upright row",
)


def load_watch(
    test_groups: Sequence[int] | None = None, test_fraction: float | None = None, seed: int = 0
) -> Splits:
    """Return the watch set, features (N, 768) int8 of shape (128, 6), seven classes.

    groups are devices (subject * 2 + side), subjects the people 1 to 10. test_groups names the
    people to hold out; test_fraction draws whole people from `seed` instead.
    """
    if test_groups is None and test_fraction is None:
        test_groups = TEST_SUBJECTS
    whole = _whole()
    mask = held_out(len(whole), whole.subjects, test_groups, test_fraction, seed)
    return Splits(whole.take(~mask), whole.take(mask), "watch")


def _whole() -> Dataset:
    try:
        with BUNDLE.open("rb") as file, np.load(file, allow_pickle=False) as bundle:
            x, y, subject, side, center, step = (
                bundle[key] for key in ("x", "y", "subject", "side", "center", "step")
            )
    except Exception as error:  # a zip can break in many ways; the cure is the same
        raise DataError("the bundled watch set is damaged: install edgetrain again") from error
    return Dataset(
        features=x.reshape(len(x), -1),
        labels=y,
        classes=len(CLASS_NAMES),
        feature_shape=x.shape[1:],
        groups=subject.astype(np.int64) * 2 + side,
        subjects=subject.astype(np.int64),
        scaling=Scaling(tuple(center.tolist()), tuple(step.tolist())),
        name="watch",
        class_names=CLASS_NAMES,
    )
