"""Non-negative least squares with a handful of unknowns, exactly and without numpy.

A solution is the plain least squares of the unknowns that are not held at 0 (Lawson and Hanson,
1974, chapter 23). With three unknowns there are eight ways to hold some: all are solved, and the
best whose unknowns are not negative is taken. There is no iteration that could stop early.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import combinations
from typing import NamedTuple

__all__ = ["Solution", "solve_nonnegative"]

Vector = list[float]
Matrix = list[Vector]
SWEEPS = 30
"""Jacobi's rotations converge quadratically: a handful of sweeps suffices for a few unknowns."""


class Solution(NamedTuple):
    """What fits best.

    Attributes:
        values: the unknowns, none negative.
        residual: sum of the squared differences that are left.
        covariance: of the unknowns, were none held at 0, for differences of variance 1.
        condition: ratio of the largest to the smallest singular value of the rows, each column
            scaled to length 1; infinite where the rows do not determine the unknowns.
    """

    values: tuple[float, ...]
    residual: float
    covariance: tuple[tuple[float, ...], ...]
    condition: float


def solve_nonnegative(rows: Sequence[Sequence[float]], targets: Sequence[float]) -> Solution:
    """Return x >= 0 that minimises the sum of (row . x - target)^2 over all rows.

    A column of zeros gets 0. The covariance is all zeros where the condition is infinite.
    """
    width = len(rows[0])
    lengths = [math.hypot(*(row[column] for row in rows)) or 1.0 for column in range(width)]
    scaled = [[value / length for value, length in zip(row, lengths, strict=True)] for row in rows]
    gram = [
        [math.fsum(row[i] * row[j] for row in scaled) for j in range(width)] for i in range(width)
    ]
    right = [
        math.fsum(row[i] * target for row, target in zip(scaled, targets, strict=True))
        for i in range(width)
    ]
    # Subsets are compared by the differences themselves: sums of squares would cancel.
    best = min(candidates(gram, right), key=lambda values: residual_of(scaled, targets, values))
    inverse = inverted(gram) or [[0.0] * width for _ in range(width)]
    return Solution(
        tuple(value / length for value, length in zip(best, lengths, strict=True)),
        residual_of(scaled, targets, best),
        tuple(
            tuple(
                (inverse[i][j] + inverse[j][i]) / 2 / (lengths[i] * lengths[j])
                for j in range(width)
            )
            for i in range(width)
        ),
        condition_of(gram),
    )


def candidates(gram: Matrix, right: Vector) -> Iterator[Vector]:
    """Yield the least squares of every choice of unknowns that are not held at 0, if feasible."""
    width = len(gram)
    for count in range(width + 1):
        for free in combinations(range(width), count):
            part = solved([[gram[i][j] for j in free] for i in free], [[right[i]] for i in free])
            if part is not None and all(value >= 0 for (value,) in part):
                values = [0.0] * width
                for index, (value,) in zip(free, part, strict=True):
                    values[index] = value
                yield values


def residual_of(rows: Matrix, targets: Sequence[float], values: Vector) -> float:
    """Return the sum of squared differences."""
    return math.fsum(
        (sum(a * x for a, x in zip(row, values, strict=True)) - target) ** 2
        for row, target in zip(rows, targets, strict=True)
    )


def solved(matrix: Matrix, right: Matrix) -> Matrix | None:
    """Return X with matrix X = right by elimination with pivots, or None for a singular matrix."""
    size = len(matrix)
    work = [[*row, *beside] for row, beside in zip(matrix, right, strict=True)]
    for column in range(size):
        pivot = max(range(column, size), key=lambda row: abs(work[row][column]))
        if work[pivot][column] == 0:
            return None
        work[column], work[pivot] = work[pivot], work[column]
        work[column] = [value / work[column][column] for value in work[column]]
        for row in range(size):
            if row != column:
                factor = work[row][column]
                work[row] = [a - factor * b for a, b in zip(work[row], work[column], strict=True)]
    return [row[size:] for row in work]


def inverted(matrix: Matrix) -> Matrix | None:
    """Return the inverse, or None for a singular matrix."""
    size = len(matrix)
    return solved(matrix, [[float(i == j) for j in range(size)] for i in range(size)])


def condition_of(gram: Matrix) -> float:
    """Return the condition number of the rows whose products of columns these are."""
    values = eigenvalues(gram)
    least, most = min(values), max(values)
    return math.sqrt(most / least) if least > 0 else math.inf


def eigenvalues(symmetric: Matrix) -> Vector:
    """Return the eigenvalues of a symmetric matrix by Jacobi's rotations."""
    matrix, size = [list(row) for row in symmetric], len(symmetric)
    for _ in range(SWEEPS):
        for i, j in combinations(range(size), 2):
            if matrix[i][j] == 0:
                continue
            angle = 0.5 * math.atan2(2 * matrix[i][j], matrix[j][j] - matrix[i][i])
            cosine, sine = math.cos(angle), math.sin(angle)
            for row in matrix:
                row[i], row[j] = cosine * row[i] - sine * row[j], sine * row[i] + cosine * row[j]
            upper, lower = matrix[i], matrix[j]
            matrix[i] = [cosine * a - sine * b for a, b in zip(upper, lower, strict=True)]
            matrix[j] = [sine * a + cosine * b for a, b in zip(upper, lower, strict=True)]
    return [matrix[i][i] for i in range(size)]
