"""How every command of ours ends: a result, or one line that says what to do.

The commands `edgetrain`, `edgetrain-coordinator` and `edgetrain-profile` are typer applications;
`edgetrain-client`, which runs where there is nothing but the standard library, is an argparse
parser. Their entry points call `run_command` and `run_parser`, so that a mistake looks the same
everywhere: `error: cause: cure` on stderr and the exit code of its kind, never a traceback.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, NoReturn

from edgetrain.errors import EdgetrainError

if TYPE_CHECKING:
    import argparse

    import typer

__all__ = ["DEBUG_VARIABLE", "fleet_extra", "run_command", "run_parser"]

DEBUG_FLAG = "--debug"
DEBUG_VARIABLE = "EDGETRAIN_DEBUG"
DEBUG_HELP = f"Put {DEBUG_FLAG} anywhere, or set {DEBUG_VARIABLE}=1, to see an error's traceback."


@contextmanager
def fleet_extra(command: str) -> Iterator[None]:
    """End the process with one line that says what to install, where an import in here fails.

    A device's installation has no command line; whoever calls a command there is told of it.
    """
    try:
        yield
    except ModuleNotFoundError as missing:
        raise SystemExit(
            f"error: {command} needs {missing.name}: pip install 'edgetrain[fleet]'"
        ) from None


def run_command(app: typer.Typer, arguments: Sequence[str] | None = None) -> NoReturn:
    """Run a typer application and end the process with the exit code that fits.

    `arguments` are those of the command line unless given. `--debug` is taken out of them
    wherever it stands before a bare `--`; with it, or with EDGETRAIN_DEBUG=1, the traceback is
    printed above the line. An EdgetrainError ends with its own exit code, any other exception with
    that of EdgetrainError; typer's own errors (a wrong option) keep typer's.
    """
    debug, rest = split_debug(sys.argv[1:] if arguments is None else arguments)
    if not isinstance(app.info.epilog, str):
        app.info.epilog = DEBUG_HELP
    end_with(lambda: app(args=rest), debug=debug)


def run_parser(parser: argparse.ArgumentParser, arguments: Sequence[str] | None = None) -> NoReturn:
    """Do what a command line of the standard library asks, and end as run_command does.

    The options that the parser returns have `run`, which is called with them.
    """
    debug, rest = split_debug(sys.argv[1:] if arguments is None else arguments)
    parser.epilog = parser.epilog or DEBUG_HELP
    options = parser.parse_args(rest)
    end_with(lambda: options.run(options), debug=debug)


def end_with(command: Callable[[], object], *, debug: bool) -> NoReturn:
    """Do a command and end the process with the exit code that fits."""
    try:
        command()
    except Exception as error:
        if debug:
            traceback.print_exception(error)
        line, code = describe(error)
        print(f"error: {' '.join(line.split())}", file=sys.stderr)
        sys.exit(code)
    sys.exit(0)


def describe(error: Exception) -> tuple[str, int]:
    """Return what to say of an error, and the exit code to end with."""
    if isinstance(error, EdgetrainError):
        return str(error), error.exit_code
    return (
        f"internal error, {type(error).__name__}: {error}: this is a fault of edgetrain, not "
        f"yours; run it again with {DEBUG_FLAG} and report what it prints",
        EdgetrainError.exit_code,
    )


def split_debug(arguments: Sequence[str]) -> tuple[bool, list[str]]:
    """Return whether tracebacks are wanted, and the arguments without the flag that says so."""
    end = arguments.index("--") if "--" in arguments else len(arguments)
    ours = [argument for argument in arguments[:end] if argument != DEBUG_FLAG]
    wanted = len(ours) < end or os.environ.get(DEBUG_VARIABLE, "") not in ("", "0")
    return wanted, [*ours, *arguments[end:]]
