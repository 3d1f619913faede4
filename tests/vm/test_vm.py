"""The tests in guest/, inside of an emulated machine with systemd and cgroup v2."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

RUN = Path(__file__).with_name("run.py")
ALL = {path.stem.removeprefix("test_") for path in RUN.parent.glob("guest/test_*.py")}
SCENARIOS = sorted(ALL - {path.stem for path in RUN.parent.glob("host/*.py")})
"""Those that run.py does without a name; others take minutes each: make vm-test SCENARIOS=links."""
MISSING = 2
"""The exit code of run.py where this computer lacks something."""

pytestmark = pytest.mark.skipif(
    os.environ.get("EDGETRAIN_VM") != "1",
    reason="an emulated machine takes minutes: make vm-test, or EDGETRAIN_VM=1",
)


@pytest.fixture(scope="module")
def results() -> list[dict[str, Any]]:
    """Boot the machine once and return what it reported."""
    done = subprocess.run(
        [sys.executable, RUN, "--json"], capture_output=True, text=True, check=False
    )
    if done.returncode == MISSING:
        pytest.skip(done.stderr.strip())
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert lines, done.stderr
    assert "finished" in lines[-1], done.stderr
    return lines[:-1]


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_the_scenario_passes_in_the_machine(scenario: str, results: list[dict[str, Any]]) -> None:
    own = [line for line in results if line["test"].startswith(f"test_{scenario}.py")]
    assert own
    assert not [line["detail"] for line in own if line["outcome"] == "failed"]
