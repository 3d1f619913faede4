"""The file that remembers what a worker needed here, and under which conditions it was measured.

It only ever saves time: one that is missing, damaged, from other conditions, or cannot be written,
means a new measurement and is no error.
"""

from __future__ import annotations

import contextlib
import json
import os
import site
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from edgetrain._version import __version__
from edgetrain.errors import PayloadError, StorageError
from edgetrain.fields import check_fields, text, whole
from edgetrain.memory_profiler.kernel_files import text_of
from edgetrain.memory_profiler.memory import worker_environment
from edgetrain.storage import replace_file
from edgetrain.tensorfile import parse_json

__all__ = [
    "PACKAGES",
    "Probe",
    "cache_home",
    "conditions",
    "files_behind",
    "forget",
    "recall",
    "remember",
]

NAME = "worker_memory.json"
PACKAGES = (
    "edgetrain",
    "edgetrain.client",
    "edgetrain.data",
    "edgetrain.memory_profiler",
    "edgetrain.ops",
)
"""Where the modules lie that a worker loads."""
NATIVE = "edgetrain._native"
VARIABLES = ("EDGETRAIN_ISA", "GLIBC_TUNABLES", "LANG", "LC_", "LD_", "MALLOC_", "PYTHON")
"""How the names begin of the variables that change what a worker loads or how it allocates."""
HUGE_PAGES = Path("/sys/kernel/mm/transparent_hugepage/enabled")
LIBC = "CS_GNU_LIBC_VERSION"
MAX_BYTES = 1 << 12
MAX_CONDITIONS = 64
MEMORY = whole(1, 1 << 40)


class Probe(NamedTuple):
    """What a worker that trained next to nothing took: peak and private memory, in bytes."""

    peak: int
    private: int


def cache_home() -> Path | None:
    """Return the folder for what can be found out again; it need not exist. None without a home."""
    for variable, within in (
        ("EDGETRAIN_CACHE", ""),
        ("CACHE_DIRECTORY", ""),
        ("XDG_CACHE_HOME", "edgetrain"),
    ):
        # systemd lists the folders of a unit with colons.
        if given := os.environ.get(variable, "").partition(":")[0]:
            return Path(given) / within
    try:
        return Path.home() / ".cache" / "edgetrain"
    except RuntimeError:
        return None


def conditions(worker: str) -> str:
    """Return a digest of all that the memory of an idle worker depends on.

    That is this package, the interpreter and what is installed beside it, the machine, its kernel
    and C library, and the environment that a worker is given.
    """
    # Who asks for a plan, and has been told what a worker needs, does without.
    from hashlib import sha256  # noqa: PLC0415

    libc = os.confstr(LIBC) if LIBC in os.confstr_names else None
    machine = (*os.uname(), libc, os.cpu_count(), os.sysconf("SC_PAGE_SIZE"), text_of(HUGE_PAGES))
    chosen = sorted(
        (name, value) for name, value in worker_environment().items() if name.startswith(VARIABLES)
    )
    told = (__version__, worker, sys.version, machine, chosen, sorted(files_behind()))
    return sha256(repr(told).encode()).hexdigest()


def files_behind() -> Iterator[tuple[str, int, int]]:
    """Yield path, size and time of change of the files that a worker is made of."""
    paths = [Path(sys.executable), *map(Path, site.getsitepackages())]
    for package in PACKAGES:
        spec = find_spec(package)
        for folder in (spec and spec.submodule_search_locations) or ():
            paths.extend(Path(folder).glob("*.py"))
    native = find_spec(NATIVE)
    if native and native.origin:
        paths.append(Path(native.origin))
    for path in paths:
        with contextlib.suppress(OSError):
            about = path.stat()
            yield str(path), about.st_size, about.st_mtime_ns


def recall(under: str, samples: int) -> tuple[Probe, ...] | None:
    """Return what so many workers needed under these conditions, or None where nobody knows."""
    home = cache_home()
    if home is None:
        return None
    try:
        with (home / NAME).open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
        if len(raw) > MAX_BYTES:
            return None
        rules = {"conditions": text(MAX_CONDITIONS), "probes": probes_of}
        found = check_fields(parse_json(raw.decode("ascii")), rules, "probe")
    except (OSError, UnicodeDecodeError, PayloadError):
        return None
    known: tuple[Probe, ...] = found["probes"]
    return known if found["conditions"] == under and len(known) == samples else None


def remember(under: str, probes: tuple[Probe, ...]) -> None:
    """Keep what workers needed under these conditions, in place of what was known before."""
    home = cache_home()
    if home is None:
        return
    told = {"conditions": under, "probes": probes}
    with contextlib.suppress(OSError, StorageError):
        home.mkdir(parents=True, exist_ok=True)
        replace_file(home / NAME, [json.dumps(told).encode() + b"\n"], durable=False)


def forget() -> None:
    """Remove the file."""
    if home := cache_home():
        with contextlib.suppress(OSError):
            (home / NAME).unlink()


def probes_of(name: str, value: object) -> tuple[Probe, ...]:
    """Return the measurements that JSON holds; a rule like those of edgetrain.fields."""
    if not isinstance(value, list) or not all(
        isinstance(pair, list) and len(pair) == len(Probe._fields) for pair in value
    ):
        raise PayloadError(f"{name} are not pairs of bytes")
    return tuple(Probe(*(MEMORY(name, size) for size in pair)) for pair in value)
