"""The Debian package of a device: what is in it works, and is all that is in it.

With EDGETRAIN_DEBIAN_ROOT, a folder that `debootstrap --include=python3,libssl3,systemd` made, it
is installed in there and purged, as root.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from small_task import small_task, write_noise

from edgetrain import models
from edgetrain.task import Report

ROOT = Path(__file__).parents[2]
BUILD = ROOT / "deploy" / "debian" / "build.sh"
TOOLS = ("dpkg-deb", "dpkg-shlibdeps", "readelf")
LARGEST_PACKAGE, LARGEST_INSTALLED = 500_000, 1_600
"""Bytes to send to a device; kibibytes on its disk."""
MODEL = models.mlp(inputs=16, classes=2, hidden=(8,))
DEBIAN = os.environ.get("EDGETRAIN_DEBIAN_ROOT")
PACKAGE = "edgetrain-client"

pytestmark = pytest.mark.skipif(
    not all(map(shutil.which, TOOLS)), reason="needs Debian's dpkg-dev and binutils"
)


def run(*command: object, code: int = 0, **environment: str) -> str:
    """Return what a command prints; show what it said where it ends otherwise."""
    done = subprocess.run(
        [str(word) for word in command],
        env={**os.environ, **environment}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def package(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("package")
    run(BUILD, wheel, folder)
    return next(folder.glob("*.deb"))


@pytest.fixture(scope="module")
def unpacked(package: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("unpacked")
    run("dpkg-deb", "--extract", package, folder)
    return folder


def field(package: Path, name: str) -> str:
    return run("dpkg-deb", "--field", package, name).strip()


def test_it_asks_for_the_python_that_its_module_is_for(package: Path) -> None:
    depends = field(package, "Depends").split(", ")
    minor = sys.version_info.minor
    assert f"python3 (>= 3.{minor}~)" in depends
    assert (f"python3 (<< 3.{minor + 1})" in depends) == (minor < 12)
    assert "libssl3" in depends
    assert any(one.startswith("libc6 (>= ") for one in depends)
    assert (
        package.name
        == f"{PACKAGE}_{field(package, 'Version')}_{field(package, 'Architecture')}.deb"
    )


def test_it_is_small(package: Path) -> None:
    assert package.stat().st_size < LARGEST_PACKAGE
    assert int(field(package, "Installed-Size")) < LARGEST_INSTALLED


def test_the_same_wheel_makes_the_same_package(wheel: Path, package: Path, tmp_path: Path) -> None:
    run(BUILD, wheel, tmp_path)
    assert (tmp_path / package.name).read_bytes() == package.read_bytes()


def test_a_wheel_for_no_device_is_refused(tmp_path: Path) -> None:
    wheel = tmp_path / "edgetrain-1.0-cp311-cp311-win_amd64.whl"
    wheel.touch()
    run(BUILD, wheel, tmp_path, code=1)
    assert not list(tmp_path.glob("*.deb"))


def test_debians_own_checks_find_nothing(package: Path) -> None:
    if shutil.which("lintian") is None:
        pytest.skip("needs Debian's lintian")
    run("lintian", "--allow-root", "--fail-on", "error,warning,info", package)


def test_the_unit_runs_the_packages_command_as_the_packages_user(unpacked: Path) -> None:
    unit = (unpacked / f"usr/lib/systemd/system/{PACKAGE}.service").read_text()
    assert f"ExecStart=/usr/bin/{PACKAGE} run\n" in unit
    assert "/opt" not in "".join(line for line in unit.splitlines() if line[:1] != "#")
    users = (unpacked / f"usr/lib/sysusers.d/{PACKAGE}.conf").read_text()
    assert users.split()[:2] == ["u", PACKAGE]
    assert f"User={PACKAGE}\n" in unit


def test_what_is_in_it_does_a_task_with_nothing_beside_it(unpacked: Path, tmp_path: Path) -> None:
    python = Path(sys.base_prefix) / "bin" / f"python3.{sys.version_info.minor}"
    packages = unpacked / "usr/lib/python3/dist-packages"
    assert sorted(one.name for one in packages.iterdir()) == ["edgetrain"]
    client = (python, unpacked / "usr/bin" / PACKAGE)
    assert "join" in run(*client, "--help", PYTHONPATH=str(packages))
    task = small_task(MODEL, batch=4, device="left")
    (tmp_path / "task").write_bytes(task.encode())
    data = write_noise(tmp_path / "data.etd", MODEL, 20)
    arguments = ("--task", tmp_path / "task", "--data", data, "--report", tmp_path / "report")
    run(*client, "run-task", *arguments, PYTHONPATH=str(packages))
    report = Report.decode((tmp_path / "report").read_bytes(), task)
    assert (report.status, report.examples) == ("trained", 20)


@pytest.mark.skipif(DEBIAN is None, reason="EDGETRAIN_DEBIAN_ROOT names no Debian")
def test_it_is_installed_and_purged_without_a_trace(package: Path) -> None:
    root = Path(DEBIAN or "")
    shutil.copy(package, root / "tmp")
    inside = ("chroot", root)
    try:
        run(*inside, "dpkg", "--install", f"/tmp/{package.name}")
        assert "join" in run(*inside, PACKAGE, "--help")
        state = root / "var/lib/edgetrain-client"
        assert state.stat().st_mode & 0o777 == 0o750
        run(*inside, "runuser", "-u", PACKAGE, "--", "touch", "/var/lib/edgetrain-client/node.key")
        # Once more over itself, as an upgrade would come.
        run(*inside, "dpkg", "--install", f"/tmp/{package.name}")
        run(*inside, "dpkg", "--remove", PACKAGE)
        assert (state / "node.key").exists()
    finally:
        run(*inside, "dpkg", "--purge", PACKAGE)
        (root / "tmp" / package.name).unlink()
    left = run(
        "find", root, "-path", root / "proc", "-prune", "-o", "-name", "*edgetrain*", "-print"
    )
    assert left == ""
