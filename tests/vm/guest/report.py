"""A pytest plugin: every result, as a line of JSON on the serial port that the host reads."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

PORT = Path("/dev/ttyS1")


def tell(**fields: Any) -> None:
    """Send one line to the host."""
    with PORT.open("w") as port:
        print(json.dumps(fields), file=port)


def pytest_collectreport(report: pytest.CollectReport) -> None:
    """Tell why a file could not be read."""
    if report.failed:
        tell(test=report.nodeid, outcome="failed", seconds=0, detail=report.longreprtext)


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Tell what became of a test, and of its fixtures where they failed or skipped it."""
    if report.when == "call" or report.outcome != "passed":
        tell(
            test=report.nodeid,
            outcome=report.outcome,
            seconds=round(report.duration, 2),
            detail=report.longreprtext,
            properties=dict(report.user_properties),
        )


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Tell that there is no more; without this line the run did not end as it should."""
    tell(finished=int(exitstatus), tests=session.testscollected)
