"""What an idle worker needs: measured in real processes, and remembered while nothing changes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgetrain.errors import WorkerError
from edgetrain.memory_profiler import probe_file
from edgetrain.memory_profiler.memory import WORKER
from edgetrain.memory_profiler.probe import (
    PROBE_SAMPLES,
    forget_probes,
    probe_base,
    probe_private,
)
from edgetrain.memory_profiler.probe_file import (
    Probe,
    cache_home,
    conditions,
    files_behind,
    recall,
    remember,
)

KNOWN = tuple(Probe(1000 + one, 10 + one) for one in range(PROBE_SAMPLES))
SHOW = "import sys; from edgetrain.memory_profiler.probe import *; print(probe_base(sys.argv[1]))"


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Let each test begin without anything that is known."""
    monkeypatch.setenv("EDGETRAIN_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str) -> str:
    """Return the name of a module that stands for the worker."""
    name = f"worker_{tmp_path.name}"
    (tmp_path / f"{name}.py").write_text(code)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return name


def counting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[str, Path]:
    """Return the name of a worker that needs another peak each time, and a log of its starts."""
    log = tmp_path / "log"
    log.write_text("")
    code = (
        "import sys\n"
        "assert sys.argv[1:] == ['--probe']\n"
        f"log = open({str(log)!r}, 'r+')\n"
        "calls = len(log.read())\n"
        "log.write('x')\n"
        "print([500, 100, 300, 200, 400][calls % 5], 10 * (calls % 5) + 1)\n"
    )
    return worker(tmp_path, monkeypatch, code), log


def asked_by_another_process(name: str, **environment: str) -> int:
    """Return what a process of its own says of a worker's base."""
    answer = subprocess.run(
        [sys.executable, "-c", SHOW, name],
        env=os.environ | environment, capture_output=True, text=True, check=True, cwd="/",
    )  # fmt: skip
    return int(answer.stdout)


def test_it_is_the_median_of_fresh_processes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, log = counting(tmp_path, monkeypatch)
    assert probe_base(name) == 300
    assert probe_base(name) == 300
    assert probe_private(name) == 41
    assert log.read_text() == "x" * PROBE_SAMPLES, "measured once in the life of this process"


def test_another_process_measures_only_where_something_changed_or_was_forgotten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, log = counting(tmp_path, monkeypatch)
    assert [asked_by_another_process(name) for _ in range(2)] == [300, 300]
    assert log.read_text() == "x" * PROBE_SAMPLES
    asked_by_another_process(name, MALLOC_ARENA_MAX="1")
    assert log.read_text() == "x" * 2 * PROBE_SAMPLES
    asked_by_another_process(name, MALLOC_ARENA_MAX="1")
    forget_probes()
    assert log.read_text() == "x" * 2 * PROBE_SAMPLES
    asked_by_another_process(name, MALLOC_ARENA_MAX="1")
    assert log.read_text() == "x" * 3 * PROBE_SAMPLES


def test_where_nothing_can_be_kept_it_is_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, log = counting(tmp_path, monkeypatch)
    monkeypatch.setenv("EDGETRAIN_CACHE", str(log / "within a file"))
    assert probe_base(name) == 300


@pytest.mark.parametrize(
    ("code", "named"),
    [
        ("raise SystemExit('out of order')", "ended with 1 .*out of order"),
        ("print('none')", "none"),
        ("print(500)", "500"),
        ("print(500, None)", "None"),
        ("", "no output"),
        ("import missing_module", "missing_module"),
    ],
)
def test_a_worker_that_does_not_answer_is_named(
    code: str, named: str, tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = worker(tmp_path, monkeypatch, code)
    with pytest.raises(WorkerError, match=named):
        probe_base(name)
    assert not home.exists(), "no answer is nothing to remember"


def test_every_module_that_a_worker_loads_is_among_the_conditions() -> None:
    code = (
        "import sys; from edgetrain.client.worker import main; main(['--probe'])\n"
        "ours = [m for name, m in sys.modules.items() if name.partition('.')[0] == 'edgetrain']\n"
        "print(*[m.__file__ for m in ours if m.__file__], sep='\\n')\n"
    )
    answer = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd="/"
    )
    loaded = {str(Path(line)) for line in answer.stdout.splitlines()[1:]}
    assert len(loaded) > len(probe_file.PACKAGES)
    assert loaded <= {path for path, _, _ in files_behind()}


def test_other_conditions_are_told_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / f"package_{tmp_path.name}"
    package.mkdir()
    module = package / "__init__.py"
    module.write_text("one = 1\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(probe_file, "PACKAGES", (package.name,))
    found = [conditions(WORKER), conditions(WORKER)]
    assert found[0] == found[1], "nothing has changed"

    module.write_text("one = 11\n")
    found.append(conditions(WORKER))
    os.utime(module, ns=(0, 0))
    found.append(conditions(WORKER))
    (package / "more.py").touch()
    found.append(conditions(WORKER))
    monkeypatch.setenv("EDGETRAIN_ISA", "portable")
    found.append(conditions(WORKER))
    monkeypatch.setattr(probe_file, "__version__", "another")
    found.append(conditions(WORKER))
    monkeypatch.setattr(sys, "version", "another")
    found.append(conditions(WORKER))
    monkeypatch.setattr(os, "uname", lambda: ("another", "kernel"))
    found.append(conditions(WORKER))
    found.append(conditions("another.worker"))
    assert len(set(found)) == len(found) - 1


def test_what_was_kept_is_known_under_its_own_conditions_alone() -> None:
    remember("these", KNOWN)
    assert recall("these", PROBE_SAMPLES) == KNOWN
    assert recall("those", PROBE_SAMPLES) is None
    assert recall("these", PROBE_SAMPLES - 1) is None
    remember("those", KNOWN[::-1])
    assert recall("those", PROBE_SAMPLES) == KNOWN[::-1]


@given(at=st.integers(0, 1 << 10), rest=st.binary(max_size=80))
def test_a_damaged_file_says_nothing_that_no_worker_could(at: int, rest: bytes) -> None:
    remember("these", KNOWN)
    home = cache_home()
    assert home is not None
    (file,) = home.iterdir()
    raw = file.read_bytes()
    at %= len(raw)
    file.write_bytes(raw[:at] + rest + raw[at + len(rest) :])
    found = recall("these", PROBE_SAMPLES)
    assert found is None or (
        len(found) == PROBE_SAMPLES
        and all(type(size) is int and size > 0 for size in sum(found, ()))
    )
    file.write_bytes(raw[:at])
    assert recall("these", PROBE_SAMPLES) in (None, KNOWN)


def test_it_lies_where_the_owner_or_the_system_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CACHE_DIRECTORY", "/var/cache/one:/var/cache/two")
    monkeypatch.setenv("XDG_CACHE_HOME", "/shared")
    monkeypatch.setenv("HOME", "/home/one")
    monkeypatch.setenv("EDGETRAIN_CACHE", "/chosen")
    found = []
    for variable in ("EDGETRAIN_CACHE", "CACHE_DIRECTORY", "XDG_CACHE_HOME", "HOME"):
        found.append(str(cache_home()))
        monkeypatch.delenv(variable)
    assert found == ["/chosen", "/var/cache/one", "/shared/edgetrain", "/home/one/.cache/edgetrain"]
