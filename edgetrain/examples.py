"""Examples as the engine takes them: flat bytes of features, one byte a label."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from typing import Any, Literal

from edgetrain.errors import DataError

__all__ = ["Examples", "InputType", "random_examples"]

InputType = Literal["uint8", "int8", "float32"]
"""What data can be; floats are scaled to int8."""
BYTE_FORMATS = {"B": False, "b": True}
"""Format of a buffer -> whether its bytes are signed."""


@dataclass(frozen=True)
class Examples:
    """N rows of uint8 or int8 features, and N labels of a byte each; both are views."""

    features: memoryview
    signed: bool
    labels: memoryview | bytes
    count: int

    @classmethod
    def of(cls, x: Any, y: Any, features: int) -> Examples:
        """Return views of x, (N, ...) of uint8 or int8, and y, (N,) of integers.

        Raises DataError where they do not fit each other or the number of features.
        """
        found = cls.unlabelled(x, features)
        labels = label_bytes(y)
        if len(labels) != found.count:
            raise DataError(f"x holds {found.count} examples but y {len(labels)} labels")
        return replace(found, labels=labels)

    @classmethod
    def unlabelled(cls, x: Any, features: int) -> Examples:
        """Return a view of x, (N, ...) of uint8 or int8, whose labels are all 0.

        Raises DataError where it does not fit the number of features.
        """
        view = contiguous(x, "x")
        if view.format not in BYTE_FORMATS:
            raise DataError(
                f"x has elements of type {view.format!r}: give uint8, int8, or float32 as numpy"
            )
        count, rest = divmod(view.nbytes, features)
        if rest or view.ndim == 0 or (view.ndim > 1 and view.shape and view.shape[0] != count):
            shape = view.shape if view.ndim != 1 else (view.nbytes,)
            raise DataError(
                f"x of shape {shape} does not fit the model, which takes {features} features an "
                f"example"
            )
        if count == 0:
            raise DataError("x holds no example")
        rows = view.cast("B") if view.ndim == 1 else view
        return cls(rows, view.format == "b", bytes(count), count)


def random_examples(features: int, classes: int, count: int) -> tuple[memoryview, bytes]:
    """Return examples of random bytes, (count, features), and labels: for measuring speed."""
    x = memoryview(os.urandom(count * features)).cast("B", (count, features))
    return x, bytes(index % classes for index in range(count))


def contiguous(array: Any, name: str) -> memoryview:
    """Return a view of an array's memory. Raises DataError where there is none in C order."""
    try:
        view = memoryview(array)
    except TypeError:
        raise DataError(
            f"{name} is {type(array).__name__}: give a numpy array or a buffer"
        ) from None
    if not view.c_contiguous:
        raise DataError(f"{name} is not contiguous: pass numpy.ascontiguousarray({name})")
    return view


def label_bytes(y: Any) -> memoryview | bytes:
    """Return labels as one byte each. Raises DataError for labels that are not 0 to 255."""
    view = contiguous(y, "y")
    if view.format == "B":
        return view
    try:
        return bytes(view.tolist())
    except (TypeError, ValueError):
        raise DataError("y holds a label that is not an integer from 0 to 255") from None
