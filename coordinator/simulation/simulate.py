"""simulate: a fleet from its configuration to its report, on this machine alone."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from edgetrain.client.app import app as edgetrain_app
from edgetrain.config import FleetConfig
from edgetrain.coordinator.checkpoint import CheckpointFolder
from edgetrain.coordinator.loop import Event, Loop
from edgetrain.coordinator.simulation.devices import build_devices
from edgetrain.coordinator.simulation.report import SimulationReport
from edgetrain.coordinator.simulation.terminal import ProgressBar
from edgetrain.coordinator.simulation.virtual_grid import ClientApp, VirtualGrid
from edgetrain.data import load
from edgetrain.update import update_bytes

__all__ = ["simulate"]


def simulate(
    fleet: FleetConfig,
    *,
    checkpoints: Path | str | None = None,
    notify: Callable[[Event], None] | None = None,
    progress: bool = False,
    workers: int | None = None,
    app: ClientApp = edgetrain_app,
) -> SimulationReport:
    """Run a simulated fleet and return its report.

    Every task is really done, by `app` in a worker process of its own, `workers` at a time
    (default: one a processor); its time and energy are its device class's. With `checkpoints`, a
    folder, every version is kept there and a run that was cut off goes on. `notify` hears every
    event; `progress` draws a bar on stderr. Raises ConfigError, DataError, ModelError or
    StorageError with the cause in one line.
    """
    begun = time.monotonic()
    data = fleet.dealt
    splits = load(
        data.path,
        test_groups=data.test_groups,
        test_fraction=data.test_fraction,
        seed=data.seed,
    )
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="edgetrain-fleet-")))
        devices = build_devices(fleet, splits, folder)
        grid = stack.enter_context(
            VirtualGrid(app, devices, seed=fleet.training.seed, workers=workers)
        )
        listeners = [notify] if notify else []
        if progress:
            listeners.append(stack.enter_context(ProgressBar()).hear)

        def tell(event: Event) -> None:
            for listener in listeners:
                listener(event)

        loop = Loop(
            grid,
            fleet,
            clock=grid.clock,
            checkpoints=None if checkpoints is None else CheckpointFolder(checkpoints),
            notify=tell,
        )
        model = loop.run()
    return SimulationReport(
        fleet=fleet.to_table(),
        rounds=loop.history.rounds,
        devices=tuple(loop.history.devices[device.name] for device in devices),
        parameters=sum(array.size for array in model.weights.values()),
        update_bytes=update_bytes(model.model, model.mode, fleet.training.codec),
        seconds=time.monotonic() - begun,
        virtual_seconds=loop.history.seconds,
    )
