"""The devices of a simulated fleet: who there is, what each holds, how long things take it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path

import numpy as np

from edgetrain.config import DeviceConfig, FleetConfig
from edgetrain.data.dataset import Dataset, Indices, Splits
from edgetrain.data.partition import partition
from edgetrain.errors import ConfigError

__all__ = ["EVALUATION_SPEED", "SimulatedDevice", "build_devices"]

EVALUATION_SPEED = 3.0
"""Judging an example is one matrix product a layer, training on one is three."""
FIRST_NODE_ID = 1000


@dataclass(frozen=True)
class SimulatedDevice:
    """One device of a class: its name, its role, and the file of its examples, if it has any."""

    name: str
    node_id: int
    role: str
    settings: DeviceConfig
    dataset: Path | None
    examples: int

    def node_config(self) -> dict[str, str | int | float]:
        """Return what a SuperNode would be told by --node-config."""
        found: dict[str, str | int | float] = {
            "device": self.name,
            "class": self.settings.name,
            "role": self.role,
            "memory": self.settings.memory,
            "threads": self.settings.threads,
            "examples-per-second": self.settings.examples_per_second,
            "watts": self.settings.watts,
            "clock": "virtual",
        }
        if self.dataset is not None:
            found["dataset"] = str(self.dataset)
        if self.settings.energy is not None:
            found["energy"] = self.settings.energy
        return found

    def seconds(self, kind: str, examples: int, received: int, sent: int) -> float:
        """Return how long a task takes this device, by its class's figures.

        seconds = 8 received / downlink + examples / speed + 8 sent / uplink, bytes both ways.
        """
        speed = self.settings.examples_per_second
        if kind == "evaluate":
            speed *= EVALUATION_SPEED
        link = 8 * received / self.settings.downlink + 8 * sent / self.settings.uplink
        return link + examples / speed


def build_devices(fleet: FleetConfig, splits: Splits, folder: Path) -> list[SimulatedDevice]:
    """Deal the data to the fleet's devices and write each one's file into `folder`.

    Devices that train come first, class by class, in the order of the configuration. Raises
    ConfigError when there are not as many devices as the data can be dealt to.
    """
    hands = deal_training(fleet, splits.train)
    judges = deal_evaluation(fleet, splits.test)
    classes, judging = assign_classes(fleet, len(hands), len(judges))
    count: dict[str, int] = {}
    devices: list[SimulatedDevice] = []
    for role, part, parts, kinds in (
        ("train", splits.train, hands, classes),
        ("evaluate", splits.test, judges, judging),
    ):
        for rows, settings in zip(parts, kinds, strict=True):
            number = count.get(settings.name, 0)
            count[settings.name] = number + 1
            name = f"{settings.name}-{number}"
            path = folder / f"{name}.etd"
            part.take(rows).write(path)
            node_id = FIRST_NODE_ID + len(devices)
            devices.append(SimulatedDevice(name, node_id, role, settings, path, len(rows)))
    return devices


def deal_training(fleet: FleetConfig, train: Dataset) -> Sequence[Indices]:
    """Return each training device's rows."""
    data = fleet.dealt
    total = total_count(fleet, "train")
    if data.partition == "group":
        return partition(train, "group")
    if total is None:
        raise ConfigError(
            f"[data] partition = {data.partition!r} needs a count for every [[device]]"
        )
    return partition(
        train,
        data.partition,
        total,
        seed=data.seed,
        alpha=data.alpha,
        shards_per_device=data.shards_per_device,
    )


def deal_evaluation(fleet: FleetConfig, test: Dataset) -> Sequence[Indices]:
    """Return each evaluation device's rows: one device a group, else equal random parts."""
    wanted = total_count(fleet, "evaluate")
    data = fleet.dealt
    if test.groups is not None and data.partition == "group":
        return [np.flatnonzero(test.groups == group) for group in np.unique(test.groups)]
    count = min(wanted or len(fleet.devices), len(test))
    return partition(test, "iid", count, seed=data.seed)


def total_count(fleet: FleetConfig, role: str) -> int | None:
    """Return how many devices have a role, or None where a class leaves its count open."""
    counts = [device.count for device in fleet.devices if device.role == role]
    return None if None in counts else sum(count for count in counts if count is not None)


def assign_classes(
    fleet: FleetConfig, train: int, test: int
) -> tuple[list[DeviceConfig], list[DeviceConfig]]:
    """Return the class of each of `train` training and `test` evaluation devices.

    Where no class is there to evaluate, the counts may cover all devices, the last of which then
    evaluate; else those borrow the classes in turn. Raises ConfigError when counts do not fit.
    """
    trainers = list(expand([one for one in fleet.devices if one.role == "train"], train))
    own = [one for one in fleet.devices if one.role == "evaluate"]
    judges = list(expand(own, test))
    if not own and len(trainers) == train + test:
        trainers, judges = trainers[:train], trainers[train:]
    elif not own:
        judges = list(islice(cycle(fleet.devices), test))
    for verb, assigned, dealt in (("train", trainers, train), ("evaluate", judges, test)):
        if len(assigned) != dealt:
            raise ConfigError(
                f"the data makes {dealt} devices that {verb} and the counts of those [[device]] "
                f"add up to {len(assigned)}: make them equal, or leave one count out"
            )
    return trainers, judges


def expand(classes: Sequence[DeviceConfig], total: int) -> Iterator[DeviceConfig]:
    """Yield every class as often as it counts; one without a count takes the rest of `total`."""
    rest = max(0, total - sum(device.count or 0 for device in classes))
    for device in classes:
        yield from [device] * (rest if device.count is None else device.count)
