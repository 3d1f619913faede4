"""Programs run as systemd units."""

from __future__ import annotations

import subprocess


def run_unit(*command: str, **properties: str) -> subprocess.CompletedProcess[str]:
    """Run a command as a transient unit with these properties, and wait for its end."""
    options = [f"--property={name}={value}" for name, value in properties.items()]
    return subprocess.run(
        ["systemd-run", "--quiet", "--wait", "--pipe", "--collect", *options, *command],
        capture_output=True,
        text=True,
        check=False,
    )
