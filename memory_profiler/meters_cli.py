"""`edgetrain-profile meters`: which meters of energy a machine has, and why not the others."""

from __future__ import annotations

import json as json_text
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from edgetrain.memory_profiler.energy.law import SIMULATED, Work
from edgetrain.memory_profiler.energy.meter import METERS, ORDER
from edgetrain.memory_profiler.energy.reading import Source
from edgetrain.memory_profiler.energy.site import Site
from edgetrain.options import Json

__all__ = ["MeterReport", "Root", "meters_command", "survey"]

Root = Annotated[Path, typer.Option(help="The folder under which /sys and /usr lie.")]
KINDS: dict[Source, str] = {
    "counter": "measured, a counter",
    "sampled": "measured, from samples",
    "battery": "measured, in steps",
    "calibrated_model": "modelled, calibrated",
    "prior": "modelled, from literature",
}
ON_REQUEST = "only where it is asked for by name"


@dataclass(frozen=True)
class MeterReport:
    """What one meter can do on a machine; obstacle is None where nothing stands in its way."""

    meter: str
    scope: str
    source: Source
    obstacle: str | None


def survey(root: Path = Path("/")) -> list[MeterReport]:
    """Return a report of every meter, in the order in which they are tried.

    Modelled ones are taken to be told the work done, as they are while a device trains.
    """
    site = Site(root, work=Work)
    reports = []
    for name, make in METERS.items():
        meter = make(site)
        obstacle = meter.obstacle() if name in ORDER else ON_REQUEST
        reports.append(MeterReport(name, meter.scope, meter.source, obstacle or None))
    return reports


def meters_command(
    root: Root = Path("/"),
    json: Json = False,
) -> None:
    """Show which meters of energy work here, and what stands in the way of the others.

    The first that works is the one that a device uses, unless its owner names another. Energies of
    different scopes overlap and are never added. What is modelled is no measurement.
    """
    found = survey(root)
    if json:
        typer.echo(json_text.dumps({"meters": [asdict(one) for one in found]}, indent=2))
        return
    used = next((one.meter for one in found if one.obstacle is None), None)
    table = Table("meter", "scope", "joules are", "works", title="meters of energy")
    table.columns[-1].overflow = "fold"
    for one in found:
        works = one.obstacle or ("yes, and is used" if one.meter == used else "yes")
        joules = SIMULATED if one.scope == SIMULATED else KINDS[one.source]
        table.add_row(one.meter, one.scope, joules, works)
    Console(highlight=False).print(table)
