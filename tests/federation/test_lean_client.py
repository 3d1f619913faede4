"""Our daemon beside a stock SuperNode on the real SuperLink: the same model, bit for bit.

test_real_flower holds stock SuperNodes alone to the same simulation.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from fleet_server import make_certificates
from small_fleet import write_fleet
from superlink import superlink

from edgetrain.coordinator.checkpoint import CheckpointFolder
from edgetrain.coordinator.simulation.simulate import simulate

HEAVY = ("numpy", "torch", "flwr", "google/_upb", "grpc", "pydantic")


def libraries(pid: int) -> str:
    """Return what a process has mapped."""
    return Path(f"/proc/{pid}/maps").read_text()


@pytest.mark.slow
def test_a_lean_device_and_a_stock_one_end_where_the_simulation_ends(tmp_path: Path) -> None:
    fleet, (stock, lean) = write_fleet(tmp_path, 2)
    simulate(fleet, checkpoints=tmp_path / "simulated")
    simulated = CheckpointFolder(tmp_path / "simulated").newest(fleet.to_table())

    with (
        superlink(tmp_path, make_certificates(tmp_path)) as link,
        link.supernode(stock),
        link.lean(lean) as daemon,
    ):
        real = link.run(fleet)
        assert daemon.poll() is None, link.logs
        mapped = libraries(daemon.pid)

    assert simulated is not None
    assert real.model.to_tensors() == simulated.model.to_tensors()
    for record in real.history.rounds:
        assert (record.reported, record.examples) == (2, 110)
    said = (tmp_path / f"{lean.name}.log").read_text()
    assert said.count("query: delivered") == 1
    assert said.count("train: delivered") == fleet.training.rounds
    assert "libssl" in mapped
    assert not [name for name in HEAVY if name in mapped]
