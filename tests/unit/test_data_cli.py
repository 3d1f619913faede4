"""`edgetrain data`: every command in text and in JSON."""

from __future__ import annotations

import json

import numpy as np
import pytest
from typer.testing import CliRunner

from edgetrain.data import store
from edgetrain.data.cli import app
from edgetrain.errors import ConfigError, DataError


def run(*arguments) -> str:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.output


@pytest.fixture(autouse=True)
def _nothing_fetched(tmp_path, monkeypatch):
    monkeypatch.setenv("EDGETRAIN_DATA", str(tmp_path / "data"))


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "mine"
    folder.mkdir()
    np.save(folder / "x.npy", np.random.default_rng(0).normal(3, 2, (30, 5)).astype(np.float32))
    np.save(folder / "y.npy", np.arange(30) % 3)
    np.save(folder / "group.npy", np.arange(30) % 5)
    return folder


def test_list():
    assert "edgetrain data fetch fashion mnist cifar10" in run("list")
    entries = {entry["name"]: entry for entry in json.loads(run("list", "--json"))}
    assert entries["fashion"]["path"] is None
    assert entries["watch"]["licence"] == "BSD-3-Clause"


def test_info_of_the_bundled_set():
    facts = json.loads(run("info", "watch", "--json"))
    assert (facts["feature_shape"], facts["classes"], facts["dtype"]) == ([128, 6], 7, "int8")
    assert (facts["train"]["examples"], facts["test"]["examples"]) == (2631, 974)
    assert facts["test"]["subjects"] == [3, 6, 9]
    assert len(facts["train"]["groups"]) == 14
    assert "2631" in run("info", "watch")


def test_info_of_a_folder_and_its_constants(folder):
    facts = json.loads(run("info", folder, "--test-group", 1, "--test-group", 2, "--json"))
    assert facts["test"]["subjects"] == [1, 2]
    run("info", folder, "--test-group", 1, "--save-scaling", folder / "scaling.json")
    recorded = json.loads((folder / "scaling.json").read_text())
    again = json.loads(run("info", folder, "--test-group", 4, "--json"))
    assert again["scaling"] == recorded != facts["scaling"]
    (folder / "scaling.json").write_text("{}")
    with pytest.raises(DataError, match="not a scaling"):
        run("info", folder)


def test_pack_one_devices_samples(folder, tmp_path):
    out = tmp_path / "device.etd"
    facts = json.loads(run("pack", folder, out, "--group", 3, "--test-group", 1, "--json"))
    assert facts == {"path": str(out), "examples": 6, "bytes": out.stat().st_size}
    with store.open(out) as data:
        assert (data.examples, data.feature_count, data.classes) == (6, 5, 3)
    with pytest.raises(ConfigError, match="has no group 9: choose one of 0, 2, 3, 4"):
        run("pack", folder, out, "--group", 9, "--test-group", 1)
    assert "samples" in run("pack", "watch", out, "--part", "test")


def test_fetch_of_an_unknown_set():
    with pytest.raises(DataError, match="fetch one of"):
        run("fetch", "imagenet")
