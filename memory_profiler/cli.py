"""`edgetrain-profile`: what a plan will use, which plan a budget allows, what was used."""

from __future__ import annotations

import json as json_text

from edgetrain.command import fleet_extra, run_command

with fleet_extra("edgetrain-profile"):
    import typer
    from rich.console import Console
    from rich.table import Table

from edgetrain.memory_profiler.calibrate_cli import calibrate_command
from edgetrain.memory_profiler.choose_cli import choose_command
from edgetrain.memory_profiler.costs_cli import costs_command
from edgetrain.memory_profiler.enforce_cli import run_command as run_budgeted
from edgetrain.memory_profiler.estimate_cli import estimate_command
from edgetrain.memory_profiler.inference_cli import inference_command
from edgetrain.memory_profiler.ledger_cli import report_command, verify_command
from edgetrain.memory_profiler.memory import available_bytes
from edgetrain.memory_profiler.meters_cli import meters_command
from edgetrain.memory_profiler.options import Json
from edgetrain.memory_profiler.probe import PROBE_SAMPLES, forget_probes, probe_base

__all__ = ["app", "main"]

app = typer.Typer(
    help="Know what training will use, what a budget allows, and what was used in the end.",
    no_args_is_help=True,
    add_completion=False,
)


@app.command()
def probe(json: Json = False) -> None:
    """Measure the training process of this machine while it does nothing, even if it was known.

    Other commands, and a device's daemon, measure only when something has changed that it depends
    on: this package, Python, the machine, its kernel, the environment.
    """
    forget_probes()
    base, left = probe_base(), available_bytes()
    if json:
        told = {"base_bytes": base, "samples": PROBE_SAMPLES, "available_bytes": left}
        typer.echo(json_text.dumps(told, indent=2))
        return
    table = Table("what", "bytes", "", title="this machine")
    table.columns[1].justify = "right"
    table.add_row("idle worker, peak (VmHWM)", f"{base:,}", f"median of {PROBE_SAMPLES}")
    table.add_row("available to a new process", "unknown" if left is None else f"{left:,}", "")
    Console().print(table)


app.command("estimate")(estimate_command)
app.command("choose")(choose_command)
app.command("run", context_settings={"allow_interspersed_args": False})(run_budgeted)
app.command("costs")(costs_command)
app.command("meters")(meters_command)
app.command("inference")(inference_command)
app.command("calibrate")(calibrate_command)
app.command("verify")(verify_command)
app.command("report")(report_command)


def main() -> None:
    """Run `edgetrain-profile`."""
    run_command(app)


if __name__ == "__main__":
    main()
