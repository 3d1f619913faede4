"""A coordinator's memory does not grow with the number of reports that it folds."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "support" / "many_reports.py"
SECONDS = 300
FLAT = 2 << 20
"""Bytes that a process may gain: some pages of its heap. The updates alone are 6.5 kB each, so that
keeping them would take 65 MB."""


@pytest.mark.parametrize(("devices", "rounds"), [(10_000, 1), (50, 40)])
def test_memory_is_flat_while_reports_come_in(devices: int, rounds: int) -> None:
    command = [sys.executable, str(SCRIPT), str(devices), str(rounds)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=True)
    held = json.loads(done.stdout)
    assert held[-1][0] == devices * rounds
    early = max(size for reports, size in held if reports <= devices * rounds // 20)
    assert held[-1][1] - early < FLAT
