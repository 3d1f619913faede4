"""Control groups: made where we may, refused with a reason elsewhere, on trees of fixtures.

The real ones of this machine are those of test_enforce_supervise.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from edgetrain.errors import DataError, EnforceError
from edgetrain.memory_profiler.enforce import cgroup
from edgetrain.memory_profiler.enforce.cgroup import SUPERVISOR, ChildGroup, make_group
from edgetrain.memory_profiler.enforce.watchdog import Look, Watchdog, descendants

LIMIT = 64 << 20
OWN = str(os.getpid())
V2 = "30 23 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n"
V1 = "35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory\n"
UNIFIED = V2.replace("/sys/fs/cgroup rw", "/sys/fs/cgroup/unified rw")
UNIT = "/system.slice/edgetrain.service"


def write(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def version_2(
    root: Path,
    path: str,
    processes: str = OWN,
    controllers: str = "cpu memory",
    enabled: str = "",
    kind: str | None = "domain\n",
) -> Path:
    """Lay out a tree in which this process is in one group of version 2, and return its folder."""
    group = f"sys/fs/cgroup{path}".rstrip("/")
    files = {
        "proc/self/cgroup": f"0::{path}\n",
        "proc/self/mountinfo": V2,
        f"{group}/cgroup.controllers": f"{controllers}\n",
        f"{group}/cgroup.subtree_control": f"{enabled}\n",
        f"{group}/cgroup.procs": f"{processes}\n",
    }
    if kind is not None:
        files[f"{group}/cgroup.type"] = kind
    return write(root, files) / group


def text(path: Path) -> str:
    return path.read_text().strip()


def test_alone_in_its_group_it_steps_aside_and_makes_another_inside(tmp_path: Path) -> None:
    own = version_2(tmp_path, UNIT)
    group = make_group(LIMIT, tmp_path)
    assert (group.version, group.folder.parent) == (2, own)
    assert text(own / SUPERVISOR / "cgroup.procs") == OWN
    assert text(own / "cgroup.subtree_control") == "+memory"
    assert text(group.folder / "memory.max") == str(LIMIT)
    assert text(group.folder / "memory.swap.max") == "0"
    assert text(group.folder / "memory.oom.group") == "1"
    assert not (group.folder / "memory.high").exists(), "it would stall what should stop"


def test_once_aside_it_makes_groups_beside_its_own(tmp_path: Path) -> None:
    unit = version_2(tmp_path, UNIT, processes="", enabled="memory")
    write(tmp_path, {"proc/self/cgroup": f"0::{UNIT}/{SUPERVISOR}\n"})
    (unit / SUPERVISOR).mkdir()
    first, second = make_group(LIMIT, tmp_path), make_group(LIMIT, tmp_path)
    assert first.folder.parent == second.folder.parent == unit
    assert first.folder != second.folder
    assert text(unit / "cgroup.subtree_control") == "memory", "it was there"


def test_the_topmost_group_may_hold_processes_and_groups(tmp_path: Path) -> None:
    top = version_2(tmp_path, "/", processes="1\n2\n77", kind=None)
    assert make_group(LIMIT, tmp_path).folder.parent == top
    assert not (top / SUPERVISOR).exists()


def test_processes_of_others_are_not_moved(tmp_path: Path) -> None:
    own = version_2(tmp_path, "/user.slice/session.scope", processes=f"{OWN}\n4711")
    with pytest.raises(EnforceError, match=r"processes of others.*Delegate=yes"):
        make_group(LIMIT, tmp_path)
    assert [path for path in own.iterdir() if path.is_dir()] == []
    assert text(own / "cgroup.subtree_control") == ""


def test_a_delegated_group_is_ours_with_all_that_is_in_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = version_2(tmp_path, UNIT, processes=f"{OWN}\n4711")
    marks = {(own, "user.delegate"): b"1"}

    def mark(path: Path, name: str) -> bytes:
        if (path, name) not in marks:
            raise OSError(61, "No data available")
        return marks[path, name]

    monkeypatch.setattr(os, "getxattr", mark)
    assert make_group(LIMIT, tmp_path).folder.parent == own
    assert text(own / SUPERVISOR / "cgroup.procs") in (OWN, "4711")


def test_the_tree_that_counts_memory_is_taken(tmp_path: Path) -> None:
    """A hybrid machine: version 2 is there, but memory is counted by version 1."""
    box = "sys/fs/cgroup/memory/box"
    write(
        tmp_path,
        {
            "proc/self/cgroup": "4:memory:/box\n0::/\n",
            "proc/self/mountinfo": UNIFIED + V1,
            "sys/fs/cgroup/unified/cgroup.controllers": "hugetlb\n",
            f"{box}/memory.limit_in_bytes": "9223372036854771712\n",
        },
    )
    group = make_group(LIMIT, tmp_path)
    assert (group.version, group.folder.parent) == (1, tmp_path / box)
    assert text(group.folder / "memory.limit_in_bytes") == str(LIMIT)
    assert text(group.folder / "memory.memsw.limit_in_bytes") == str(LIMIT)
    assert text(group.folder / "memory.swappiness") == "0"


@pytest.mark.parametrize(
    ("files", "reason"),
    [
        ({}, "in no group that counts memory"),
        ({"proc/self/cgroup": "0::/\n"}, "in no group that counts memory"),
        (
            {"proc/self/cgroup": "0::/a\n", "proc/self/mountinfo": V2},
            "cgroup/a does not count memory",
        ),
        (
            {"proc/self/cgroup": "4:memory:/a\n", "proc/self/mountinfo": V1},
            "cgroup/memory/a does not count memory",
        ),
        (
            {"proc/self/cgroup": "4:memory:/a\n0::/b\n", "proc/self/mountinfo": V1 + UNIFIED},
            "memory/a does not count memory; .*unified/b does not count memory",
        ),
    ],
)
def test_without_a_group_it_says_why(files: dict[str, str], reason: str, tmp_path: Path) -> None:
    with pytest.raises(EnforceError, match=reason):
        make_group(LIMIT, write(tmp_path, files))


def test_a_folder_that_cannot_be_written_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    top = version_2(tmp_path, "/", kind=None)
    monkeypatch.setattr(cgroup, "NUMBERS", iter([7]))
    (top / f"edgetrain-{OWN}-7").write_text("in the way")
    with pytest.raises(EnforceError, match="cgroup is not ours to write: File exists"):
        make_group(LIMIT, tmp_path)


@pytest.mark.parametrize(
    "files",
    [
        {"proc/self/cgroup": "nonsense\n"},
        {"proc/self/cgroup": "0::/\n", "proc/self/mountinfo": "nonsense\n"},
        {
            "proc/self/cgroup": "4:memory:/\n",
            "proc/self/mountinfo": V1,
            "sys/fs/cgroup/memory/memory.limit_in_bytes": "much\n",
        },
    ],
)
def test_garbage_is_refused(files: dict[str, str], tmp_path: Path) -> None:
    with pytest.raises(DataError):
        make_group(LIMIT, write(tmp_path, files))


def test_a_group_above_the_mount_is_not_climbed_to(tmp_path: Path) -> None:
    write(tmp_path, {"proc/self/cgroup": "0::/../../etc\n", "proc/self/mountinfo": V2})
    with pytest.raises(EnforceError, match="no group"):
        make_group(LIMIT, tmp_path)


def test_groups_of_supervisors_that_were_killed_are_removed(tmp_path: Path) -> None:
    top = version_2(tmp_path, "/", kind=None)
    (tmp_path / "proc" / "55").mkdir()
    for name in ("edgetrain-44-0", "edgetrain-55-0", "edgetrain-66-1", SUPERVISOR, "other-44-0"):
        (top / name).mkdir()
    (top / "edgetrain-66-1" / "full").write_text("a process that lives on keeps its group")
    make_group(LIMIT, tmp_path)
    left = {path.name for path in top.iterdir() if path.is_dir()}
    assert "edgetrain-44-0" not in left
    assert {"edgetrain-55-0", "edgetrain-66-1", SUPERVISOR, "other-44-0"} <= left


GROUPS = {
    1: {
        "memory.usage_in_bytes": "11\n",
        "memory.max_usage_in_bytes": "22\n",
        "memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 3\n",
    },
    2: {
        "memory.current": "11\n",
        "memory.peak": "22\n",
        "memory.events": "low 0\nhigh 0\nmax 9\noom 4\noom_kill 3\noom_group_kill 1\n",
    },
}


@pytest.mark.parametrize("version", GROUPS)
def test_what_a_group_tells_is_read(version: int, tmp_path: Path) -> None:
    write(tmp_path, GROUPS[version] | {"cgroup.procs": f"0\n1\n{OWN}\n-4\n9999999\nx\n"})
    group = ChildGroup(version, tmp_path)
    assert (group.usage_bytes(), group.peak_bytes(), group.kills()) == (11, 22, 3)
    assert group.processes() == [9999999], "never init, never this process"


@pytest.mark.parametrize("version", GROUPS)
def test_what_a_kernel_does_not_tell_is_unknown(version: int, tmp_path: Path) -> None:
    group = ChildGroup(version, tmp_path)
    assert (group.usage_bytes(), group.peak_bytes(), group.kills()) == (None, None, None)
    assert group.processes() == []


@pytest.mark.parametrize("version", GROUPS)
def test_a_group_that_tells_garbage_is_named(version: int, tmp_path: Path) -> None:
    names = list(GROUPS[version])
    write(tmp_path, dict.fromkeys(names, "oom_kill many\n"))
    group = ChildGroup(version, tmp_path)
    for read, name in zip((group.usage_bytes, group.peak_bytes, group.kills), names, strict=True):
        with pytest.raises(DataError, match=name):
            read()


def test_a_kernel_that_can_is_asked_to_end_them_all(tmp_path: Path) -> None:
    write(tmp_path, {"cgroup.kill": "", "cgroup.procs": "9999999\n"})
    ChildGroup(2, tmp_path).kill()
    assert text(tmp_path / "cgroup.kill") == "1"


def test_a_group_that_is_not_empty_stays_and_that_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cgroup, "PATIENCE_SECONDS", 0.05)
    write(tmp_path, {"group/cgroup.procs": ""})
    group = ChildGroup(2, tmp_path / "group")
    assert group.remove() is False
    group.procs.unlink()
    assert group.remove() is True
    assert group.remove() is True, "somebody else has removed it"


# What a process and its descendants have resident.


def process(number: int, resident: str, peak: int, *children: int) -> dict[str, str]:
    return {
        f"proc/{number}/status": f"Name:\tx\nVmHWM:\t  {peak} kB\nVmRSS:\t  {resident} kB\n",
        f"proc/{number}/task/{number}/children": " ".join(map(str, children)),
    }


def test_descendants_count_and_a_loop_of_them_ends(tmp_path: Path) -> None:
    write(tmp_path, process(10, "5", 9, 11) | process(11, "100", 200, 12) | process(12, "1", 1, 10))
    assert sorted(descendants(10, str(tmp_path / "proc"))) == [11, 12]
    assert Watchdog(10, tmp_path).look() == Look(106 * 1024, 106 * 1024)


def test_children_of_every_thread_count(tmp_path: Path) -> None:
    write(tmp_path, process(10, "5", 9) | process(11, "7", 7))
    write(tmp_path, {"proc/10/task/99/children": "11 x -3 "})
    assert Watchdog(10, tmp_path).look() == Look(12 * 1024, 12 * 1024)


@pytest.mark.parametrize("resident", ["", "many", "-5", "1" * 16])
def test_who_has_ended_or_tells_garbage_is_unknown(resident: str, tmp_path: Path) -> None:
    write(tmp_path, process(10, resident, 9))
    assert Watchdog(10, tmp_path).look() is None
    assert Watchdog(11, tmp_path).look() is None
