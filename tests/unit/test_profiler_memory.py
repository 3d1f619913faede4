"""Memory readers: right on this kernel, and honest about trees of fixtures."""

from __future__ import annotations

import mmap
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgetrain.errors import DataError
from edgetrain.memory_profiler.memory import (
    available_bytes,
    peak_bytes,
    private_bytes,
    reset_peak,
    resident_bytes,
    worker_command,
    worker_environment,
)

Reader = Callable[[Path], int | None]
READERS = {"VmHWM": peak_bytes, "VmRSS": resident_bytes, "VmData": private_bytes}
MIB = 2**20
# Pages that the interpreter itself touches or gives back while a test measures.
NOISE = MIB

V2 = "30 23 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n"
V1 = "35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory\n"
OTHER = (
    "22 1 8:1 / / rw - ext4 /dev/root rw\n36 31 0:33 / /sys/fs/cgroup/pids rw - cgroup x rw,pids\n"
)


def write(root: Path, files: dict[str, str]) -> Path:
    """Lay out a tree of fixtures."""
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def group(folder: str, limit: str, usage: int, idle: int = 0) -> dict[str, str]:
    """Return the files of a version 2 control group."""
    return {
        f"sys/fs/cgroup{folder}/memory.max": f"{limit}\n",
        f"sys/fs/cgroup{folder}/memory.current": f"{usage}\n",
        f"sys/fs/cgroup{folder}/memory.stat": f"anon 5\ninactive_file {idle}\n",
    }


# This kernel.


def test_the_peak_follows_memory_that_is_touched_and_forgets_it_when_reset() -> None:
    if not reset_peak():
        pytest.skip("this kernel does not let a process restart its peak")
    before = peak_bytes()
    assert before is not None
    block = mmap.mmap(-1, 32 * MIB, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    for page in range(0, len(block), mmap.PAGESIZE):
        block[page] = 1
    block.close()
    after = peak_bytes()
    assert after is not None
    assert after - before == pytest.approx(32 * MIB, abs=NOISE)
    assert reset_peak()
    forgotten = peak_bytes()
    assert forgotten is not None
    assert forgotten - before < NOISE


def test_a_child_is_not_blamed_for_its_parent() -> None:
    held = bytearray(b"\x01" * (64 * MIB))
    code = "from edgetrain.memory_profiler.memory import peak_bytes; print(peak_bytes())"
    answer = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd="/"
    )
    assert int(answer.stdout) < len(held)


def test_resident_memory_is_at_most_the_peak() -> None:
    now, peak = resident_bytes(), peak_bytes()
    assert now is not None
    assert peak is not None
    # The kernel counts per processor and settles the counts lazily.
    assert 0 < now <= peak + NOISE


def test_this_machine_has_memory_left() -> None:
    left = available_bytes()
    assert left is not None
    assert left > 0


# Trees of fixtures: process readers.


@pytest.mark.parametrize("name", READERS)
def test_kilobytes_become_bytes(name: str, tmp_path: Path) -> None:
    write(tmp_path, {"proc/self/status": f"Name:\tx\n{name}:\t   123 kB\n"})
    assert READERS[name](tmp_path) == 123 * 1024


@pytest.mark.parametrize("reader", [*READERS.values(), available_bytes])
@pytest.mark.parametrize("text", [None, "", "Name:\tkernel thread\n"])
def test_what_is_not_told_is_unknown(reader: Reader, text: str | None, tmp_path: Path) -> None:
    names = ("status", "cgroup", "mountinfo") if text == "" else ("status",)
    write(tmp_path, {f"proc/self/{name}": text for name in names if text is not None})
    assert reader(tmp_path) is None


@pytest.mark.parametrize("name", READERS)
@pytest.mark.parametrize("value", ["many kB", "-5 kB", "12 MB", "12", "", "1.5 kB", "١ kB"])
def test_garbage_is_named(name: str, value: str, tmp_path: Path) -> None:
    write(tmp_path, {"proc/self/status": f"{name}:\t{value}\n"})
    with pytest.raises(DataError, match=rf"proc/self/status.*{name}"):
        READERS[name](tmp_path)


def test_bytes_that_are_no_text_are_named(tmp_path: Path) -> None:
    write(tmp_path, {"proc/self/status": ""})
    (tmp_path / "proc/self/status").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match="not text"):
        peak_bytes(tmp_path)


def test_a_peak_that_cannot_be_reset_says_so(tmp_path: Path) -> None:
    assert reset_peak(tmp_path) is False


# Trees of fixtures: what is left.


def test_without_groups_it_is_what_the_kernel_says(tmp_path: Path) -> None:
    write(tmp_path, {"proc/meminfo": "MemFree: 1 kB\nMemAvailable:   2000 kB\n"})
    assert available_bytes(tmp_path) == 2000 * 1024


def test_version_2_takes_the_tightest_of_all_ancestors(tmp_path: Path) -> None:
    write(
        tmp_path,
        {
            "proc/meminfo": "MemAvailable: 1000000 kB\n",
            "proc/self/cgroup": "0::/fleet/worker\n",
            "proc/self/mountinfo": OTHER + V2,
            **group("/fleet/worker", "max", 10),
            **group("/fleet", "1000", 700, idle=100),
            **group("/", "5000", 10),
        },
    )
    assert available_bytes(tmp_path) == 1000 - (700 - 100)


def test_version_1_counts_its_own_files_and_no_limit_as_none(tmp_path: Path) -> None:
    folder = "sys/fs/cgroup/memory"
    write(
        tmp_path,
        {
            "proc/self/cgroup": "8:pids:/\n4:memory:/box\n0::/elsewhere\n",
            "proc/self/mountinfo": OTHER + V1,
            f"{folder}/memory.limit_in_bytes": "9223372036854771712\n",
            f"{folder}/memory.usage_in_bytes": "999\n",
            f"{folder}/box/memory.limit_in_bytes": "4096\n",
            f"{folder}/box/memory.usage_in_bytes": "4000\n",
            f"{folder}/box/memory.stat": "total_inactive_file 1000\n",
        },
    )
    assert available_bytes(tmp_path) == 1096


def test_inside_a_container_the_mount_shows_part_of_the_tree(tmp_path: Path) -> None:
    write(
        tmp_path,
        {
            "proc/self/cgroup": "4:memory:/docker/abc/inner\n",
            "proc/self/mountinfo": V1.replace(" / /sys", " /docker/abc /sys"),
            "sys/fs/cgroup/memory/memory.limit_in_bytes": "500\n",
            "sys/fs/cgroup/memory/memory.usage_in_bytes": "100\n",
            "sys/fs/cgroup/memory/inner/memory.limit_in_bytes": "300\n",
            "sys/fs/cgroup/memory/inner/memory.usage_in_bytes": "100\n",
        },
    )
    assert available_bytes(tmp_path) == 200


def test_a_full_group_leaves_nothing_rather_than_less(tmp_path: Path) -> None:
    write(
        tmp_path,
        {
            "proc/self/cgroup": "0::/\n",
            "proc/self/mountinfo": V2,
            **group("", "100", 150),
        },
    )
    assert available_bytes(tmp_path) == 0


@pytest.mark.parametrize(
    ("files", "named"),
    [
        ({"proc/meminfo": "MemAvailable: lots\n"}, "MemAvailable"),
        ({"proc/self/cgroup": "nonsense\n"}, "proc/self/cgroup"),
        ({"proc/self/cgroup": "0::/\n", "proc/self/mountinfo": "nonsense\n"}, "mountinfo"),
        (
            {
                "proc/self/cgroup": "0::/\n",
                "proc/self/mountinfo": V2,
                **group("", "unlimited", 1),
            },
            "memory.max",
        ),
    ],
)
def test_garbage_in_the_tree_is_named(files: dict[str, str], named: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=named):
        available_bytes(write(tmp_path, files))


@settings(max_examples=200)
@given(
    st.dictionaries(
        st.sampled_from(["meminfo", "self/cgroup", "self/mountinfo", "self/status"]),
        st.text(alphabet="0123456789:/- kBcgroup2memory\nVmHWMRSSAvail,.", max_size=60),
    )
)
def test_any_text_is_a_figure_unknown_or_a_clear_error(
    tmp_path_factory: pytest.TempPathFactory, files: dict[str, str]
) -> None:
    root = tmp_path_factory.mktemp("root")
    write(root, {f"proc/{name}": text for name, text in files.items()})
    for reader in (available_bytes, peak_bytes, resident_bytes):
        try:
            found = reader(root)
        except DataError:
            continue
        assert found is None or found >= 0


# How a worker starts.


def test_a_worker_starts_where_nothing_can_shadow_it_with_a_frugal_allocator(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    command = worker_command("some.worker", "--probe")
    assert command[0] == sys.executable
    assert command[-3:] == ["-m", "some.worker", "--probe"]
    assert {"-P", "-s"} <= set(command)
    monkeypatch.delenv("MALLOC_TRIM_THRESHOLD_", raising=False)
    assert worker_environment()["MALLOC_TRIM_THRESHOLD_"] == "131072"
    monkeypatch.setenv("MALLOC_TRIM_THRESHOLD_", "1")
    assert worker_environment()["MALLOC_TRIM_THRESHOLD_"] == "1", "the owner knows better"


def test_the_readers_cost_a_worker_nothing_heavy() -> None:
    heavy = {"numpy", "psutil", "subprocess", "typer", "rich", "statistics", "difflib"}
    code = "import edgetrain.memory_profiler.choose, sys; print(*sys.modules)"
    answer = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd="/"
    )
    assert not heavy & set(answer.stdout.split())
