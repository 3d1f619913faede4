"""What a scenario has on this computer while the machine runs: host/NAME.py.

That module has `beside`, a context that is given a folder and holds a Side.
"""

from __future__ import annotations

import importlib
import shutil
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Protocol

import pytest

HOST = Path(__file__).with_name("host")
SUPPORT = HOST.parents[1] / "support"


class Side(Protocol):
    """What a scenario has on this computer while the machine runs.

    `files` is the folder that the machine finds as /opt/beside/NAME.
    """

    files: Path

    def check(self) -> None:
        """Raise where the scenario did not end as it should; called when its tests have ended."""
        ...


def has_side(scenario: str) -> bool:
    """Say whether a scenario needs more than the machine."""
    return (HOST / f"{scenario}.py").exists()


@contextmanager
def host_sides(scenarios: list[str], work: Path) -> Iterator[dict[str, Side]]:
    """Run what these scenarios have on this computer; `work` is a folder for their files."""
    sys.path[:0] = map(str, (HOST, SUPPORT))
    with ExitStack() as stack:
        found = {}
        for name in filter(has_side, scenarios):
            folder = work / name
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            module = importlib.import_module(name)
            found[name] = stack.enter_context(module.beside(folder))
        yield found


def verdict(name: str, side: Side) -> dict[str, Any]:
    """Return what came of a scenario's check on this computer, as a test in the machine has it."""
    started, detail = time.monotonic(), ""
    try:
        side.check()
    except (Exception, pytest.fail.Exception):
        detail = traceback.format_exc()
    return {
        "test": f"test_{name}.py::host",
        "outcome": "failed" if detail else "passed",
        "seconds": round(time.monotonic() - started, 2),
        "detail": detail,
    }
