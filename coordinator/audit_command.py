"""`edgetrain-coordinator audit`: add up again what a run has counted."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from edgetrain.coordinator.audit import audit_folder
from edgetrain.errors import PayloadError

__all__ = ["audit"]


def audit(
    folder: Annotated[Path, typer.Argument(help="A run's folder of checkpoints.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON and nothing else.")] = False,
) -> None:
    """Add up again what a run has counted, and hold it to the versions that were kept.

    A version and the journal of its reports make the next one, bit for bit: every report that was
    acknowledged is in it once. Ends with an error where one is not what its journal adds up to.
    """
    found = list(audit_folder(folder))
    if as_json:
        print(json.dumps([asdict(one) for one in found]))
    else:
        for one in found:
            verdict = "adds up" if one.same else "DIFFERS"
            print(
                f"version {one.version}: {one.reports} reports by {len(set(one.devices))} devices, "
                f"{one.examples} examples, {verdict}"
            )
    wrong = [one.version for one in found if not one.same]
    if wrong:
        raise PayloadError(
            f"version {wrong[0]} is not what its journal adds up to: go on from a backup"
        )
