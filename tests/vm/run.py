"""Boots a machine with systemd and cgroup v2 in QEMU, and runs tests inside of it.

    python tests/vm/run.py               every scenario in tests/vm/guest that needs nothing else
    python tests/vm/run.py enforcement   the tests of guest/test_enforcement.py

The machine is made of three parts: a kernel and a base system, built once by build_image.sh and
kept in the user's cache, and this checkout's package with the tests, laid over it at each run. It
is emulated, so that neither KVM nor a privilege is needed. Every result is a line of JSON on a
serial port, see guest/report.py. What the machine said lies in build/vm/console.log.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Annotated, Any

import typer
from sides import has_side, host_sides, verdict

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
GUEST = HERE / "guest"
HOST_TESTS = HERE.parent / "unit"
"""Some of them see in there what they cannot see here."""
UNITS = ROOT / "deploy" / "systemd"
SCRIPT = HERE / "build_image.sh"
WORK = ROOT / "build" / "vm"
CONSOLE = WORK / "console.log"
CONSOLE_LINES = 40
"""Lines of the console that a failure shows."""
TIME_LIMIT = 900
"""Seconds: a run takes a few minutes on a busy machine."""
GUEST_PYTHON = (3, 11)
"""The Python of Debian 12, which the native module is built for."""
SITE = "usr/local/lib/python3.11/dist-packages"
TOOLS = ("pytest", "typer", "rich", "cryptography")
"""What the guest needs beside our package: its tests' runner, and the commands' extra."""
QEMU = "qemu-system-x86_64"
MACHINE = (
    "-accel",
    "tcg",
    "-cpu",
    "max",
    "-m",
    "1024",
    "-smp",
    "2",
    "-nodefaults",
    "-no-reboot",
    "-display",
    "none",
    "-nic",
    "user,model=virtio-net-pci",
)
UNIT = "vm-test.service"
# An emulated timer ticks as the host finds time: a kernel that checks it may find that it does not.
KERNEL_LINE = (
    "console=ttyS0 panic=-1 quiet no_timer_check "
    f"systemd.unit={UNIT} systemd.journald.forward_to_console=1"
)

Line = dict[str, Any]


class MissingError(Exception):
    """This computer lacks what the machine needs; one line that says what to install."""

    exit_code = 2


class FailedError(Exception):
    """The machine could not be built, or its tests did not pass; where to look."""

    exit_code = 1


def image() -> Path:
    """Return the folder of the kernel and the base system, built unless they are in the cache."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = cache / "edgetrain" / "vm" / digest(SCRIPT.read_bytes())
    if not (folder / "base.cpio.zst").exists():
        typer.echo(f"building the base system in {folder}: about a minute, once", err=True)
        done = subprocess.run([SCRIPT, folder], stderr=subprocess.PIPE, text=True, check=False)
        if done.returncode:
            kind = MissingError if done.returncode == MissingError.exit_code else FailedError
            raise kind(done.stderr.strip())
    return folder


def overlay(scenarios: list[str], files: dict[str, Path]) -> bytes:
    """Return an archive, in the format of an initrd, of this checkout's package and the tests.

    `files` has the folders that scenarios find in /opt/beside.
    """
    root = WORK / "overlay"
    shutil.rmtree(root, ignore_errors=True)
    install(root / SITE)
    scripts = root / "usr/local/bin"
    shutil.move(root / SITE / "bin", scripts)
    for script in scripts.iterdir():
        _, rest = script.read_text().split("\n", 1)
        script.write_text(f"#!/usr/bin/python3\n{rest}")
    tests = root / "opt/vm"
    shutil.copytree(GUEST, tests, ignore=shutil.ignore_patterns("__pycache__"))
    for test in tests.glob("test_*.py"):
        if test.stem.removeprefix("test_") not in scenarios:
            test.unlink()
    shutil.copytree(HOST_TESTS, root / "opt/host")
    shutil.copytree(UNITS, root / "opt/units")
    for name, folder in files.items():
        shutil.copytree(folder, root / "opt/beside" / name)
    units = root / "etc/systemd/system"
    units.mkdir(parents=True)
    shutil.move(tests / UNIT, units)
    names = "".join(f"{path.relative_to(root)}\0" for path in sorted(root.rglob("*")))
    return subprocess.run(
        ["cpio", "--null", "--create", "--format=newc", "--owner=+0:+0", "--quiet"],
        cwd=root,
        input=names.encode(),
        capture_output=True,
        check=True,
    ).stdout


def install(site: Path) -> None:
    """Build the wheel and install it, with what the guest needs beside it."""
    # A build folder of its own: the next run compiles only what has changed.
    build = f"--config-settings=build-dir={WORK / 'native'}"
    pip_install(site, "--no-build-isolation", "--no-deps", build, str(ROOT))
    pins = ROOT / "constraints.txt"
    tools = WORK / f"tools-{digest(pins.read_bytes(), *map(str.encode, TOOLS))}"
    if not tools.exists():
        pip_install(tools, f"--constraint={pins}", *TOOLS)
    shutil.copytree(tools, site, dirs_exist_ok=True)


def pip_install(target: Path, *what: str) -> None:
    """Install packages into a folder, whole or not at all."""
    part = target.with_name(f"{target.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
    done = subprocess.run(
        [*command, "--target", part, *what], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise FailedError(f"packages could not be installed:\n{done.stdout}{done.stderr}")
    part.rename(target)


def digest(*parts: bytes) -> str:
    """Return a name that changes with what it is made of."""
    return sha256(b"\0".join(parts)).hexdigest()[:12]


def boot(scenarios: list[str], limit: float) -> Iterator[Line]:
    """Boot the machine, with what it needs beside it, and yield what both report."""
    with host_sides(scenarios, WORK / "host") as sides:
        files = {name: side.files for name, side in sides.items()}
        for line in machine(scenarios, files, limit):
            if line.get("finished") == 0:
                verdicts = [verdict(name, side) for name, side in sides.items()]
                yield from verdicts
                line["finished"] = sum(one["outcome"] == "failed" for one in verdicts)
            yield line


def machine(scenarios: list[str], files: dict[str, Path], limit: float) -> Iterator[Line]:
    """Boot the machine and yield what it reports, until it has ended or was ended."""
    folder = image()
    CONSOLE.unlink(missing_ok=True)
    initrd = WORK / "initrd"
    base = (folder / "base.cpio.zst").read_bytes()
    # The kernel looks for the next archive at a multiple of four bytes, past zeros.
    initrd.write_bytes(base + bytes(-len(base) % 4) + overlay(scenarios, files))
    kernel = ["-kernel", str(folder / "vmlinuz"), "-append", KERNEL_LINE]
    booted = [*kernel, "-initrd", str(initrd)]
    ports = ["-serial", f"file:{CONSOLE}", "-serial", "stdio"]
    with subprocess.Popen(
        ["nice", QEMU, *MACHINE, *booted, *ports],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
    ) as emulator:
        timer = threading.Timer(limit, emulator.kill)
        timer.start()
        try:
            assert emulator.stdout
            for text in emulator.stdout:
                yield json.loads(text)
        finally:
            timer.cancel()
            emulator.kill()


def chosen(scenarios: list[str]) -> list[str]:
    """Return the scenarios named; without any, all that have no side on this computer.

    Raises MissingError where this computer cannot run them, FailedError for an unknown one.
    """
    for program, package in ((QEMU, "qemu-system-x86"), ("cpio", "cpio")):
        if shutil.which(program) is None:
            raise MissingError(f"{program} is missing: install Debian's package {package}")
    if sys.version_info[:2] != GUEST_PYTHON:
        version = ".".join(map(str, GUEST_PYTHON))
        raise MissingError(
            f"the machine's Python is {version}: make vm-test PYTHON=python{version}"
        )
    known = sorted(path.stem.removeprefix("test_") for path in GUEST.glob("test_*.py"))
    for name in scenarios:
        if name not in known:
            raise FailedError(f"no scenario {name!r}: choose among {', '.join(known)}")
    return scenarios or [name for name in known if not has_side(name)]


def judge(lines: list[Line], limit: float) -> None:
    """Raise FailedError unless the machine came to its end and every test passed."""
    end = lines[-1] if lines else {}
    if "finished" not in end:
        said = CONSOLE.read_text(errors="replace") if CONSOLE.exists() else ""
        last = "\n".join(said.splitlines()[-CONSOLE_LINES:])
        raise FailedError(
            f"{last}\nthe machine ended early, or was ended after {limit:.0f} s: {CONSOLE}"
        )
    if end["finished"]:
        raise FailedError(f"tests failed: what the machine said is in {CONSOLE}")


def show(line: Line) -> None:
    """Print a result for people."""
    if "test" in line:
        typer.echo(f"{line['outcome']:>7} {line['seconds']:6.1f} s  {line['test']}")
    for name, value in line.get("properties", {}).items():
        typer.echo(f"{'':19}{name}: {value}".rstrip())
    if line.get("outcome") == "failed":
        typer.echo(line["detail"])


def run(
    scenarios: Annotated[list[str] | None, typer.Argument(metavar="[NAME]...")] = None,
    limit: Annotated[float, typer.Option(help="Seconds after which the machine is ended.")] = (
        TIME_LIMIT
    ),
    json_lines: Annotated[
        bool, typer.Option("--json", help="Print results as JSON lines.")
    ] = False,
) -> None:
    """Run tests/vm/guest/test_NAME.py in an emulated machine with systemd and cgroup v2.

    Without a name it runs those that need the machine alone: not `links`, which takes minutes.

    Exits with 0 where all passed, with 2 where this computer lacks something, else with 1.
    """
    started = time.monotonic()
    lines: list[Line] = []
    try:
        for line in boot(chosen(scenarios or []), limit):
            lines.append(line)
            if json_lines:
                typer.echo(json.dumps(line))
            else:
                show(line)
        judge(lines, limit)
    except (MissingError, FailedError) as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(error.exit_code) from error
    typer.echo(f"{lines[-1]['tests']} tests in {time.monotonic() - started:.0f} s", err=True)


if __name__ == "__main__":
    typer.run(run)
