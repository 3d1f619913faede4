"""What is deployed: units that systemd takes, and commands that exist."""

from __future__ import annotations

import configparser
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import click
import pytest
import typer

from edgetrain.client.__main__ import make_parser
from edgetrain.coordinator.__main__ import app
from edgetrain.errors import ConfigError

DEPLOY = Path(__file__).parents[2] / "deploy"
UNITS = sorted((DEPLOY / "systemd").glob("*.service"))
INSTALLED = "/opt/edgetrain/bin"
BIN = Path(sys.executable).parent
MOST_EXPOSED = {"edgetrain-client": 20, "edgetrain-coordinator": 35}
"""Tenths of systemd's own score, from 0 for what can reach nothing to 100."""
MOST_WATCHDOG_SECONDS = 600
"""A daemon that hangs is to be noticed before the coordinator takes the device for lost."""


class Unit(configparser.ConfigParser):
    """A unit's sections and settings; names are as they are written."""

    def __init__(self, path: Path) -> None:
        # A setting may stand there more than once, as SystemCallFilter= does.
        super().__init__(
            delimiters=("=",), comment_prefixes=("#",), interpolation=None, strict=False
        )
        self.read_string(path.read_text())

    def optionxform(self, optionstr: str) -> str:
        return optionstr


def tool(name: str, package: str) -> str:
    """Return the path of a program, or skip."""
    found = shutil.which(name, path="/usr/sbin:/usr/bin:/sbin:/bin")
    if found is None:
        pytest.skip(f"{name} is missing: install Debian's package {package}")
    return found


def accepted(words: list[str]) -> None:
    """Parse a command line as the command would; nothing is run."""
    name, *arguments = words
    if name == "edgetrain-client":
        make_parser().parse_args(arguments)
        return
    group = typer.main.get_command(app)
    # A context of the group's finds the command, and one of the command's reads its options.
    with group.make_context(name, arguments, resilient_parsing=True) as context:
        assert arguments[0] in group.list_commands(context)
        command = group.get_command(context, arguments[0])
        assert command is not None
        command.make_context(arguments[0], arguments[1:])


@pytest.mark.parametrize("path", UNITS, ids=lambda path: path.stem)
def test_systemd_takes_a_unit(path: Path, tmp_path: Path) -> None:
    analyze = tool("systemd-analyze", "systemd")
    copy = tmp_path / path.name
    copy.write_text(path.read_text().replace(INSTALLED, str(BIN)))
    done = subprocess.run(
        [analyze, "verify", "--man=no", "--recursive-errors=no", copy],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert path.name not in done.stderr, done.stderr


@pytest.mark.parametrize("path", UNITS, ids=lambda path: path.stem)
def test_a_unit_is_as_little_exposed_as_it_was(path: Path) -> None:
    analyze = tool("systemd-analyze", "systemd")
    command = (analyze, "security", "--no-pager", "--offline=true")
    threshold = f"--threshold={MOST_EXPOSED[path.stem]}"
    done = subprocess.run([*command, threshold, path], capture_output=True, text=True, check=False)
    if "unrecognized option" in done.stderr:
        pytest.skip("systemd-analyze is older than 250")
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("path", UNITS, ids=lambda path: path.stem)
def test_a_unit_runs_a_command_that_exists(path: Path) -> None:
    words = shlex.split(Unit(path)["Service"]["ExecStart"])
    assert words[0] == f"{INSTALLED}/{path.stem}"
    accepted([path.stem, *words[1:]])


def test_a_command_that_does_not_exist_is_noticed() -> None:
    with pytest.raises(SystemExit):
        accepted(["edgetrain-client", "run", "--wings", "2"])
    with pytest.raises(click.UsageError):
        accepted(["edgetrain-coordinator", "up", "--wings", "2"])


def test_the_units_users_can_be_made(tmp_path: Path) -> None:
    sysusers = tool("systemd-sysusers", "systemd")
    root = tmp_path / "root"
    (root / "etc").mkdir(parents=True)
    conf = DEPLOY / "systemd" / "sysusers.conf"
    subprocess.run([sysusers, f"--root={root}", conf], check=True, capture_output=True)
    made = {line.partition(":")[0] for line in (root / "etc" / "passwd").read_text().splitlines()}
    assert {Unit(path)["Service"]["User"] for path in UNITS} <= made


def test_the_devices_unit_leaves_the_daemon_what_it_needs() -> None:
    service = Unit(DEPLOY / "systemd" / "edgetrain-client.service")["Service"]
    assert service["Type"] == "notify"
    assert 0 < int(service["WatchdogSec"]) <= MOST_WATCHDOG_SECONDS
    assert service["Delegate"] == "yes"
    # systemd's own choice where groups are delegated: the worker's end is not the unit's.
    assert "OOMPolicy" not in service
    assert "ProtectControlGroups" not in service
    assert service["RestartPreventExitStatus"] == str(ConfigError.exit_code)
    assert service["StateDirectory"] == "edgetrain-client"
    assert service["CacheDirectory"] == "edgetrain-client", "what is measured once is kept"
