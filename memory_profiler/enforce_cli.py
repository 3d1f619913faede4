"""`edgetrain-profile run`: any command, held to a budget."""

from __future__ import annotations

import json as json_text
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict
from typing import Annotated, Any, cast

import typer
from rich.console import Console
from rich.table import Table

from edgetrain.errors import ConfigError, EnforceError, OverBudgetError
from edgetrain.memory_profiler.budget import Budget, format_joules, format_seconds
from edgetrain.memory_profiler.enforce.admission import Policy, admit
from edgetrain.memory_profiler.enforce.enforced import CAUSES, Enforced
from edgetrain.memory_profiler.enforce.joules import Counted, count, modelled
from edgetrain.memory_profiler.enforce.limits import BELTS, GRACE_SECONDS, Belt, Limits
from edgetrain.memory_profiler.enforce.supervise import supervise
from edgetrain.options import Json
from edgetrain.sizes import format_size, parse_size

__all__ = ["run_command"]

KILLED = 128
"""What shells add to a signal's number for the exit code of a command that it ended."""


def run_command(
    command: Annotated[list[str], typer.Argument(help="The command, best behind a bare --.")],
    *,
    memory: Annotated[str | None, typer.Option(help="Most memory, e.g. 64MiB.")] = None,
    data: Annotated[
        str | None,
        typer.Option(help="Most private memory that it may ask for, which fails; e.g. 48MiB."),
    ] = None,
    seconds: Annotated[str | None, typer.Option(help="Most time, e.g. 60 or 2min.")] = None,
    energy: Annotated[
        str | None, typer.Option(help="Most energy, e.g. 20J; needs a meter or --watts.")
    ] = None,
    watts: Annotated[
        float | None, typer.Option(min=0.001, help="Power that the machine draws, if no meter is.")
    ] = None,
    grace: Annotated[
        float, typer.Option(min=0, help="Seconds from the request to stop to the end.")
    ] = GRACE_SECONDS,
    no_network: Annotated[
        bool, typer.Option("--no-network", help="Let it make no socket, not even a local one.")
    ] = False,
    belts: Annotated[str, typer.Option(help=f"Of {', '.join(BELTS)}.")] = ",".join(BELTS),
    battery: Annotated[
        float | None, typer.Option(help="Begin only with this share of charge, 0 to 1.")
    ] = None,
    charger: Annotated[bool, typer.Option(help="Begin only if a charger is connected.")] = False,
    celsius: Annotated[
        float | None, typer.Option(help="Begin only if no part is hotter than this.")
    ] = None,
    json: Json = False,
) -> None:
    """Run a command inside a budget, and say what it used and how it ended.

    Whoever passes the budget is asked to stop (SIGTERM) and, when the grace has passed, killed
    with all that it has started. Where a control group can be made the kernel itself holds the
    memory (hard); elsewhere resident memory is looked at every 20 ms (soft).

    What happened is told on stderr. With --json it is JSON on stdout, alone: what the command
    prints goes to stderr then.

    Exit code: the command's own; 128 and the number of a signal that ended it.

    Exit code 19: it was stopped because it passed its budget. 14: it was not begun. 18: it cannot
    be started. 20: nothing here counts the joules that were to be limited.
    """
    budget = Budget.parse(memory, energy, seconds)
    limits = Limits(
        memory=budget.memory,
        data=None if data is None else parse_size(data),
        seconds=budget.seconds,
        energy=budget.energy,
        network="none" if no_network else None,
        grace=grace,
        belts=belts_of(belts) | ({"network"} if no_network else set()),
    )
    admit(Policy(battery=battery, charger=charger, celsius=celsius), budget.memory).require()
    counted = energy_of(limits, watts)
    ended = supervise(
        command,
        limits,
        joules=counted.joules if counted else None,
        stdin=subprocess.DEVNULL if sys.stdin.isatty() else None,
        stdout=sys.stderr.fileno() if json else None,
    )
    joules = joules_used(counted)
    if json:
        typer.echo(json_text.dumps(fields_of(command, limits, ended, joules), indent=2))
    else:
        show(limits, ended, joules)
    if ended.cause == "finished":
        raise typer.Exit(ended.code)
    if ended.cause == "killed":
        raise typer.Exit(KILLED - ended.code)
    raise OverBudgetError(
        f"stopped: {CAUSES[ended.cause]}: allow it more than {limits.describe()}, or ask less of it"
    )


def belts_of(names: str) -> frozenset[Belt]:
    """Return the belts that commas separate. Raises ConfigError for one that there is not."""
    found = [name.strip() for name in names.split(",") if name.strip()]
    if unknown := [name for name in found if name not in BELTS]:
        raise ConfigError(f"there is no belt {unknown[0]!r}: choose of {', '.join(BELTS)}")
    return frozenset(cast("list[Belt]", found))


def energy_of(limits: Limits, watts: float | None) -> Counted | None:
    """Return how joules are counted, or None where nobody asks.

    Raises EnforceError where joules are limited and nothing here counts them.
    """
    found = count() if watts is None else modelled(watts)
    if found is None and limits.wants("energy"):
        raise EnforceError(
            "nothing here counts joules, so that nobody could hold a command to them: give --watts "
            "to model them, or see `edgetrain-profile meters`"
        )
    return found


def joules_used(counted: Counted | None) -> dict[str, Any]:
    """Return the joules in the end and their source; unknown is null."""
    used = counted.used() if counted else None
    source = "none" if counted is None or used is None else counted.source
    return {"joules": used, "joules_source": source}


def fields_of(
    command: Sequence[str], limits: Limits, ended: Enforced, joules: dict[str, Any]
) -> dict[str, Any]:
    """Return what happened as JSON holds it."""
    return {
        "command": list(command),
        "limits": asdict(limits) | {"belts": sorted(limits.belts)},
        **asdict(ended),
        "enforcement": ended.enforcement,
        "network": ended.network,
        **joules,
    }


def show(limits: Limits, ended: Enforced, joules: dict[str, Any]) -> None:
    """Print what happened."""
    table = Table("", "", show_header=False, box=None)
    table.add_row("ended", f"{CAUSES[ended.cause]}, {code_text(ended)}")
    table.add_row("allowed", limits.describe())
    for name, peak in (("rss_peak", ended.rss_peak), ("cgroup_peak", ended.cgroup_peak)):
        table.add_row(name, "unknown" if peak is None else format_size(peak))
    table.add_row("time", format_seconds(ended.seconds))
    used = joules["joules"]
    told = "unknown" if used is None else f"{format_joules(used)} ({joules['joules_source']})"
    table.add_row("energy", told)
    table.add_row("belts", f"{', '.join(ended.belts) or 'none'}: {ended.enforcement}")
    if ended.no_group:
        table.add_row("no group", ended.no_group)
    if ended.no_filter:
        table.add_row("network", f"open: {ended.no_filter}")
    Console(stderr=True, highlight=False).print(table)


def code_text(ended: Enforced) -> str:
    """Return an exit code as people read it."""
    if ended.code >= 0:
        return f"exit code {ended.code}"
    name = signal.Signals(-ended.code).name
    return f"{name}{' after it did not stop' if ended.forced else ''}"
