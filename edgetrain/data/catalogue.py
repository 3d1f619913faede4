"""One door to all data: a set's name or a folder's path in, training and test parts out."""

from __future__ import annotations

import difflib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edgetrain.data.dataset import Splits
from edgetrain.data.fetch import data_home, is_fetched
from edgetrain.data.folder import load_folder
from edgetrain.data.sources import SOURCES
from edgetrain.data.watch import BUNDLE, load_watch
from edgetrain.errors import DataError

__all__ = ["Entry", "entries", "load"]

WATCH = "watch"


@dataclass(frozen=True)
class Entry:
    """A named set: what it is, under which licence, and where it lies (None: not fetched)."""

    name: str
    about: str
    licence: str
    place: Path | None


def entries() -> tuple[Entry, ...]:
    """Return every set that has a name, the bundled one first."""
    watch = Entry(
        WATCH,
        "Smart watch motion: 3,605 windows of 128 samples x 6 axes, 7 exercises, 20 devices",
        "BSD-3-Clause",
        BUNDLE,
    )
    fetched = (
        Entry(
            source.name,
            source.about,
            source.licence,
            data_home() / source.name if is_fetched(source.name) else None,
        )
        for source in SOURCES.values()
    )
    return (watch, *fetched)


def load(
    source: str | os.PathLike[str],
    *,
    test_groups: Sequence[int] | None = None,
    test_fraction: float | None = None,
    seed: int = 0,
) -> Splits:
    """Return the training and test parts of "watch", "fashion", "mnist", "cifar10" or a folder.

    test_groups names the subjects to hold out and test_fraction how much, as whole subjects
    drawn from `seed` where samples have subjects, else as samples. Neither: the set's own test
    part, else one fifth. A name wins over a folder of the same name: write ./name for that.
    Raises DataError when nothing is there or it is damaged, ConfigError for a bad choice.
    """
    name = os.fspath(source)
    if name == WATCH:
        return load_watch(test_groups, test_fraction, seed)
    if name in SOURCES:
        if not is_fetched(name):
            raise DataError(f"{name} is not on this machine: run: edgetrain data fetch {name}")
        return load_folder(data_home() / name, test_groups, test_fraction, seed)
    if not Path(name).exists():
        near = difflib.get_close_matches(name, (WATCH, *SOURCES), 1)
        hint = f"did you mean {near[0]!r}?" if near else "name a folder that holds x.npy and y.npy"
        raise DataError(f"no data set or folder is called {name!r}: {hint}")
    return load_folder(name, test_groups, test_fraction, seed)
