"""A fleet that is small enough to be trained in every test of real processes, and its data."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from edgetrain.config import FleetConfig
from edgetrain.coordinator.simulation.devices import SimulatedDevice, build_devices
from edgetrain.data import load

__all__ = ["node_config", "trainees", "write_fleet"]

HELD_OUT = 9
FLEET = f"""
[data]
path = "examples"
test_groups = [{HELD_OUT}]

[model]
hidden = [24]

[training]
rounds = {{rounds}}
{{training}}
batch = 16
seed = 5

[[device]]
name = "node"
count = {{devices}}
memory = "256MiB"
"""


def write_fleet(
    folder: Path, rounds: int = 4, *, devices: int = 2, training: str = ""
) -> tuple[FleetConfig, list[SimulatedDevice]]:
    """Write a fleet of some devices and their data; one more person's are held out.

    `training` holds more lines of that table. Return the fleet and those that train.
    """
    draw = np.random.default_rng(1)
    data = folder / "examples"
    data.mkdir()
    labels = np.arange(150) % 3
    samples = draw.integers(-40, 40, (150, 20)) + 25 * labels[:, None]
    held_out = np.full(40, HELD_OUT)
    groups = np.sort(np.arange(len(labels) - len(held_out)) % devices)
    np.save(data / "x.npy", samples.clip(-127, 127).astype(np.int8))
    np.save(data / "y.npy", labels.astype(np.uint8))
    np.save(data / "group.npy", np.concatenate([groups, held_out]))
    text = FLEET.format(rounds=rounds, training=training, devices=devices)
    (folder / "fleet.toml").write_text(text)
    fleet = FleetConfig.from_toml(folder / "fleet.toml")
    return fleet, trainees(fleet, folder)


def trainees(fleet: FleetConfig, folder: Path) -> list[SimulatedDevice]:
    """Return the fleet's devices that train, and write their data."""
    splits = load(fleet.dealt.path, test_groups=fleet.dealt.test_groups)
    return [one for one in build_devices(fleet, splits, folder) if one.role == "train"]


def node_config(device: SimulatedDevice, **more: str) -> str:
    """Return a device as the words of --node-config, and more of them; its clock is real."""
    others = {name.replace("_", "-"): value for name, value in more.items()}
    words = {**device.node_config(), "clock": "real", **others}
    return " ".join(
        f'{key}="{value}"' if isinstance(value, str) else f"{key}={value}"
        for key, value in words.items()
    )
