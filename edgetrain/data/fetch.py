"""Fetch a data set: through the registry's own client, checked by sha256, resumable.

Under the data folder ($EDGETRAIN_DATA, else $XDG_DATA_HOME/edgetrain, else
~/.local/share/edgetrain)::

    downloads/FILE             an archive that has been checked
    downloads/FILE.partial/    where the client works; kept, so that a client can continue
    NAME/                      the converted set, a folder that `edgetrain.data.folder` reads

Every step that is already done is skipped, and every result is put in place in one rename.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import numpy as np

from edgetrain.data.sources import SOURCES, Archive, Source
from edgetrain.errors import DataError, StorageError

__all__ = ["Progress", "data_home", "download", "fetch", "is_fetched"]

# Called with what is being done, the bytes done, and the bytes in all.
Progress = Callable[[str, int, int], None]

FORMAT = 1  # of a converted folder; raise it when `convert` writes something else
POLL_SECONDS = 0.1
CLIENT_SECONDS = 3600.0
ERROR_LINE = re.compile(r"npm (error|ERR!)|E: |ERROR", re.IGNORECASE)


def data_home() -> Path:
    """Return the folder that fetched data lives in; it need not exist yet."""
    if chosen := os.environ.get("EDGETRAIN_DATA"):
        return Path(chosen).expanduser()
    if shared := os.environ.get("XDG_DATA_HOME"):
        return Path(shared) / "edgetrain"
    return Path.home() / ".local" / "share" / "edgetrain"


def is_fetched(
    name: str, home: Path | None = None, sources: Mapping[str, Source] = SOURCES
) -> bool:
    """Say whether a set is there, whole and of this version."""
    folder = (home or data_home()) / name
    try:
        about = json.loads((folder / "about.json").read_text())
        wanted = (FORMAT, sources[name].archive.sha256)
        return (about["format"], about["sha256"]) == wanted and all(
            (folder / file).stat().st_size == size for file, size in about["files"].items()
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False


def fetch(
    name: str,
    home: Path | None = None,
    progress: Progress | None = None,
    sources: Mapping[str, Source] = SOURCES,
) -> Path:
    """Return the folder of a data set, fetched and converted unless it is there already.

    Raises DataError when the name is unknown, the client fails (offline, not installed) or the
    archive is not the one expected; StorageError when the disk refuses. Running it again
    continues from what was done.
    """
    if name not in sources:
        raise DataError(f"no data set is called {name!r}: fetch one of {', '.join(sources)}")
    source, home = sources[name], home or data_home()
    report = progress or (lambda *_: None)
    folder = home / name
    if is_fetched(name, home, sources):
        return folder
    if folder.exists() and not (folder / "about.json").exists():
        raise DataError(f"{folder} is there and was not fetched: move it, then run it again")
    try:
        (home / "downloads").mkdir(parents=True, exist_ok=True)
        with _only_one(home / "downloads" / f"{name}.lock", name):
            path = download(source.archive, home / "downloads", name, report)
            report(f"converting {name}", 0, 0)
            _install(source, path, folder)
    except OSError as error:
        raise StorageError(
            f"cannot store {name} under {home}: {error.strerror or error}; free some space or set "
            "EDGETRAIN_DATA to another folder, then run it again"
        ) from error
    return folder


def download(archive: Archive, folder: Path, name: str, progress: Progress) -> Path:
    """Return the checked archive in `folder`, downloaded unless it is there. See `fetch`."""
    path = folder / archive.file
    if path.exists() and _sha256(path) == archive.sha256:
        return path
    path.unlink(missing_ok=True)
    partial = folder / f"{archive.file}.partial"
    partial.mkdir(parents=True, exist_ok=True)
    _run_client(archive, partial, name, progress)
    found = partial / archive.file
    if not found.exists():
        raise DataError(
            f"could not fetch {name}: `{' '.join(archive.command)}` left no {archive.file}; "
            f"put that file into {folder} by hand and run it again"
        )
    if (digest := _sha256(found)) != archive.sha256:
        shutil.rmtree(partial, ignore_errors=True)
        raise DataError(
            f"{archive.file} has sha256 {digest[:12]}... and not {archive.sha256[:12]}...: the "
            "download was damaged or changed and is deleted; run it again"
        )
    found.replace(path)
    shutil.rmtree(partial, ignore_errors=True)
    return path


def _run_client(archive: Archive, partial: Path, name: str, progress: Progress) -> None:
    """Run the registry's client in `partial`, and report how the folder grows."""
    command, log = archive.command, partial / "client.log"
    if shutil.which(command[0]) is None:
        raise DataError(
            f"fetching {name} needs {command[0]}: install it, or put {archive.file} into "
            f"{partial.parent} by hand, and run it again"
        )
    with log.open("w+b") as errors:
        process = subprocess.Popen(
            command, cwd=partial, stdin=subprocess.DEVNULL, stdout=errors, stderr=errors
        )
        try:
            waited = 0.0
            while waited < CLIENT_SECONDS:
                try:
                    process.wait(POLL_SECONDS)
                    break
                except subprocess.TimeoutExpired:
                    waited += POLL_SECONDS
                    progress(f"downloading {name}", _size(partial), archive.size)
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
        if process.returncode:
            raise DataError(
                f"could not fetch {name}: {command[0]} said {_reason(errors)!r}; check the "
                f"network, then run it again (what is downloaded is kept), or put {archive.file} "
                f"into {partial.parent} by hand"
            )


def _reason(log: IO[bytes]) -> str:
    """Return the line of a client's output that tells most, at most 160 characters."""
    log.seek(0)
    lines = [line.strip() for line in log.read().decode(errors="replace").splitlines()]
    telling = [line for line in lines if ERROR_LINE.match(line)] or [line for line in lines if line]
    return telling[0][:160] if telling else "nothing"


def _size(folder: Path) -> int:
    total = 0
    for path in folder.rglob("*"):
        try:
            total += path.stat().st_size if path.is_file() else 0
        except FileNotFoundError:  # the client moved it meanwhile
            continue
    return total


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _install(source: Source, archive: Path, folder: Path) -> None:
    """Convert an archive beside `folder` and put it in its place."""
    draft = folder.with_name(f".{folder.name}.tmp")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir()
    try:
        for file, array in source.convert(archive).items():
            np.save(draft / file, array, allow_pickle=False)
        (draft / "classes.json").write_text(json.dumps(source.class_names) + "\n")
        about = {
            "format": FORMAT,
            "name": source.name,
            "about": source.about,
            "licence": source.licence,
            "sha256": source.archive.sha256,
            "files": {path.name: path.stat().st_size for path in sorted(draft.iterdir())},
        }
        (draft / "about.json").write_text(json.dumps(about, indent=2) + "\n")
        shutil.rmtree(folder, ignore_errors=True)
        draft.replace(folder)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


@contextmanager
def _only_one(path: Path, name: str) -> Iterator[None]:
    with path.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise DataError(f"{name} is being fetched by another process: wait for it") from error
        yield
