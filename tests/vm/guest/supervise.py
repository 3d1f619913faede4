"""A device's daemon in small: runs one worker in a child cgroup and prints what became of it.

    python3 supervise.py LIMIT ASKED    bytes that the worker may use, and that it touches

Runs in a unit with `Delegate=yes`: the cgroup is its own, but only what holds no process itself
may give controllers to its children. So the supervisor moves to a child first.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

WORKER = "import sys; memory = bytearray(int(sys.argv[1])); memory[::4096] = memory[::4096]"


def own_cgroup() -> Path:
    """Return the folder of this process's cgroup."""
    line = Path("/proc/self/cgroup").read_text().strip()
    return Path("/sys/fs/cgroup") / line.removeprefix("0::/")


def main(limit: int, asked: int) -> None:
    """Run the worker and print its exit status and the counters of its cgroup."""
    unit = own_cgroup()
    daemon, worker = unit / "daemon", unit / "worker"
    daemon.mkdir()
    (daemon / "cgroup.procs").write_text(str(os.getpid()))
    (unit / "cgroup.subtree_control").write_text("+memory")
    worker.mkdir()
    for name, value in (("max", limit), ("swap.max", 0), ("oom.group", 1)):
        (worker / f"memory.{name}").write_text(str(value))
    status = subprocess.run(
        [sys.executable, "-c", WORKER, str(asked)],
        check=False,
        # Born inside: charges do not move with a process.
        preexec_fn=lambda: (worker / "cgroup.procs").write_text(str(os.getpid())) and None,
    ).returncode
    counters = {
        name: (worker / f"memory.{name}").read_text().strip()
        for name in ("peak", "events", "high", "max", "swap.max", "oom.group")
    }
    print(json.dumps({"status": status, "user": os.getuid(), **counters}))


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
