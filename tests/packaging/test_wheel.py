"""The wheel: built, installed in an empty environment, used from outside of the checkout."""

from __future__ import annotations

import subprocess
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LARGEST_MODULE = 400_000
"""Bytes of the native module: part of what every device carries."""
# Names on the package index belong to others.
FOREIGN = ("client", "coordinator", "memory_profiler", "tests", "native")
# The bundled data set takes most of it.
LARGEST_WHEEL = 4 << 20

TRAIN = """
import edgetrain as et
from edgetrain import client, coordinator, memory_profiler
from edgetrain.memory_profiler import choose
trainer = et.Trainer(et.plan(et.models.mlp(8, 2, (4,)), 4))
metrics = trainer.fit(memoryview(bytes(range(64))), memoryview(bytes([0, 1] * 4)), epochs=2)
assert metrics.examples == 8
print(et.__file__)
"""


def run(*command: str | Path, cwd: Path) -> str:
    """Run a command and return its output; show what it said where it fails."""
    result = subprocess.run(
        [str(part) for part in command], cwd=cwd, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


@pytest.fixture(scope="module")
def python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the interpreter of an environment that holds the wheel and nothing else."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder / "venv", with_pip=True)
    interpreter = folder / "venv" / "bin" / "python"
    run(interpreter, "-m", "pip", "install", "--quiet", "--no-index", wheel, cwd=folder)
    return interpreter


def test_the_wheel_carries_the_package_and_no_source_of_the_engine(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert not [name for name in names if name.endswith((".cpp", ".hpp", "CMakeLists.txt"))]
    assert {name.split("/")[0].split("-")[0] for name in names} == {"edgetrain"}
    for part in (
        "client/worker.py",
        "coordinator/loop.py",
        "memory_profiler/choose.py",
        "data/bundled/watch.npz",
        "data/bundled/watch.LICENSE",
        "py.typed",
    ):
        assert f"edgetrain/{part}" in names
    assert wheel.stat().st_size < LARGEST_WHEEL


def test_the_native_module_is_small(wheel: Path) -> None:
    modules = [info for info in zipfile.ZipFile(wheel).infolist() if "/_native" in info.filename]
    assert max(info.file_size for info in modules) < LARGEST_MODULE


def test_the_wheel_requires_nothing_on_a_device(wheel: Path) -> None:
    archive = zipfile.ZipFile(wheel)
    name = next(name for name in archive.namelist() if name.endswith("METADATA"))
    required = [
        line
        for line in archive.read(name).decode().splitlines()
        if line.startswith("Requires-Dist")
    ]
    assert required
    assert all("extra ==" in line for line in required)
    assert all('extra == "torch"' in line for line in required if "torch" in line)


def test_it_trains_from_outside_of_the_checkout(python: Path, tmp_path: Path) -> None:
    where = run(python, "-c", TRAIN, cwd=tmp_path)
    assert "site-packages" in where


@pytest.mark.parametrize("name", FOREIGN)
def test_it_takes_no_name_that_belongs_to_others(python: Path, tmp_path: Path, name: str) -> None:
    code = f"import importlib.util; print(importlib.util.find_spec({name!r}))"
    assert run(python, "-c", code, cwd=tmp_path).strip() == "None"


def test_commands_without_their_extra_say_what_to_install(python: Path, tmp_path: Path) -> None:
    for command in ("edgetrain", "edgetrain-profile", "edgetrain-coordinator"):
        result = subprocess.run(
            [str(python.with_name(command)), "--help"],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
        assert result.returncode == 1
        assert "pip install 'edgetrain[fleet]'" in result.stderr
        assert "Traceback" not in result.stderr


def test_a_device_needs_no_extra_to_be_told_of_its_commands(python: Path, tmp_path: Path) -> None:
    client = str(python.with_name("edgetrain-client"))
    told = subprocess.run([client, "--help"], cwd=tmp_path, capture_output=True, check=True)
    assert b"join" in told.stdout
