"""A fleet's configuration: what it accepts, and that every mistake is one line that helps."""

from __future__ import annotations

import tomllib
from dataclasses import FrozenInstanceError, fields
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgetrain.config import DataConfig, DeviceConfig, FleetConfig, ModelConfig, TrainingConfig
from edgetrain.coordinator.simulation.simulate import simulate
from edgetrain.errors import ConfigError

EXAMPLES = sorted((Path(__file__).parents[2] / "examples").glob("*.toml"))
DOCUMENT = """
[data]
path = "watch"
partition = "group"
test_groups = [3, 6, 9]

[model]
name = "mlp"
hidden = [256, 128]
mode = "fsb"
first = "int8"

[training]
rounds = 30
local_epochs = 2
batch = 32
learning_rate = 0.04
codec = "luq4"
seed = 7
deadline = "2min"

[[device]]
name = "pi-zero"
count = 8
memory = "48MiB"
energy = "5J"
uplink = "500kbit/s"
examples_per_second = 2000

[[device]]
name = "gateway"
memory = 268435456
"""


def table(**changes: Any) -> dict[str, Any]:
    """Return a small valid document with some of its tables replaced."""
    return {
        "data": {"path": "watch"},
        "device": [{"name": "a", "memory": "48MiB", "count": 2}],
    } | changes


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_every_example_is_a_fleet(path: Path) -> None:
    assert FleetConfig.from_toml(path).devices


def test_a_document_is_read_with_units_and_defaults(tmp_path: Path) -> None:
    path = tmp_path / "fleet.toml"
    path.write_text(DOCUMENT)
    fleet = FleetConfig.from_toml(path)
    assert fleet.data == DataConfig("watch", "group", (3, 6, 9))
    assert fleet.model == ModelConfig("mlp", (256, 128), "fsb", first="int8")
    assert fleet.training.deadline == 120.0
    assert fleet.training.fraction == 1.0
    first, second = fleet.devices
    assert (first.memory, first.energy, first.uplink) == (48 << 20, 5.0, 500_000.0)
    assert (second.memory, second.count, second.role) == (256 << 20, None, "train")


def test_a_fleet_survives_the_way_to_a_table_and_back() -> None:
    fleet = FleetConfig.from_table(tomllib.loads(DOCUMENT))
    assert FleetConfig.from_table(fleet.to_table()) == fleet


def test_a_real_fleet_has_no_data_and_a_simulated_one_says_that_it_needs_them() -> None:
    table = tomllib.loads(DOCUMENT)
    del table["data"]
    fleet = FleetConfig.from_table(table)
    assert FleetConfig.from_table(fleet.to_table()) == fleet
    with pytest.raises(ConfigError, match=r"simulated fleet needs a \[data\] table: add one"):
        simulate(fleet)


def test_a_fleet_made_by_hand_is_checked_like_a_file() -> None:
    fleet = FleetConfig(
        data=DataConfig("watch"),
        training=TrainingConfig(rounds=3),
        devices=(DeviceConfig("a", memory="64MiB"),),  # type: ignore[arg-type]
    )
    assert fleet.devices[0].memory == 64 << 20
    assert FleetConfig(data={"path": "watch"}, devices=fleet.devices).dealt.path == "watch"  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="rounds = 0"):
        TrainingConfig(rounds=0)
    with pytest.raises(FrozenInstanceError):
        fleet.training.rounds = 4  # type: ignore[misc]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"trainig": {}}, r"no table \[trainig\]: did you mean 'training'"),
        ({"data": {"pth": "x"}}, r"\[data\] has no key 'pth': did you mean 'path'"),
        ({"data": {}}, r"\[data\] lacks the key 'path'"),
        ({"training": {"bach": 3}}, r"\[training\] has no key 'bach': did you mean 'batch'"),
        ({"training": {"zzz": 3}}, r"has no key 'zzz': the valid ones are rounds, "),
        ({"training": {"batch": "3"}}, r"\[training\] batch = '3': write a whole number"),
        ({"training": {"batch": True}}, r"batch = True: write a whole number"),
        ({"training": {"rounds": -1}}, r"rounds = -1: write a whole number from 1"),
        ({"training": {"learning_rate": 0}}, r"learning_rate = 0: write a number above 0"),
        ({"training": {"learning_rate": float("nan")}}, r"learning_rate = nan: write a number"),
        ({"training": {"deadline": "3 parsecs"}}, r"deadline = '3 parsecs': .* '90s'"),
        ({"training": {"fraction": 1.5}}, r"fraction = 1.5: write a number above 0 to 1"),
        ({"model": {"mode": "bn"}}, r"\[model\] mode = 'bn': did you mean 'bnn'"),
        ({"model": {"hidden": []}}, r"hidden = \[\]: write at least 1"),
        ({"model": {"hidden": "ab"}}, r"hidden = 'ab': write a list of whole numbers"),
        ({"model": {"hidden": [1.5]}}, r"hidden = \[1.5\]: write a whole number"),
        ({"model": 3}, r"\[model\] must be a table"),
        ({"device": {"name": "a"}}, r"must be written \[\[device\]\]"),
        ({"device": []}, r"no \[\[device\]\] trains"),
        ({"device": [{"name": "a"}]}, r"\[\[device\]\] number 1: lacks the key 'memory'"),
        ({"device": [{"name": "a", "memory": "big"}]}, r"number 1: memory = 'big'"),
        ({"device": [{"name": "a b", "memory": 1}]}, r"name = 'a b': write a name of letters"),
        ({"device": [{"name": "a", "memory": 1, "role": "judge"}]}, r"role = 'judge'"),
        (
            {"device": [{"name": "a", "memory": 1, "count": 1}] * 2},
            r"name = 'a' comes twice",
        ),
        (
            {"device": [{"name": "a", "memory": 1}, {"name": "b", "memory": 1}]},
            r"a and b have no count",
        ),
        (
            {"data": {"path": "x", "test_groups": [1], "test_fraction": 0.1}},
            r"both test_groups and test_fraction",
        ),
    ],
)
def test_a_mistake_is_one_line_that_names_it(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        FleetConfig.from_table(table(**changes))
    assert "\n" not in str(caught.value)


def test_the_nearest_key_is_named_for_every_key() -> None:
    for kind in (DataConfig, ModelConfig, TrainingConfig, DeviceConfig):
        for field in fields(kind):
            wrong = field.name + "x"
            with pytest.raises(ConfigError, match=f"did you mean '{field.name}'"):
                kind.from_table({wrong: 1})


def test_a_file_that_is_missing_or_no_toml_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot read .*none\.toml: No such file"):
        FleetConfig.from_toml(tmp_path / "none.toml")
    broken = tmp_path / "broken.toml"
    broken.write_text("[data\n")
    with pytest.raises(ConfigError, match=r"broken\.toml is not TOML"):
        FleetConfig.from_toml(broken)


def test_a_relative_path_is_looked_for_beside_the_file(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    path = tmp_path / "fleet.toml"
    path.write_text('[data]\npath = "mine"\n[[device]]\nname = "a"\nmemory = "1MiB"\n')
    assert FleetConfig.from_toml(path).dealt.path == str(tmp_path / "mine")


def test_the_learning_rate_falls_to_its_floor() -> None:
    training = TrainingConfig(rounds=10, learning_rate=0.04, final_rate=0.25)
    rates = [training.rate(round) for round in range(10)]
    assert rates[0] == 0.04
    assert rates[5] == pytest.approx(0.02)
    assert rates[-1] == pytest.approx(0.01)
    assert rates == sorted(rates, reverse=True)
    assert TrainingConfig(schedule="constant").rate(29) == 0.04


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
        max_leaves=5,
    ),
    st.sampled_from(["data", "model", "training", "device"]),
)
def test_nothing_but_a_config_error_comes_out(found: object, section: str) -> None:
    message = ""
    try:
        FleetConfig.from_table(table(**{section: found}))
    except ConfigError as error:
        message = str(error)
    assert len(message.splitlines()) <= 1
