"""`edgetrain-profile`: what a plan will use, which plan a budget allows, what was used."""

from __future__ import annotations

import json as json_text
from collections.abc import Callable
from dataclasses import asdict
from typing import Annotated, Any, cast, get_args

from edgetrain.command import fleet_extra, run_command

with fleet_extra("edgetrain-profile"):
    import typer
    from rich.console import Console
    from rich.table import Table

from edgetrain.errors import ConfigError
from edgetrain.memory_profiler.budget import Budget, Interval, format_joules, format_seconds
from edgetrain.memory_profiler.calibrate_cli import calibrate_command
from edgetrain.memory_profiler.choose import MODES, Choice, choose, summarise
from edgetrain.memory_profiler.costs_cli import costs_command
from edgetrain.memory_profiler.device import Device
from edgetrain.memory_profiler.enforce_cli import run_command as run_budgeted
from edgetrain.memory_profiler.estimate import Estimate, estimate
from edgetrain.memory_profiler.inference_cli import inference_command
from edgetrain.memory_profiler.ledger_cli import report_command, verify_command
from edgetrain.memory_profiler.memory import PROBE_SAMPLES, available_bytes, probe_base
from edgetrain.memory_profiler.meters_cli import meters_command
from edgetrain.models import MODELS
from edgetrain.models.named import named_model
from edgetrain.ops.op import Mode
from edgetrain.planner import plan
from edgetrain.settings import nearest
from edgetrain.sizes import format_size, parse_size

__all__ = ["app", "main"]

app = typer.Typer(
    help="Know what training will use, what a budget allows, and what was used in the end.",
    no_args_is_help=True,
    add_completion=False,
)

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
Base = Annotated[
    str | None, typer.Option(help="Memory of an idle worker, e.g. 12MiB; probed unless given.")
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]


@app.command()
def probe(json: Json = False) -> None:
    """Measure the training process of this machine while it does nothing."""
    base, left = probe_base(), available_bytes()
    if json:
        _print_json({"base_bytes": base, "samples": PROBE_SAMPLES, "available_bytes": left})
        return
    table = Table("what", "bytes", "", title="this machine")
    table.columns[1].justify = "right"
    table.add_row("idle worker, peak (VmHWM)", f"{base:,}", f"median of {PROBE_SAMPLES}")
    table.add_row("available to a new process", "unknown" if left is None else f"{left:,}", "")
    Console().print(table)


@app.command("estimate")
def estimate_command(
    model: ModelName = "mlp",
    *,
    inputs: Inputs = 784,
    classes: Classes = 10,
    hidden: Hidden = "256,256,256,256",
    batch: Batch = 100,
    mode: Annotated[str, typer.Option(help="How layers are trained: bnn or fsb.")] = "bnn",
    micro_batch: Annotated[
        int | None, typer.Option(min=1, help="Examples at a time; the whole batch unless given.")
    ] = None,
    memory: Memory = None,
    threads: Threads = 1,
    examples: Examples = None,
    dataset: Dataset = None,
    codec: Codec = "luq4",
    examples_per_second: Rate = None,
    watts: Watts = None,
    base: Base = None,
    json: Json = False,
) -> None:
    """Say what one plan will use: memory part by part, and time and energy where known.

    MODEL is a name that `edgetrain plan --help` lists or a file of a model's JSON. With --memory,
    also says whether the plan fits.
    """
    device = _device(memory, threads, examples_per_second, watts, base)
    compiled = plan(
        named_model(model, inputs, classes, hidden),
        batch,
        _modes(mode)[0],
        micro_batch=micro_batch or batch,
        threads=threads,
    )
    expected = estimate(
        compiled, device, examples=examples, dataset_bytes=_bytes(dataset) or 0, codec=codec
    )
    fits = None if device.memory is None else expected.memory.high <= device.memory
    if json:
        _print_json({"plan": summarise(compiled), **_fields(expected), "fits": fits})
        return
    _print_estimate(expected, summarise(compiled), device.memory)


@app.command("choose")
def choose_command(
    model: ModelName = "mlp",
    *,
    inputs: Inputs = 784,
    classes: Classes = 10,
    hidden: Hidden = "256,256,256,256",
    batch: Batch = 100,
    mode: Annotated[str, typer.Option(help="bnn, fsb, or any to choose.")] = "any",
    memory: Memory = None,
    energy: Annotated[str | None, typer.Option(help="Most energy a round, e.g. 20J.")] = None,
    seconds: Annotated[str | None, typer.Option(help="Most time a round, e.g. 2min.")] = None,
    threads: Threads = 1,
    examples: Examples = None,
    dataset: Dataset = None,
    codec: Codec = "luq4",
    examples_per_second: Rate = None,
    watts: Watts = None,
    base: Base = None,
    json: Json = False,
) -> None:
    """Pick the plan that learns most inside a budget, with a reason for every other.

    MODEL is a name that `edgetrain plan --help` lists or a file of a model's JSON.
    """
    budget = Budget.parse(memory, energy, seconds)
    choice = choose(
        named_model(model, inputs, classes, hidden),
        budget,
        _device(None, threads, examples_per_second, watts, base),
        batch=batch,
        modes=_modes(mode),
        examples=examples,
        dataset_bytes=_bytes(dataset) or 0,
        codec=codec,
    )
    if json:
        _print_json(_choice_fields(choice))
        return
    _print_estimate(choice.estimate, f"chosen: {summarise(choice.plan)}", budget.memory)
    table = Table(title=f"not chosen, of {budget.describe()}", title_justify="left")
    table.add_column("plan", no_wrap=True)
    table.add_column("why not")
    for other in choice.rejected:
        table.add_row(other.plan, other.reason)
    Console().print(table)


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


def _modes(mode: str) -> tuple[Mode, ...]:
    if mode == "any":
        return MODES
    if mode not in get_args(Mode):
        raise ConfigError(f"unknown mode {mode!r}: {nearest(mode, get_args(Mode))}")
    return (cast("Mode", mode),)


def _bytes(size: str | None) -> int | None:
    return None if size is None else parse_size(size)


def _device(
    memory: str | None,
    threads: int,
    rate: float | None,
    watts: float | None,
    base: str | None,
) -> Device:
    return Device(
        memory=_bytes(memory),
        threads=threads,
        examples_per_second=rate,
        watts=watts,
        base_bytes=_bytes(base),
    )


def _fields(expected: Estimate) -> dict[str, Any]:
    """Return an estimate as JSON-ready fields; what is unknown is null."""
    return {
        "peak_bytes": expected.peak_bytes,
        "memory": asdict(expected.memory),
        "seconds": asdict(expected.seconds) if expected.seconds else None,
        "energy": asdict(expected.energy) if expected.energy else None,
        "parts": {part.name: part.bytes for part in expected.parts},
        "examples": expected.examples,
        "source": expected.source,
    }


def _choice_fields(choice: Choice) -> dict[str, Any]:
    return {
        "plan": {
            "mode": choice.plan.mode,
            "batch": choice.plan.batch,
            "micro_batch": choice.plan.micro_batch,
            "threads": choice.plan.threads,
            "arena_bytes": choice.plan.peak_bytes,
        },
        "estimate": _fields(choice.estimate),
        "rejected": [asdict(other) for other in choice.rejected],
    }


def _print_estimate(expected: Estimate, title: str, allowed: int | None) -> None:
    table = Table("part", "bytes", title=title, title_justify="left", show_footer=True)
    table.columns[1].justify = "right"
    table.columns[0].footer = "peak memory"
    table.columns[1].footer = f"{expected.peak_bytes:,}"
    for part in expected.parts:
        table.add_row(part.name, f"{part.bytes:,}")
    low, high = format_size(expected.memory.low), format_size(expected.memory.high)
    verdict = ""
    if allowed is not None:
        fits = "fits" if expected.memory.high <= allowed else "does not fit"
        verdict = f", {fits} the {format_size(allowed)} allowed"
    console = Console(highlight=False)
    console.print(table)
    console.print(f"memory {low} to {high}{verdict}")
    console.print(_line("time", expected.seconds, format_seconds, expected))
    console.print(_line("energy", expected.energy, format_joules, expected))


def _line(
    name: str, interval: Interval | None, show: Callable[[float], str], expected: Estimate
) -> str:
    if interval is None:
        return f"{name} unknown: see --examples-per-second and --watts"
    bounds = f"{show(interval.low)} to {show(interval.high)}"
    return f"{name} {bounds} for {expected.examples} examples ({expected.source})"


def _print_json(fields: dict[str, Any]) -> None:
    typer.echo(json_text.dumps(fields, indent=2))


if __name__ == "__main__":
    main()
