"""Simulated devices: who holds what, which class is whose, and how long things take."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgetrain.client.node_settings import NodeSettings
from edgetrain.config import DeviceConfig, FleetConfig
from edgetrain.coordinator.simulation.devices import EVALUATION_SPEED, build_devices
from edgetrain.coordinator.simulation.virtual_grid import VirtualClock
from edgetrain.data import store
from edgetrain.data.dataset import Dataset, Splits
from edgetrain.errors import ConfigError


def dataset(sizes: dict[int, int] | None, examples: int = 0) -> Dataset:
    """Return random examples of three classes; `sizes` maps groups to their examples."""
    total = sum(sizes.values()) if sizes else examples
    draw = np.random.default_rng(total)
    groups = np.repeat(list(sizes), list(sizes.values())).astype(np.int64) if sizes else None
    return Dataset(
        draw.integers(-100, 100, (total, 6)).astype(np.int8),
        (np.arange(total) % 3).astype(np.uint8),
        3,
        (2, 3),
        groups,
        groups,
    )


GROUPED = Splits(dataset({1: 30, 2: 40, 5: 50}), dataset({3: 20, 4: 10}))
PLAIN = Splits(dataset(None, 90), dataset(None, 31))


def build(
    folder: Path, splits: Splits, devices: list[dict[str, Any]], **data: Any
) -> dict[str, tuple[str, int]]:
    """Return the role and the examples of each device by its name."""
    fleet = FleetConfig.from_table(
        {
            "data": {"path": "x", **data},
            "device": [{"memory": "1MiB", **device} for device in devices],
        }
    )
    found = build_devices(fleet, splits, folder)
    for device in found:
        with store.open(device.dataset) as held:
            assert held.examples == device.examples
    return {device.name: (device.role, device.examples) for device in found}


def test_a_group_is_a_device_and_classes_are_dealt_in_order(tmp_path: Path) -> None:
    found = build(
        tmp_path,
        GROUPED,
        [
            {"name": "zero", "count": 2},
            {"name": "big", "count": 1},
            {"name": "judge", "role": "evaluate", "count": 2},
        ],
    )
    assert found == {
        "zero-0": ("train", 30),
        "zero-1": ("train", 40),
        "big-0": ("train", 50),
        "judge-0": ("evaluate", 20),
        "judge-1": ("evaluate", 10),
    }


def test_a_class_without_a_count_takes_the_rest(tmp_path: Path) -> None:
    found = build(tmp_path, GROUPED, [{"name": "a", "count": 1}, {"name": "b"}])
    assert [name for name, (role, _) in found.items() if role == "train"] == ["a-0", "b-0", "b-1"]


def test_without_a_class_of_their_own_judges_borrow(tmp_path: Path) -> None:
    found = build(tmp_path, GROUPED, [{"name": "a", "count": 2}, {"name": "b", "count": 1}])
    assert [name for name, (role, _) in found.items() if role == "evaluate"] == ["a-2", "b-1"]


def test_counts_may_cover_the_judges(tmp_path: Path) -> None:
    found = build(tmp_path, GROUPED, [{"name": "a", "count": 4}, {"name": "b", "count": 1}])
    assert found["a-3"] == ("evaluate", 20)
    assert found["b-0"] == ("evaluate", 10)


@pytest.mark.parametrize("count", [1, 2, 4, 6])
def test_counts_that_do_not_fit_are_named(tmp_path: Path, count: int) -> None:
    message = f"makes 3 devices that train and the counts of those .* add up to {count}"
    with pytest.raises(ConfigError, match=message):
        build(tmp_path, GROUPED, [{"name": "a", "count": count}])


def test_too_many_judges_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"makes 2 devices that evaluate .* add up to 3"):
        build(
            tmp_path,
            GROUPED,
            [{"name": "a", "count": 3}, {"name": "j", "count": 3, "role": "evaluate"}],
        )


@pytest.mark.parametrize("partition", ["iid", "dirichlet", "shards", "quantity"])
def test_examples_can_be_dealt_at_random(tmp_path: Path, partition: str) -> None:
    devices = [{"name": "a", "count": 3}, {"name": "j", "count": 2, "role": "evaluate"}]
    found = build(tmp_path, PLAIN, devices, partition=partition, alpha=5.0)
    held = [examples for role, examples in found.values() if role == "train"]
    judged = [examples for role, examples in found.values() if role == "evaluate"]
    assert (len(held), sum(held)) == (3, 90)
    assert sorted(judged) == [15, 16]


def test_dealing_at_random_needs_every_count(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="'iid' needs a count for every"):
        build(tmp_path, PLAIN, [{"name": "a"}], partition="iid")


def test_a_supernode_understands_what_a_device_says(tmp_path: Path) -> None:
    fleet = FleetConfig.from_table(
        {
            "data": {"path": "x"},
            "device": [{"name": "a", "memory": "48MiB", "energy": "5J", "threads": 2}],
        }
    )
    device = build_devices(fleet, GROUPED, tmp_path)[0]
    node = NodeSettings.of(device.node_config())
    assert (node.device, node.device_class, node.role) == ("a-0", "a", "train")
    assert (node.budget.memory, node.budget.energy, node.threads) == (48 << 20, 5.0, 2)
    assert node.clock == "virtual"


def test_time_is_link_and_speed(tmp_path: Path) -> None:
    fleet = FleetConfig(
        data={"path": "x"},  # type: ignore[arg-type]
        devices=(DeviceConfig("a", 1, examples_per_second=50, uplink=8000.0, downlink=16000.0),),
    )
    device = build_devices(fleet, GROUPED, tmp_path)[0]
    assert device.seconds("train", 100, 4000, 1000) == 2 + 2 + 1
    assert device.seconds("evaluate", 100, 0, 0) == pytest.approx(2 / EVALUATION_SPEED)


def test_a_virtual_clock_jumps_to_the_next_event() -> None:
    clock = VirtualClock()
    clock.wait(3)
    assert clock.now() == 3
    clock.next_event = lambda: 5.0
    clock.wait(10)
    assert clock.now() == 5
    clock.wait(1)
    assert clock.now() == 5
    clock.next_event = lambda: None
    clock.wait(1)
    assert clock.now() == 6
