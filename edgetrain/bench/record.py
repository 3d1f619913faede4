"""Records of a benchmark: what was measured, on which machine, when."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from edgetrain.storage import replace_file

__all__ = ["machine", "write_record"]

CPUINFO = Path("/proc/cpuinfo")


def machine() -> dict[str, Any]:
    """Return what this machine is: processor, cores, kernel, and the versions that matter."""
    return {
        "processor": processor(),
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "python": platform.python_version(),
        "torch": installed("torch"),
    }


def processor() -> str:
    """Return the processor's own name, or its architecture where it tells none."""
    if CPUINFO.exists():
        for line in CPUINFO.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.machine()


def installed(package: str) -> str | None:
    """Return the version of a package, or None where it is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def write_record(path: Path, command: str, result: Mapping[str, Any]) -> None:
    """Write the result as JSON, with the command that made it, the machine and the date (UTC)."""
    record = {
        "command": command,
        "date": datetime.now(UTC).date().isoformat(),
        "machine": machine(),
        **result,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_file(path, [json.dumps(record, indent=2).encode() + b"\n"])
