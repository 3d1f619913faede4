"""`edgetrain-client`: the device's side of a fleet. It needs nothing but the standard library."""

from __future__ import annotations

import argparse

from edgetrain.client import fleet_cli, record_cli, task_cli
from edgetrain.command import run_parser

__all__ = ["main", "make_parser"]

COMMANDS = (fleet_cli, record_cli, task_cli)
"""Modules whose `add_commands` adds to the command line."""


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(
        prog="edgetrain-client",
        description="The device's side of a fleet: trains on the device's own data, inside a "
        "budget that its owner sets.",
    )
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for module in COMMANDS:
        module.add_commands(commands)
    return parser


def main() -> None:
    """Run the command line."""
    run_parser(make_parser())


if __name__ == "__main__":
    main()
