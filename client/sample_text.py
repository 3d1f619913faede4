"""Samples as text: a JSON object a line, {"x": [...], "y": 3}, with whole numbers alone.

Used for files, for stdin and for the daemon's local socket, so the text may come from anyone.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import IO, Any

from edgetrain.client.sample_ring import Sample, SampleForm
from edgetrain.errors import DataError

__all__ = ["longest_line", "parse_sample", "read_samples"]

NUMBER_CHARACTERS = 8
"""Room for a number of a byte, its sign and comma, and some brackets and blanks."""
OTHER_CHARACTERS = 256
RANGES = {"B": (0, 255), "b": (-128, 127)}


def longest_line(form: SampleForm) -> int:
    """Return the most bytes that the line of one sample may have."""
    return NUMBER_CHARACTERS * form.feature_count + OTHER_CHARACTERS


def read_samples(stream: IO[bytes], form: SampleForm) -> Iterator[Sample]:
    """Yield the sample of each line; empty lines are passed over.

    Raises DataError that names the line for one that is too long or is no sample.
    """
    limit, number = longest_line(form), 0
    while line := stream.readline(limit + 1):
        number += 1
        if len(line) > limit:
            raise DataError(f"line {number} is longer than the {limit} bytes of a sample")
        if line.strip():
            try:
                yield parse_sample(line, form)
            except DataError as error:
                raise DataError(f"line {number}: {error}") from None


def parse_sample(line: bytes, form: SampleForm) -> Sample:
    """Return the sample of a line; features may be flat or nested in the form's shape.

    Raises DataError for what is no sample of this form.
    """
    try:
        fields = json.loads(line)
    except (ValueError, RecursionError):
        raise DataError('not JSON: write {"x": [...], "y": 3} a line') from None
    if not isinstance(fields, dict) or fields.keys() != {"x", "y"}:
        raise DataError('not a sample: write {"x": [...], "y": 3} a line')
    label = fields["y"]
    if type(label) is not int:
        raise DataError("the label y is not a whole number")
    low, high = RANGES[form.format]
    values = _flat(fields["x"], len(form.feature_shape))
    if any(type(value) is not int or not low <= value <= high for value in values):
        raise DataError(f"a feature is not a whole number from {low} to {high}: scale it first")
    sample = Sample(bytes(value & 0xFF for value in values), label)
    form.check(sample)
    return sample


def _flat(values: Any, depth: int) -> list[Any]:
    """Return the elements of lists nested so deep at most."""
    if not isinstance(values, list):
        raise DataError("the features x are not a list")
    flat: list[Any] = values
    for _ in range(depth - 1):
        if not all(isinstance(value, list) for value in flat):
            break
        flat = [element for value in flat for element in value]
    return flat
