"""A real SuperLink and stock SuperNodes end at the same model as the simulation, bit for bit."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import pytest
from small_fleet import write_fleet
from superlink import superlink

from edgetrain.config import FleetConfig
from edgetrain.coordinator.checkpoint import Checkpoint, CheckpointFolder
from edgetrain.coordinator.global_model import GlobalModel
from edgetrain.coordinator.history import History
from edgetrain.coordinator.simulation.devices import SimulatedDevice
from edgetrain.coordinator.simulation.simulate import simulate


def run_with_flower(folder: Path, fleet: FleetConfig, devices: list[SimulatedDevice]) -> Checkpoint:
    """Run the fleet on a SuperLink with a SuperNode a device; return its last version."""
    with superlink(folder) as link, ExitStack() as stack:
        for device in devices:
            stack.enter_context(link.supernode(device))
        return link.run(fleet)


@pytest.mark.slow
def test_a_real_fleet_ends_where_the_simulation_ends(tmp_path: Path) -> None:
    fleet, devices = write_fleet(tmp_path, 2)
    simulate(fleet, checkpoints=tmp_path / "simulated")
    simulated = CheckpointFolder(tmp_path / "simulated").newest(fleet.to_table())
    real = run_with_flower(tmp_path, fleet, devices)

    assert simulated is not None
    assert real.model.version == simulated.model.version == fleet.training.rounds
    assert real.model.to_tensors() == simulated.model.to_tensors()
    fresh = GlobalModel.fresh(real.model.model, real.model.mode, fleet.training.seed)
    assert real.model.to_tensors() != fresh.to_tensors()
    history = History.from_json((tmp_path / "result.json").read_text())
    assert history == real.history
    for ours, theirs in zip(simulated.history.rounds, real.history.rounds, strict=True):
        assert (theirs.reported, theirs.examples) == (2, 110)
        assert ours.training_loss == theirs.training_loss


@pytest.mark.slow
def test_buffered_rounds_run_on_a_real_superlink(tmp_path: Path) -> None:
    fleet, devices = write_fleet(tmp_path, training='aggregation = "buffered"\nbuffer = 1')
    real = run_with_flower(tmp_path, fleet, devices)
    assert real.model.version == 4
    assert [record.reported for record in real.history.rounds] == [1] * 4
    assert sum(record.stale for record in real.history.rounds) > 0
    assert {device.answered for device in real.history.devices.values()} <= {1, 2, 3}
