"""`edgetrain-client record`: labelled samples into the device's own ring, from a file or stdin."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import IO

from edgetrain.client.console import Commands, add_command, show
from edgetrain.client.fleet_cli import add_state, folder
from edgetrain.client.sample_ring import LIMIT_BYTES, Sample, SampleForm, SampleRing
from edgetrain.client.sample_text import read_samples
from edgetrain.data.store import Format
from edgetrain.errors import ConfigError, DataError
from edgetrain.sizes import format_size, parse_size

__all__ = ["add_commands"]

BATCH = 256
"""Samples that reach the disk together: an fsync for each would take most of the time."""
FORMATS: dict[str, Format] = {"int8": "b", "uint8": "B"}


def add_commands(commands: Commands) -> None:
    """Add the command to a parser."""
    parser = add_command(commands, "record", record)
    add_state(parser)
    parser.add_argument(
        "file", nargs="?", type=Path, help='a line a sample, {"x": [...], "y": 3}; else stdin'
    )
    parser.add_argument(
        "--shape", metavar="N,N", help="sizes of a sample, e.g. 6,128; makes the ring"
    )
    parser.add_argument("--classes", type=int, metavar="N", help="labels are below this number")
    parser.add_argument(
        "--format", choices=FORMATS, default="int8", help="of a feature: int8 unless said"
    )
    parser.add_argument(
        "--limit", metavar="SIZE", help=f"of the ring; {format_size(LIMIT_BYTES)} unless said"
    )


def record(options: argparse.Namespace) -> None:
    """Append labelled samples to the device's own data, which its tasks then train on.

    They go into a ring of fixed size, where the newest take the place of the oldest. The
    first time say --shape and --classes, which makes it:

      edgetrain-client record --shape 6,128 --classes 7 --limit 8MiB samples.jsonl

    A line is one sample, {"x": [...], "y": 3}, with whole numbers alone. Where a line is none,
    the samples before it are in the ring. While the daemon runs, applications may write
    such lines to the socket samples.sock in the state folder; each line is answered.
    """
    with ring_for(options) as ring:
        before = ring.recorded()
        try:
            if options.file is None:
                append(ring, sys.stdin.buffer)
            else:
                with options.file.open("rb") as stream:
                    append(ring, stream)
        except OSError as error:
            raise DataError(f"cannot read {options.file}: {error.strerror}") from error
        after = ring.recorded()
        fields = {
            "recorded": after - before,
            "held": min(after, ring.capacity),
            "capacity": ring.capacity,
            "shape": list(ring.form.feature_shape),
            "classes": ring.form.classes,
            "ring": str(ring.path),
        }
    show(fields, as_json=options.json)


def ring_for(options: argparse.Namespace) -> SampleRing:
    """Return the device's ring, made if it is not there and its form was said.

    Raises ConfigError where what was said is not what the ring holds.
    """
    path = folder(options).ring
    form = form_of(options)
    if form is None:
        return SampleRing.open(path)
    if not path.exists():
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        limit = LIMIT_BYTES if options.limit is None else parse_size(options.limit)
        return SampleRing.create(path, form, limit)
    ring = SampleRing.open(path)
    if ring.form != form:
        ring.close()
        raise ConfigError(
            f"{path} holds samples of shape {list(ring.form.feature_shape)} and "
            f"{ring.form.classes} classes: leave --shape out, or remove it and record anew"
        )
    return ring


def form_of(options: argparse.Namespace) -> SampleForm | None:
    """Return the form of samples that was said, or None where none was."""
    if options.shape is None and options.classes is None:
        return None
    try:
        shape = tuple(int(size) for size in options.shape.split(","))
        classes = int(options.classes)
    except (AttributeError, TypeError, ValueError):
        raise ConfigError(
            "say both --shape, sizes with commas between, and --classes: --shape 6,128 --classes 7"
        ) from None
    return SampleForm(shape, FORMATS[options.format], classes)


def append(ring: SampleRing, stream: IO[bytes]) -> None:
    """Append the samples of a stream, a batch at a time.

    Raises DataError for a line that is no sample; those before it are in the ring.
    """
    batch: list[Sample] = []
    try:
        for sample in read_samples(stream, ring.form):
            batch.append(sample)
            if len(batch) == BATCH:
                full, batch = batch, []
                ring.append(full)
    finally:
        ring.append(batch)
