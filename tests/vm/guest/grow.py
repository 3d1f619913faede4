"""Tells the limits of the control group that it is in, then touches so many bytes.

python3 grow.py BYTES
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

FILES = ("memory.max", "memory.high", "memory.swap.max", "memory.oom.group")


def main(held: int) -> None:
    """Print the kernel's own files, then hold pages of a file that lies in memory."""
    path = Path("/proc/self/cgroup").read_text().strip().removeprefix("0::/")
    group = Path("/sys/fs/cgroup") / path
    print(json.dumps({name: (group / name).read_text().strip() for name in FILES}), flush=True)
    os.posix_fallocate(os.memfd_create("held"), 0, held)


if __name__ == "__main__":
    main(int(sys.argv[1]))
