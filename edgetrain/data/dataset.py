"""What training data is here: one frozen record of samples, and the pair of parts it is used in."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgetrain.data import store
from edgetrain.data.scaling import Scaling
from edgetrain.errors import DataError

__all__ = ["Dataset", "Features", "Indices", "Labels", "Splits"]

Features = NDArray[np.uint8] | NDArray[np.int8]
Labels = NDArray[np.uint8]
Indices = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Dataset:
    """Labelled samples in the form that the engine reads.

    features (N, feature_count) uint8 or int8, C-contiguous, feature_count = prod(feature_shape);
    labels (N,) uint8, each below classes; groups (N,) int64 or None: whose device a sample is;
    subjects (N,) int64 or None: what a test part takes whole (a person with two devices is one
    subject). scaling holds the constants that float data was scaled by, None for integer data.
    Raises DataError when the parts do not fit each other.
    """

    features: Features
    labels: Labels
    classes: int
    feature_shape: tuple[int, ...]
    groups: Indices | None = None
    subjects: Indices | None = None
    scaling: Scaling | None = None
    name: str = ""
    class_names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        shape = (len(self.labels), math.prod(self.feature_shape))
        if self.features.shape != shape:
            raise DataError(f"features have shape {self.features.shape}, not {shape}")
        if self.features.dtype not in (np.uint8, np.int8) or self.labels.dtype != np.uint8:
            raise DataError("features must be uint8 or int8, and labels uint8")
        if len(self.labels) and int(self.labels.max()) >= self.classes:
            raise DataError(
                f"label {int(self.labels.max())} does not fit {self.classes} classes: labels "
                "count from 0"
            )
        for column in (self.groups, self.subjects):
            if column is not None and column.shape != self.labels.shape:
                raise DataError(f"{len(column)} groups for {len(self.labels)} samples")

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def examples(self) -> int:
        """How many samples there are."""
        return len(self.labels)

    @property
    def feature_count(self) -> int:
        """How many features a sample has."""
        return math.prod(self.feature_shape)

    @property
    def samples(self) -> Features:
        """The features in their own shape, (N, *feature_shape); a view."""
        return self.features.reshape(len(self), *self.feature_shape)

    def take(self, indices: NDArray[Any] | Sequence[int]) -> Dataset:
        """Return the samples at `indices`, in that order, as a Dataset of their own (a copy).

        `indices` are whole numbers, or an (N,) bool mask.
        """
        indices = np.asarray(indices)
        if indices.dtype != np.bool_:
            indices = indices.astype(np.int64)
        features: Features = self.features[indices]  # a copy: the index is an array
        return replace(
            self,
            features=features,
            labels=self.labels[indices],
            groups=None if self.groups is None else self.groups[indices],
            subjects=None if self.subjects is None else self.subjects[indices],
        )

    def write(self, path: str | os.PathLike[str]) -> None:
        """Write the samples as the file that a device maps; see `edgetrain.data.store.write`."""
        store.write(path, self.features, self.labels, self.classes, self.feature_shape)


@dataclass(frozen=True, eq=False)
class Splits:
    """The part that trains and the part that judges: no subject is in both."""

    train: Dataset
    test: Dataset
    name: str = ""

    @property
    def classes(self) -> int:
        return self.train.classes

    @property
    def feature_shape(self) -> tuple[int, ...]:
        return self.train.feature_shape

    @property
    def scaling(self) -> Scaling | None:
        return self.train.scaling
