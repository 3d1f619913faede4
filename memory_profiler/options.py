"""Options that `edgetrain-profile estimate` and `choose` share, and what they are read into."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, TypeVar

import typer

from edgetrain.errors import ConfigError
from edgetrain.memory_profiler.device import Device
from edgetrain.memory_profiler.energy.fit_file import load_fit
from edgetrain.models import MODELS
from edgetrain.settings import nearest
from edgetrain.sizes import parse_size

__all__ = [
    "Base",
    "Batch",
    "Calibration",
    "Classes",
    "Codec",
    "Dataset",
    "Examples",
    "Hidden",
    "Inputs",
    "Json",
    "Memory",
    "ModelName",
    "Rate",
    "Threads",
    "Watts",
    "device_of",
    "one_or_any",
    "size_of",
]

Word = TypeVar("Word", bound=str)

ModelName = Annotated[
    str, typer.Argument(help=f"A model: {', '.join(MODELS)}, or a file of its JSON.")
]
Inputs = Annotated[int, typer.Option(help="Features of an example, for a model by name.")]
Classes = Annotated[int, typer.Option(help="Classes, for a model by name.")]
Hidden = Annotated[str, typer.Option(help="Widths of its hidden layers, e.g. 256,256.")]
Batch = Annotated[int, typer.Option(min=1, help="Examples a step.")]
Memory = Annotated[
    str | None, typer.Option(help="Most memory of the training process, e.g. 48MiB.")
]
Threads = Annotated[int, typer.Option(min=1, help="Processor cores that training may use.")]
Examples = Annotated[
    int | None, typer.Option(min=1, help="Examples of a round, for time and energy.")
]
Dataset = Annotated[str | None, typer.Option(help="Size of the dataset's file, e.g. 2MiB.")]
Codec = Annotated[str, typer.Option(help="How the update is sent: luq4 or raw8.")]
Rate = Annotated[
    float | None, typer.Option(help="Examples the device trains on in a second, if known.")
]
Watts = Annotated[float | None, typer.Option(help="Power it draws meanwhile, if known.")]
Calibration = Annotated[
    Path | None,
    typer.Option(help="What `edgetrain-profile calibrate` found for it; preferred to --watts."),
]
Base = Annotated[
    str | None, typer.Option(help="Memory of an idle worker, e.g. 12MiB; probed unless given.")
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]


def one_or_any(name: str, word: str, every: Sequence[Word]) -> tuple[Word, ...]:
    """Return what an option allows: all for "any". Raises ConfigError for an unknown word."""
    if word == "any":
        return tuple(every)
    for known in every:
        if word == known:
            return (known,)
    raise ConfigError(f"unknown {name} {word!r}: {nearest(word, every)}")


def size_of(text: str | None) -> int | None:
    """Return the bytes that a size names, or None for none."""
    return None if text is None else parse_size(text)


def device_of(
    memory: str | None,
    threads: int,
    rate: float | None,
    watts: float | None,
    base: str | None,
    *,
    calibration: Path | None = None,
) -> Device:
    """Return the device that the options describe. Raises ConfigError for what none can have.

    A calibration that cannot be read is a DataError, one that is wrong a PayloadError.
    """
    return Device(
        memory=size_of(memory),
        threads=threads,
        examples_per_second=rate,
        watts=watts,
        base_bytes=size_of(base),
        fit=None if calibration is None else load_fit(calibration),
    )
