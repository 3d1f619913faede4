"""The coordinator's side of a fleet as a Flower ServerApp.

It takes from the run's configuration (`flwr run --run-config`):

    fleet          path of the fleet's TOML file
    checkpoints    folder where every version is kept; a run that was cut off goes on from there
    directions     path of a JSON file that is read before every round: whether to pause, and
                   budgets in place of the fleet's; "" for none
    waker          path of the socket where a door is told who has been sent a message; "" for none
    result         path of a JSON file for the history when all rounds are done; "" for none

Paths are those of the machine that runs the ServerApp.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp
from flwr.superlink.grid.http_grid import HttpGrid

from edgetrain.config import FleetConfig
from edgetrain.coordinator.checkpoint import CheckpointFolder
from edgetrain.coordinator.directions import Directions
from edgetrain.coordinator.guarded_grid import GuardedGrid
from edgetrain.coordinator.loop import Event, Loop, Paused, RoundBegun, RoundEnded, TaskAnswered
from edgetrain.coordinator.wake import wake
from edgetrain.errors import ConfigError, EdgetrainError
from edgetrain.settings import nearest
from edgetrain.storage import replace_file

__all__ = ["app"]

KEYS = ("fleet", "checkpoints", "result", "directions", "waker")

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Run all rounds of the fleet that the run's configuration names."""
    try:
        # A simulation's Grid has nothing to be guarded from.
        settings = {key: str(value) for key, value in context.run_config.items()}
        waker = settings.get("waker")
        sent = partial(wake, Path(waker)) if waker else None
        guarded = GuardedGrid(grid, sent) if isinstance(grid, HttpGrid) else grid
        run(guarded, settings)
    except EdgetrainError as error:
        # Flower's log shows the traceback; this line says what to do.
        print(f"error: {error}", flush=True)
        raise


def run(grid: Grid, settings: dict[str, str]) -> None:
    """Run all rounds. Raises ConfigError for settings that are missing or unknown."""
    for key in settings:
        if key not in KEYS:
            raise ConfigError(f"run-config has no key {key!r}: {nearest(key, KEYS)}")
    for key in ("fleet", "checkpoints"):
        if not settings.get(key):
            raise ConfigError(f"run-config lacks {key}: add --run-config '{key}=\"/a/path\"'")
    checkpoints = CheckpointFolder(settings["checkpoints"])
    fleet = FleetConfig.from_toml(settings["fleet"])
    path = settings.get("directions")
    directions = partial(Directions.read, Path(path)) if path else Directions
    with checkpoints.held():
        loop = Loop(grid, fleet, checkpoints=checkpoints, notify=say, directions=directions)
        loop.run()
    if settings.get("result"):
        replace_file(Path(settings["result"]), [loop.history.to_json().encode("utf-8")])


def say(event: Event) -> None:
    """Print an event as a line of the run's log."""
    if isinstance(event, RoundBegun):
        print(f"round {event.round} of {event.rounds}: {event.asked} devices asked", flush=True)
    elif isinstance(event, Paused):
        print(f"paused at version {event.version}: no new tasks until `resume`", flush=True)
    elif isinstance(event, TaskAnswered) and event.answer.reason:
        print(f"  {event.answer.member.name}: {event.answer.reason}", flush=True)
    elif isinstance(event, RoundEnded):
        record = event.record
        accuracy = "not judged" if record.accuracy is None else f"accuracy {record.accuracy:.1%}"
        print(
            f"round {record.round}: {record.reported} of {record.asked} counted, "
            f"{record.examples} examples, {accuracy}, {record.seconds:.1f} s",
            flush=True,
        )
