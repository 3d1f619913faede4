"""How the device's commands read and print, with the standard library alone."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

__all__ = ["Commands", "add_command", "in_words", "show"]

Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"
"""What argparse's add_subparsers returns."""


def add_command(
    commands: Commands, name: str, run: Callable[[argparse.Namespace], None]
) -> argparse.ArgumentParser:
    """Add a command that `run` does; its docstring is the help, its first line the summary."""
    text = (run.__doc__ or "").strip()
    lines = [line.strip() for line in text.splitlines()]
    parser = commands.add_parser(
        name,
        help=lines[0],
        description="\n".join(lines),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of text")
    parser.set_defaults(run=run)
    return parser


def show(fields: Mapping[str, Any], *, as_json: bool) -> None:
    """Print fields as a JSON object, or one a line; what is unknown or empty is then left out."""
    if as_json:
        print(json.dumps(fields, indent=2))
        return
    known = {
        name.replace("_", " "): in_words(value)
        for name, value in fields.items()
        if value not in (None, "", {})
    }
    width = max(map(len, known), default=0)
    for name, words in known.items():
        print(f"{name:<{width}}  {words}")


def in_words(value: Any) -> str:
    """Return a value as people read it."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Mapping):
        return ", ".join(f"{name.replace('_', ' ')} {found}" for name, found in value.items())
    return str(value)
