"""Anyone's data: a folder of .npy files.

==============  ============  ================================================================
x.npy           (N, ...)      the samples. Integers are used as they are and must fit 8 bits;
                              floats are scaled to int8 per channel (last axis), see `scaling`
y.npy           (N,)          labels, integers from 0
group.npy       (N,)          optional integers: whose device a sample is
subject.npy     (N,)          optional integers: what a test part takes whole, where that is not
                              the group (one person with two devices)
x_test.npy,     as x and y    optional: a test part of its own; without it one is held out
y_test.npy
classes.json    list of text  optional names of the classes; its length is their number
scaling.json                  optional constants to scale by (`Scaling.save`); without it they
                              are computed from the training part
==============  ============  ================================================================

Files are mapped, never unpickled.
"""

from __future__ import annotations

import json
import math
import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgetrain.data.dataset import Dataset, Features, Indices, Labels, Splits
from edgetrain.data.scaling import BLOCK, Scaling, fit
from edgetrain.data.split import held_out
from edgetrain.data.store import MAXIMUM_CLASSES, MAXIMUM_RANK
from edgetrain.errors import ConfigError, DataError

__all__ = ["load_folder"]

Array = NDArray[Any]


def load_folder(
    path: str | os.PathLike[str],
    test_groups: Sequence[int] | None = None,
    test_fraction: float | None = None,
    seed: int = 0,
) -> Splits:
    """Return the training and test parts of a folder of .npy files (see the module).

    test_groups names the subjects to hold out, test_fraction how much (whole subjects where
    there are any, drawn from `seed`); a folder with its own x_test.npy takes neither. Raises
    DataError naming the file, what is wrong and what to do; ConfigError for a bad choice.
    """
    folder = Path(path)
    if not folder.is_dir():
        raise DataError(f"{folder} is not a folder: name one that holds x.npy and y.npy")
    x, labels = _samples(folder, "x.npy", "y.npy")
    groups = _whole_numbers(folder / "group.npy", len(labels))
    subjects = _whole_numbers(folder / "subject.npy", len(labels))
    subjects = groups if subjects is None else subjects
    names, own_test = _class_names(folder / "classes.json"), (folder / "x_test.npy").exists()
    if own_test and (test_groups is not None or test_fraction is not None):
        raise ConfigError(
            f"{folder} comes with its own test part: leave test_groups and test_fraction out"
        )
    if own_test:
        x_test, labels_test = _test_samples(folder, x)
        train_rows: Indices = np.arange(len(labels))
        highest = max(int(labels.max()), int(labels_test.max()))
    else:
        mask = held_out(len(labels), subjects, test_groups, test_fraction, seed)
        train_rows, highest = np.flatnonzero(~mask), int(labels.max())

    scaling = _scaling(folder / "scaling.json", x, train_rows)
    features = _features(folder / "x.npy", x, scaling)
    whole = Dataset(
        features=features,
        labels=labels,
        classes=_class_count(folder, names, highest),
        feature_shape=x.shape[1:],
        groups=groups,
        subjects=subjects,
        scaling=scaling,
        name=folder.name,
        class_names=names,
    )
    if not own_test:
        return Splits(whole.take(train_rows), whole.take(mask), folder.name)
    test_features = _features(folder / "x_test.npy", x_test, scaling)
    if test_features.dtype != features.dtype:
        raise DataError(f"{folder}: x.npy is {features.dtype} and x_test.npy {test_features.dtype}")
    test = Dataset(
        features=test_features,
        labels=labels_test,
        classes=whole.classes,
        feature_shape=whole.feature_shape,
        scaling=scaling,
        name=whole.name,
        class_names=names,
    )
    return Splits(whole, test, folder.name)


def _test_samples(folder: Path, x: Array) -> tuple[Array, NDArray[np.uint8]]:
    """Map the folder's own test samples, which must be of the kind of the training samples x."""
    x_test, labels = _samples(folder, "x_test.npy", "y_test.npy")
    if x_test.shape[1:] != x.shape[1:] or x_test.dtype.kind != x.dtype.kind:
        raise DataError(
            f"{folder / 'x_test.npy'} holds {x_test.dtype} samples of shape "
            f"{x_test.shape[1:]} and x.npy {x.dtype} of {x.shape[1:]}: make them alike"
        )
    return x_test, labels


def _read(path: Path) -> Array:
    """Map a .npy file, whatever numbers it holds."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a strange header, which is refused or harmless
            return np.asarray(np.lib.format.open_memmap(path, mode="r"))
    except FileNotFoundError as error:
        raise DataError(
            f"{path} is missing: write it with numpy.save (a data folder holds x.npy and y.npy)"
        ) from error
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}") from error
    except Exception as error:  # numpy parses the header as Python, which can fail in any way
        what = (
            "holds Python objects (pickled), which are never read"
            if "Python objects" in str(error)
            else "is damaged or no .npy file"
        )
        raise DataError(f"{path} {what}: write plain numbers with numpy.save") from error


def _samples(folder: Path, x_name: str, y_name: str) -> tuple[Array, Labels]:
    x, y = _read(folder / x_name), _read(folder / y_name)
    if not 2 <= x.ndim <= MAXIMUM_RANK + 1 or not math.prod(x.shape[1:]):
        raise DataError(
            f"{folder / x_name} has shape {x.shape}: it needs samples along the first axis and 1 "
            f"to {MAXIMUM_RANK} axes of features after it"
        )
    if x.dtype.kind not in "biuf":
        raise DataError(f"{folder / x_name} holds {x.dtype}: save integers or floats")
    if y.shape != (len(x),):
        raise DataError(
            f"{folder / y_name} has shape {y.shape} and {x_name} {len(x)} samples: it needs one "
            "label a sample, a whole number"
        )
    if not len(x):
        raise DataError(f"{folder / x_name} has no samples: record some before training on it")
    if y.dtype.kind not in "iu":
        raise DataError(f"{folder / y_name} holds {y.dtype}: save labels as integers from 0")
    low, high = int(y.min()), int(y.max())
    if low < 0 or high >= MAXIMUM_CLASSES:
        raise DataError(
            f"{folder / y_name} has label {low if low < 0 else high}: labels must be "
            f"0..{MAXIMUM_CLASSES - 1}, counted from 0"
        )
    return x, np.ascontiguousarray(y, np.uint8)


def _whole_numbers(path: Path, count: int) -> Indices | None:
    if not path.exists():
        return None
    values = _read(path)
    if values.shape != (count,) or values.dtype.kind not in "iu":
        raise DataError(
            f"{path} holds {values.dtype} of shape {values.shape}: it needs one integer for each "
            f"of {count} samples"
        )
    return values.astype(np.int64)


def _class_names(path: Path) -> tuple[str, ...]:
    if not path.exists():
        return ()
    try:
        names = json.loads(path.read_text())
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"cannot read {path}: {error}") from error
    if (
        not isinstance(names, list)
        or not 1 <= len(names) <= MAXIMUM_CLASSES
        or not all(isinstance(name, str) for name in names)
    ):
        raise DataError(f"{path} must be a JSON list of 1 to {MAXIMUM_CLASSES} class names")
    return tuple(names)


def _class_count(folder: Path, names: tuple[str, ...], highest: int) -> int:
    if names and highest >= len(names):
        raise DataError(
            f"{folder / 'y.npy'} has label {highest} and classes.json names {len(names)} classes: "
            "labels count from 0; add the missing names"
        )
    return len(names) or highest + 1


def _scaling(path: Path, x: Array, train_rows: Indices) -> Scaling | None:
    """Return recorded constants, else ones of the training part, or None for integers."""
    if x.dtype.kind != "f":
        return None
    if path.exists():
        return Scaling.load(path)
    try:
        return fit(x, train_rows)
    except DataError as error:
        raise DataError(f"{path.with_name('x.npy')}: {error}") from error


def _features(path: Path, x: Array, scaling: Scaling | None) -> Features:
    """Return x as (N, features) uint8 or int8, a view of the file where it can be."""
    try:
        narrow: Array = _narrow(x) if scaling is None else scaling.apply(x)
    except DataError as error:
        raise DataError(f"{path}: {error}") from error
    return np.ascontiguousarray(narrow).reshape(len(x), -1)


def _narrow(x: Array) -> Array:
    if x.dtype in (np.uint8, np.int8):
        return x
    if x.dtype.kind == "b":
        return x.astype(np.uint8)
    blocks = [x[start : start + BLOCK] for start in range(0, len(x), BLOCK)]
    low, high = min(int(b.min()) for b in blocks), max(int(b.max()) for b in blocks)
    for kind in (np.uint8, np.int8):
        if np.iinfo(kind).min <= low and high <= np.iinfo(kind).max:
            return x.astype(kind)
    raise DataError(
        f"integers from {low} to {high} do not fit 8 bits: save them as float32 to have them scaled"
    )
