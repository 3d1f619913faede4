"""Admission: enough of everything, not enough, nobody tells, and garbage."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgetrain.errors import BudgetError, ConfigError
from edgetrain.memory_profiler.enforce.admission import Admission, Check, Policy, admit

MIB = 1 << 20
SUPPLY = "sys/class/power_supply"
ZONE = "sys/class/thermal/thermal_zone"
V2 = "30 23 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n"
LAPTOP = {
    f"{SUPPLY}/AC/type": "Mains\n",
    f"{SUPPLY}/AC/online": "0\n",
    f"{SUPPLY}/BAT0/type": "Battery\n",
    f"{SUPPLY}/BAT0/status": "Discharging\n",
    f"{SUPPLY}/BAT0/capacity": "40\n",
}


def write(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def the(admission: Admission) -> Check:
    (check,) = admission.checks
    return check


def test_this_machine_has_room_for_a_little_and_not_for_everything() -> None:
    assert the(admit(Policy(), MIB)).passed
    refused = admit(Policy(), 1 << 60)
    assert the(refused).passed is False
    with pytest.raises(BudgetError, match=r"not now: .* of memory left, .* wanted"):
        refused.require()


def test_nothing_is_asked_for_unless_it_is() -> None:
    assert admit(Policy()).checks == ()
    admit(Policy()).require()


@pytest.mark.parametrize(
    ("needed", "headroom", "passed"),
    [(60, 0, True), (61, 0, False), (50, 10, True), (50, 11, False)],
)
def test_the_tightest_group_above_us_decides(
    needed: int, headroom: int, passed: bool, tmp_path: Path
) -> None:
    write(
        tmp_path,
        {
            "proc/meminfo": "MemAvailable: 1000000 kB\n",
            "proc/self/cgroup": "0::/fleet/device\n",
            "proc/self/mountinfo": V2,
            "sys/fs/cgroup/fleet/device/memory.max": "max\n",
            "sys/fs/cgroup/fleet/memory.max": "100\n",
            "sys/fs/cgroup/fleet/memory.current": "40\n",
        },
    )
    found = the(admit(Policy(headroom=headroom), needed, tmp_path))
    assert (found.passed, found.value) == (passed, 60)


@pytest.mark.parametrize(
    ("changes", "share"),
    [
        ({}, 0.4),
        ({f"{SUPPLY}/BAT0/capacity": "120\n"}, 1.0),
        (
            {
                f"{SUPPLY}/BAT0/capacity": "",
                f"{SUPPLY}/BAT0/energy_now": "30\n",
                f"{SUPPLY}/BAT0/energy_full": "120\n",
            },
            0.25,
        ),
        (
            {
                f"{SUPPLY}/BAT0/capacity": "",
                f"{SUPPLY}/BAT0/charge_now": "30\n",
                f"{SUPPLY}/BAT0/charge_full": "40\n",
            },
            0.75,
        ),
        ({f"{SUPPLY}/BAT1/type": "Battery\n", f"{SUPPLY}/BAT1/capacity": "7\n"}, 0.07),
        (
            {
                f"{SUPPLY}/mouse/type": "Battery\n",
                f"{SUPPLY}/mouse/scope": "Device\n",
                f"{SUPPLY}/mouse/capacity": "1\n",
            },
            0.4,
        ),
    ],
    ids=["percent", "overfull", "energy", "charge", "the emptier of two", "not a mouse's"],
)
def test_the_charge_of_the_machines_battery(
    changes: dict[str, str], share: float, tmp_path: Path
) -> None:
    write(tmp_path, LAPTOP | changes)
    found = the(admit(Policy(battery=share), root=tmp_path))
    assert (found.passed, found.value) == (True, share)
    if share < 1:
        assert the(admit(Policy(battery=share + 0.01), root=tmp_path)).passed is False


@pytest.mark.parametrize(
    ("changes", "passed"),
    [
        ({}, False),
        ({f"{SUPPLY}/AC/online": "1\n"}, True),
        ({f"{SUPPLY}/AC/type": "USB\n", f"{SUPPLY}/AC/online": "2\n"}, True),
        ({f"{SUPPLY}/BAT0/status": "Charging\n"}, True),
        ({f"{SUPPLY}/BAT0/status": "Full\n"}, True),
        ({f"{SUPPLY}/AC/type": "Wireless\n"}, False),
    ],
)
def test_a_charger_is_connected_or_not(
    changes: dict[str, str], passed: bool, tmp_path: Path
) -> None:
    write(tmp_path, LAPTOP | changes)
    assert the(admit(Policy(charger=True), root=tmp_path)).passed is passed


@pytest.mark.parametrize(
    ("zones", "celsius"),
    [
        (["41000", "55500"], 55.5),
        (["41000", "", "-5000"], 41.0),
        (["41000", "255000", "-273000"], 41.0),
    ],
)
def test_the_hottest_part_counts_and_a_broken_sensor_does_not(
    zones: list[str], celsius: float, tmp_path: Path
) -> None:
    write(tmp_path, {f"{ZONE}{number}/temp": f"{zone}\n" for number, zone in enumerate(zones)})
    found = the(admit(Policy(celsius=celsius), root=tmp_path))
    assert (found.passed, found.value) == (True, celsius)
    assert the(admit(Policy(celsius=celsius - 1), root=tmp_path)).passed is False


ALL = Policy(battery=0.5, charger=True, celsius=60)


def test_what_nobody_tells_stands_in_nobodys_way(tmp_path: Path) -> None:
    found = admit(ALL, MIB, tmp_path)
    assert [check.passed for check in found.checks] == [None] * 4
    assert [check.value for check in found.checks] == [None] * 4
    assert all(check.reason for check in found.checks)
    found.require()


GARBAGE = {
    "proc/meminfo": "MemAvailable: lots\n",
    f"{SUPPLY}/BAT0/type": "Battery\n",
    f"{SUPPLY}/BAT0/capacity": "much\n",
    f"{SUPPLY}/AC/type": "Mains\n",
    f"{SUPPLY}/AC/online": "1.5\n",
    f"{ZONE}0/temp": "hot\n",
}


def test_garbage_stands_in_the_way_and_is_named(tmp_path: Path) -> None:
    write(tmp_path, GARBAGE)
    found = admit(ALL, MIB, tmp_path)
    assert [check.name for check in found.refusals] == [
        "memory",
        "battery",
        "charger",
        "temperature",
    ]
    with pytest.raises(BudgetError, match=r"meminfo.*capacity.*online.*temp"):
        found.require()


@given(st.dictionaries(st.sampled_from(sorted(GARBAGE)), st.binary(max_size=24)))
def test_any_bytes_are_a_verdict(
    tmp_path_factory: pytest.TempPathFactory, files: dict[str, bytes]
) -> None:
    root = tmp_path_factory.mktemp("root")
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    assert len(admit(ALL, MIB, root).checks) == 4


@pytest.mark.parametrize(
    "wrong",
    [{"headroom": -1}, {"battery": 1.5}, {"battery": float("nan")}, {"celsius": float("inf")}],
)
def test_a_policy_that_cannot_be_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ConfigError):
        Policy(**wrong)  # type: ignore[arg-type]
