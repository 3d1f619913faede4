"""Every meter of the registry over trees of fixtures: right, or unknown, but never wrong.

No joule can be measured on the machines that these tests were written on. What is tested is what
a meter makes of the files that the kernel documents, and of every way in which they can fail.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from edgetrain.errors import ConfigError
from edgetrain.memory_profiler.energy.battery import BatteryMeter
from edgetrain.memory_profiler.energy.fake import FakeMeter
from edgetrain.memory_profiler.energy.hwmon import HwmonMeter
from edgetrain.memory_profiler.energy.law import PRIOR, EnergyFit, EnergyLaw, Usage, Work
from edgetrain.memory_profiler.energy.meter import METERS, ORDER, Meter, open_meter
from edgetrain.memory_profiler.energy.pmic import PmicMeter
from edgetrain.memory_profiler.energy.rapl import RaplMeter
from edgetrain.memory_profiler.energy.reading import Reading
from edgetrain.memory_profiler.energy.site import Site

NOBODY = 65534
RANGE_UJ = 262_143_328_850
"""The range of a package's counter, as kernels report it."""
GARBAGE = ("", "many", "-5", "1.5", "1\n2", "9" * 40, "9" * 400, "٣", "\x00\x01")
RAPL = "sys/class/powercap/intel-rapl:0"
INA = "sys/class/hwmon/hwmon2"
BATTERY = "sys/class/power_supply/BAT0"
VCGENCMD = "usr/bin/vcgencmd"
PMIC = """\
   3V7_WL_SW_A current(0)=0.50000000A
   VDD_CORE_A current(7)=2.00000000A
   3V7_WL_SW_V volt(8)=3.70000000V
   VDD_CORE_V volt(15)=0.72000000V
   EXT5V_V volt(24)=5.15000000V
   BATT_V volt(25)=0.00000000V
"""
PMIC_WATTS = 1.1451 * (0.5 * 3.7 + 2.0 * 0.72) + 0.5879
FIT = EnergyFit(
    law=EnergyLaw(2.0, 1e-9, 1e-8),
    covariance=((1e-4, 0.0, 0.0), (0.0, 1e-22, 0.0), (0.0, 0.0, 1e-20)),
    relative_error=0.03,
    runs=24,
    condition=8.0,
    meter="rapl",
    scope="package",
)


class Clock:
    """A clock that moves when it is told."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Machine:
    """A tree of fixtures, the files of it that hold counts, and how the machine uses energy.

    spend lets it use about 4 W for a while, in the way that its meter would see.
    """

    root: Path
    files: dict[str, str]
    counts: tuple[str, ...] = ()
    spend: Callable[[float], None] = lambda _: None
    clock: Clock = field(default_factory=Clock)
    done: list[Work] = field(default_factory=lambda: [Work()])

    def site(self) -> Site:
        """Return where a meter stands in it."""
        return Site(self.root, self.clock, lambda: self.done[-1], FIT)

    def write(self, name: str, text: str) -> None:
        """Write one file."""
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        if name == VCGENCMD:
            path.chmod(0o755)

    def run(self, meter: Meter, seconds: float, tick: float = 0.1) -> Reading:
        """Let time pass, reading all the while, and return the last reading."""
        for _ in range(round(seconds / tick)):
            self.clock.now += tick
            self.spend(tick)
            reading = meter.read()
        return reading


def counted(machine: Machine, name: str, per_second: float) -> Callable[[float], None]:
    """Return what moves a counter up, or down."""

    def spend(seconds: float) -> None:
        path = machine.root / name
        if path.exists() and path.read_text().strip().isdecimal():
            path.write_text(f"{int(path.read_text()) + round(per_second * seconds)}\n")

    return spend


def rapl(root: Path) -> Machine:
    counts = (f"{RAPL}/energy_uj", f"{RAPL}/max_energy_range_uj")
    files = {f"{RAPL}/name": "package-0\n", counts[0]: "5000\n", counts[1]: f"{RANGE_UJ}\n"}
    machine = Machine(root, files, counts)
    machine.spend = counted(machine, counts[0], 4e6)
    return machine


def hwmon(root: Path) -> Machine:
    counts = (f"{INA}/in1_input", f"{INA}/curr1_input")
    return Machine(
        root, {f"{INA}/name": "ina226\n", counts[0]: "5000\n", counts[1]: "800\n"}, counts
    )


def pmic(root: Path) -> Machine:
    return Machine(root, {VCGENCMD: f"#!/bin/sh\ncat <<'END'\n{PMIC}END\n"})


def battery(root: Path) -> Machine:
    counts = (f"{BATTERY}/energy_now",)
    files = {f"{BATTERY}/type": "Battery\n", f"{BATTERY}/status": "Discharging\n"}
    machine = Machine(root, files | {counts[0]: "50000000\n"}, counts)
    machine.spend = counted(machine, counts[0], -4 / 3600e-6)
    return machine


def modelled(root: Path) -> Machine:
    machine = Machine(root, {})
    machine.spend = lambda seconds: machine.done.append(
        Work(machine.done[-1].operations + 1e9 * seconds, machine.done[-1].bytes_moved + 1e8)
    )
    return machine


MACHINES: dict[str, Callable[[Path], Machine]] = {
    "rapl": rapl,
    "hwmon": hwmon,
    "pmic": pmic,
    "battery": battery,
    "calibrated": modelled,
    "prior": modelled,
    "fake": modelled,
}
FILED = [name for name in METERS if name in ("rapl", "hwmon", "pmic", "battery")]
COUNTED = [(name, count) for name in FILED for count in MACHINES[name](Path()).counts]


@pytest.fixture
def root() -> Iterator[Path]:
    """A folder that everybody may enter, which pytest's own is not."""
    folder = Path(tempfile.mkdtemp(prefix="meters-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


def made(name: str, root: Path) -> Machine:
    """Return a machine with all its files in place."""
    machine = MACHINES[name](root)
    for path, text in machine.files.items():
        machine.write(path, text)
    return machine


@contextmanager
def as_nobody() -> Iterator[None]:
    """Become a user to whom the kernel does close files, where the tests run as root."""
    privileged = os.geteuid() == 0
    if privileged:
        os.seteuid(NOBODY)
    try:
        yield
    finally:
        if privileged:
            os.seteuid(0)


# Every meter.


def test_every_meter_has_a_machine_here() -> None:
    assert MACHINES.keys() == METERS.keys()
    assert tuple(METERS)[:-1] == ORDER


@pytest.mark.parametrize("name", METERS)
def test_it_counts_the_joules_of_a_machine_that_has_it(name: str, root: Path) -> None:
    machine = made(name, root)
    meter = METERS[name](machine.site())
    assert meter.name == name
    assert meter.obstacle() == ""
    meter.start()
    reading = machine.run(meter, seconds=2.0)
    expected = {
        "rapl": 8.0,
        "hwmon": 8.0,
        "battery": 8.0,
        "pmic": 2 * PMIC_WATTS,
        "calibrated": FIT.law.joules(Usage(2.0, 2e9, 2e9)),
        "prior": PRIOR.joules(Usage(2.0, 2e9, 2e9)),
    }
    assert reading.value is not None
    if name in expected:
        assert reading.value == pytest.approx(expected[name], rel=1e-3)
    assert reading.scope == meter.scope
    assert reading.source != "none"
    assert reading.coverage == pytest.approx(1.0)
    assert reading.samples in (20, 21)
    assert reading.period_s == pytest.approx(0.1)
    assert reading.interval is not None
    assert reading.value in reading.interval


@pytest.mark.parametrize("name", METERS)
def test_it_starts_anew(name: str, root: Path) -> None:
    machine = made(name, root)
    meter = METERS[name](machine.site())
    meter.start()
    first = machine.run(meter, seconds=2.0).value
    meter.start()
    second = machine.run(meter, seconds=1.0).value
    assert first is not None
    assert second is not None
    assert second < 0.6 * first


@pytest.mark.parametrize("name", METERS)
def test_no_time_is_no_energy_known(name: str, root: Path) -> None:
    machine = made(name, root)
    meter = METERS[name](machine.site())
    meter.start()
    assert meter.read().value is None


@pytest.mark.parametrize("name", FILED)
def test_a_machine_without_it_says_so(name: str, root: Path) -> None:
    meter = METERS[name](Site(root, Clock()))
    assert str(root) in meter.obstacle()
    meter.start()
    reading = meter.read()
    assert reading.value is None
    assert reading.source == "none"
    assert reading.coverage == 0


@pytest.mark.parametrize(("name", "path"), COUNTED)
@pytest.mark.parametrize("text", GARBAGE)
def test_garbage_is_named_and_never_counted(name: str, path: str, text: str, root: Path) -> None:
    machine = made(name, root)
    machine.write(path, text)
    meter = METERS[name](machine.site())
    assert str(root / path) in meter.obstacle()
    meter.start()
    assert machine.run(meter, seconds=1.0).value is None


@pytest.mark.parametrize(("name", "path"), COUNTED)
def test_a_missing_file_is_named(name: str, path: str, root: Path) -> None:
    machine = made(name, root)
    (root / path).unlink()
    assert METERS[name](machine.site()).obstacle()


@pytest.mark.parametrize(("name", "path"), COUNTED)
def test_a_closed_file_is_named(name: str, path: str, root: Path) -> None:
    machine = made(name, root)
    (root / path).chmod(0)
    meter = METERS[name](machine.site())
    with as_nobody():
        assert f"{root / path}: Permission denied" in meter.obstacle()
        meter.start()
        assert meter.read().value is None


@pytest.mark.parametrize("name", FILED)
@pytest.mark.parametrize("damage", ["gone", *GARBAGE])
def test_files_that_fail_while_it_counts_never_raise(name: str, damage: str, root: Path) -> None:
    for number in range(len(MACHINES[name](root).files)):
        machine = made(name, root)
        meter = METERS[name](machine.site())
        meter.start()
        before = machine.run(meter, seconds=1.0)
        assert before.value is not None
        path = list(machine.files)[number]
        if damage == "gone":
            (root / path).unlink()
        else:
            machine.write(path, damage)
        after = machine.run(meter, seconds=1.0)
        assert after.value is None or after.value >= before.value


def test_a_closed_counter_says_how_to_open_it(root: Path) -> None:
    machine = made("rapl", root)
    (root / RAPL / "energy_uj").chmod(0o400)
    with as_nobody():
        assert "udev" in RaplMeter(machine.site()).obstacle()


# RAPL.


def test_a_counter_may_wrap(root: Path) -> None:
    machine = made("rapl", root)
    machine.write(f"{RAPL}/energy_uj", f"{RANGE_UJ - 3_000_000}\n")
    meter = RaplMeter(machine.site())
    meter.start()
    machine.clock.now += 1.0
    machine.write(f"{RAPL}/energy_uj", "2000000\n")
    reading = meter.read()
    assert reading.value == pytest.approx(5.0)
    assert reading.high is not None
    assert reading.high < 5.1


def test_wraps_that_may_have_gone_unseen_widen_the_bounds(root: Path) -> None:
    machine = made("rapl", root)
    meter = RaplMeter(machine.site())
    meter.start()
    machine.clock.now += 600.0
    machine.spend(600.0)
    reading = meter.read()
    assert reading.value == pytest.approx(2400.0)
    assert reading.high is not None
    assert reading.high > 2 * RANGE_UJ / 1e6


def test_nested_zones_are_never_added(root: Path) -> None:
    machine = made("rapl", root)
    for zone, name in (
        ("intel-rapl:0:0", "core"),
        ("intel-rapl:0:1", "dram"),
        ("intel-rapl:1", "psys"),
        ("intel-rapl-mmio:0", "package-0"),
        ("intel-rapl:0:2", "package-0"),
    ):
        folder = f"sys/class/powercap/{zone}"
        machine.write(f"{folder}/name", f"{name}\n")
        machine.write(f"{folder}/energy_uj", "0\n")
        machine.write(f"{folder}/max_energy_range_uj", f"{RANGE_UJ}\n")
    meter = RaplMeter(machine.site())
    meter.start()
    for path in root.glob("sys/class/powercap/*/energy_uj"):
        path.write_text(f"{int(path.read_text()) + 7_000_000}\n")
    machine.clock.now += 2.0
    reading = meter.read()
    assert reading.value == pytest.approx(7.0)
    assert reading.scope == "package"


def test_two_packages_are_both_counted(root: Path) -> None:
    machine = made("rapl", root)
    other = "sys/class/powercap/intel-rapl:1"
    for name in ("name", "energy_uj", "max_energy_range_uj"):
        machine.write(f"{other}/{name}", machine.files[f"{RAPL}/{name}"].replace("-0", "-1"))
    meter = RaplMeter(machine.site())
    meter.start()
    machine.clock.now += 2.0
    counted(machine, f"{RAPL}/energy_uj", 1e6)(2.0)
    counted(machine, f"{other}/energy_uj", 2e6)(2.0)
    assert meter.read().value == pytest.approx(6.0)


def test_a_counter_beyond_its_range_is_garbage(root: Path) -> None:
    machine = made("rapl", root)
    machine.write(f"{RAPL}/energy_uj", f"{RANGE_UJ + 1}\n")
    assert "beyond its range" in RaplMeter(machine.site()).obstacle()


def test_a_counter_that_stands_still_tells_nothing(root: Path) -> None:
    machine = made("rapl", root)
    meter = RaplMeter(machine.site())
    meter.start()
    machine.clock.now += 10.0
    assert meter.read().value is None


def test_a_counter_that_comes_back_has_lost_nothing(root: Path) -> None:
    machine = made("rapl", root)
    meter = RaplMeter(machine.site())
    meter.start()
    machine.write(f"{RAPL}/energy_uj", "busy")
    machine.clock.now += 1.0
    assert meter.read().value is None
    machine.write(f"{RAPL}/energy_uj", "3005000\n")
    machine.clock.now += 1.0
    assert meter.read().value == pytest.approx(3.0)


# Power monitors.


def jetson(machine: Machine, labels: dict[int, str], folder: str = INA) -> None:
    """Lay out an INA3221 whose rails draw 1, 2 and 3 W, with its shunt voltages and sum."""
    machine.write(f"{folder}/name", "ina3221\n")
    for channel in (1, 2, 3):
        machine.write(f"{folder}/in{channel}_input", "5000\n")
        machine.write(f"{folder}/curr{channel}_input", f"{200 * channel}\n")
        if channel in labels:
            machine.write(f"{folder}/in{channel}_label", f"{labels[channel]}\n")
    machine.write(f"{folder}/in4_input", "2\n")
    machine.write(f"{folder}/curr4_input", "1200\n")


JETSON_RAILS = {1: "VDD_IN", 2: "VDD_CPU_GPU_CV", 3: "VDD_SOC"}


@pytest.mark.parametrize(
    "folder",
    [
        INA,
        "sys/bus/i2c/drivers/ina3221/1-0040/hwmon/hwmon3",
        "sys/bus/i2c/drivers/ina3221x/7-0040/hwmon4",
    ],
)
def test_of_nested_rails_the_one_that_feeds_the_module_counts(folder: str, root: Path) -> None:
    machine = Machine(root, {})
    jetson(machine, JETSON_RAILS, folder)
    meter = HwmonMeter(machine.site())
    meter.start()
    reading = machine.run(meter, seconds=2.0)
    assert reading.value == pytest.approx(2.0)
    assert reading.scope == "rail VDD_IN"
    assert reading.path == str(root / folder)


def test_a_chip_that_shows_twice_is_one(root: Path) -> None:
    machine = made("hwmon", root)
    link = root / "sys/bus/i2c/drivers/ina3221/1-0040/hwmon/hwmon2"
    link.parent.mkdir(parents=True)
    link.symlink_to(root / INA)
    assert HwmonMeter(machine.site()).obstacle() == ""


def test_rails_that_nobody_can_tell_apart_are_not_guessed(root: Path) -> None:
    machine = Machine(root, {})
    jetson(machine, {1: "CPU", 2: "GPU"})
    meter = HwmonMeter(machine.site())
    assert "CPU, GPU, without a label" in meter.obstacle()
    named = HwmonMeter(machine.site(), rail="GPU")
    assert named.obstacle() == ""
    named.start()
    assert machine.run(named, seconds=1.0).value == pytest.approx(2.0)
    assert named.read().scope == "rail GPU"
    assert HwmonMeter(machine.site(), rail="SOC").obstacle()


def test_other_sensors_are_no_power_monitors(root: Path) -> None:
    machine = made("hwmon", root)
    machine.write(f"{INA}/name", "coretemp\n")
    assert "no INA" in HwmonMeter(machine.site()).obstacle()


def test_power_that_nobody_watched_is_not_covered(root: Path) -> None:
    machine = made("hwmon", root)
    meter = HwmonMeter(machine.site())
    meter.start()
    machine.run(meter, seconds=1.0)
    machine.clock.now += 9.0
    reading = machine.run(meter, seconds=1.0)
    assert reading.value == pytest.approx(0.9 * 4 + 4.0)
    assert reading.coverage == pytest.approx(1.9 / 11)
    assert reading.high == pytest.approx(44.0)


# The Raspberry Pi's power chip.


@pytest.mark.parametrize(
    "script",
    [
        "echo 'error=1 error_msg=\"Command not registered\"'",
        "exit 1",
        "echo VDD_CORE_A 'current(7)=2.0A'",
        "echo VDD_CORE_A 'current(7)=nanA'; echo VDD_CORE_V 'volt(15)=0.7V'",
        "echo VDD_CORE_V 'volt(15)=0.7V'",
        "head -c 100000 /dev/urandom",
    ],
)
def test_an_answer_without_rails_is_an_obstacle(script: str, root: Path) -> None:
    machine = Machine(root, {})
    machine.write(VCGENCMD, f"#!/bin/sh\n{script}\n")
    meter = PmicMeter(machine.site())
    assert "Raspberry Pi 5" in meter.obstacle()
    meter.start()
    assert meter.read().value is None


def test_the_correction_can_be_calibrated(root: Path) -> None:
    machine = made("pmic", root)
    meter = PmicMeter(machine.site(), gain=2.0, offset_w=1.0)
    assert meter.watts() == pytest.approx(2 * (0.5 * 3.7 + 2.0 * 0.72) + 1)


def test_the_command_can_be_another(root: Path) -> None:
    machine = made("pmic", root)
    (root / VCGENCMD).rename(root / "ask")
    assert PmicMeter(machine.site()).obstacle()
    assert PmicMeter(machine.site(), command=[str(root / "ask")]).obstacle() == ""


# Batteries.


def test_charge_is_turned_into_energy_at_the_mean_voltage(root: Path) -> None:
    machine = made("battery", root)
    (root / BATTERY / "energy_now").unlink()
    machine.write(f"{BATTERY}/charge_now", "2000000\n")
    machine.write(f"{BATTERY}/voltage_now", "12000000\n")
    meter = BatteryMeter(machine.site())
    meter.start()
    machine.clock.now += 1.0
    machine.write(f"{BATTERY}/voltage_now", "11000000\n")
    assert meter.read().value is None, "a load pulls the voltage down, and no charge has gone"
    machine.write(f"{BATTERY}/charge_now", "1999000\n")
    machine.clock.now += 1.0
    assert meter.read().value == pytest.approx(1000e-6 * 3600 * 11.0)


@pytest.mark.parametrize("state", ["Charging", "Full", "Not charging", "burning"])
def test_a_battery_that_does_not_discharge_tells_nothing(state: str, root: Path) -> None:
    machine = made("battery", root)
    meter = BatteryMeter(machine.site())
    meter.start()
    assert machine.run(meter, seconds=1.0).value is not None
    machine.write(f"{BATTERY}/status", f"{state}\n")
    assert "unplug" in BatteryMeter(machine.site()).obstacle()
    assert machine.run(meter, seconds=1.0).value is None
    machine.write(f"{BATTERY}/status", "Discharging\n")
    assert machine.run(meter, seconds=1.0).value is None, "what was drawn meanwhile is lost"


def test_a_battery_that_gains_tells_nothing(root: Path) -> None:
    machine = made("battery", root)
    meter = BatteryMeter(machine.site())
    meter.start()
    machine.run(meter, seconds=1.0)
    machine.write(f"{BATTERY}/energy_now", "60000000\n")
    assert machine.run(meter, seconds=1.0).value is None


def test_of_two_batteries_one_may_rest(root: Path) -> None:
    machine = made("battery", root)
    other = f"{BATTERY[:-1]}1"
    machine.write(f"{other}/type", "Battery\n")
    machine.write(f"{other}/status", "Unknown\n")
    machine.write(f"{other}/energy_now", "9000000\n")
    meter = BatteryMeter(machine.site())
    meter.start()
    assert machine.run(meter, seconds=2.0).value == pytest.approx(8.0, rel=1e-3)
    machine.write(f"{other}/status", "Charging\n")
    assert machine.run(meter, seconds=1.0).value is None


def test_the_battery_of_a_mouse_is_not_the_machines(root: Path) -> None:
    machine = made("battery", root)
    machine.write(f"{BATTERY}/scope", "Device\n")
    assert "no battery" in BatteryMeter(machine.site()).obstacle()


def test_bounds_are_one_step_of_the_gauge(root: Path) -> None:
    machine = made("battery", root)
    meter = BatteryMeter(machine.site())
    meter.start()
    for level in (49990000, 49990000, 49980000, 49960000):
        machine.clock.now += 30.0
        machine.write(f"{BATTERY}/energy_now", f"{level}\n")
        reading = meter.read()
    assert reading.value == pytest.approx(4 * 36.0)
    assert reading.low == pytest.approx(3 * 36.0)
    assert reading.high == pytest.approx(5 * 36.0)


# Models.


@pytest.mark.parametrize(
    ("name", "source"), [("calibrated", "calibrated_model"), ("prior", "prior")]
)
def test_what_is_modelled_says_so(name: str, source: str, root: Path) -> None:
    machine = made(name, root)
    meter = METERS[name](machine.site())
    meter.start()
    reading = machine.run(meter, seconds=1.0)
    assert reading.source == source


@pytest.mark.parametrize("name", ["calibrated", "prior"])
def test_a_model_without_work_to_count_does_not_guess(name: str) -> None:
    clock = Clock()
    meter = METERS[name](Site(clock=clock, fit=FIT))
    assert "operations" in meter.obstacle()
    meter.start()
    clock.now += 1.0
    assert meter.read().value is None


def test_a_machine_that_was_never_calibrated_says_what_to_do() -> None:
    assert "calibrate" in METERS["calibrated"](Site(work=Work)).obstacle()


def test_the_fake_errs_by_its_noise_and_is_reproducible() -> None:
    def joules(seed: int, noise: float) -> list[float]:
        machine = Machine(Path(), {})
        meter = FakeMeter(machine.site(), EnergyLaw(4.0, 0.0, 0.0), noise, seed)
        found = list[float]()
        for _ in range(200):
            meter.start()
            machine.clock.now += 1.0
            found.append(meter.read().value or 0.0)
        return found

    assert joules(seed=1, noise=0.1) == joules(seed=1, noise=0.1)
    assert joules(seed=1, noise=0.1) != joules(seed=2, noise=0.1)
    assert joules(seed=1, noise=0.0) == pytest.approx([4.0] * 200)
    errors = [value / 4.0 - 1 for value in joules(seed=1, noise=0.1)]
    # The deviation of 200 draws has a standard error of 0.1 / sqrt(400).
    assert 0.08 < (sum(error**2 for error in errors) / 200) ** 0.5 < 0.12


# Opening.


@pytest.mark.parametrize("name", FILED)
def test_the_first_that_works_is_opened(name: str, root: Path) -> None:
    machine = made(name, root)
    opened = open_meter(root=root, clock=machine.clock)
    assert opened.meter is not None
    assert opened.meter.name == name
    assert list(opened.obstacles) == list(METERS)[: list(METERS).index(name)]
    assert all(opened.obstacles.values())


def test_where_nothing_works_there_is_a_reason_for_each(root: Path) -> None:
    opened = open_meter(root=root)
    assert opened.meter is None
    assert tuple(opened.obstacles) == ORDER


def test_the_order_decides(root: Path) -> None:
    for name in FILED:
        made(name, root)
    opened = open_meter(("battery", "rapl"), root)
    assert opened.meter is not None
    assert opened.meter.name == "battery"
    assert opened.obstacles == {}


def test_work_and_fit_open_the_modelled_ones(root: Path) -> None:
    for fit, name in ((FIT, "calibrated"), (None, "prior")):
        opened = open_meter(root=root, work=Work, fit=fit)
        assert opened.meter is not None
        assert opened.meter.name == name


def test_what_is_simulated_must_be_asked_for(root: Path) -> None:
    opened = open_meter(("fake",), root)
    assert opened.meter is not None
    assert opened.meter.read().scope == "simulated"


def test_an_unknown_meter_is_refused() -> None:
    with pytest.raises(ConfigError, match="rapl, hwmon"):
        open_meter(("rapl", "wattmeter"))


def test_meters_load_nothing_that_a_device_must_pay_for() -> None:
    heavy = ("hashlib", "random", "numpy", "rich", "typer", "statistics")
    code = (
        "import sys, edgetrain.memory_profiler.energy.meter as m; m.open_meter();"
        f"print(*[name for name in {heavy!r} if name in sys.modules])"
    )
    answer = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert answer.stdout.strip() == ""
