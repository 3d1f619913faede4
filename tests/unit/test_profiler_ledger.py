"""The ledger: what is written stays, what is changed is found, what was interrupted is closed."""

from __future__ import annotations

import hashlib
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgetrain.errors import DataError, PayloadError, StorageError
from edgetrain.memory_profiler.budget import Budget
from edgetrain.memory_profiler.ledger import Ledger, read, verify
from edgetrain.memory_profiler.ledger_line import MAX_LINE, Intent, Line, Outcome, Totals
from edgetrain.task import PlanSummary

PLAN = PlanSummary("bnn", 30, 1, 123_456)
INTENT = Intent("train", 3, "left", PLAN, 17_000_000, Budget(memory=1 << 25), 1.5, "modelled")
OUTCOMES = (
    Outcome("trained", "", 17_100_000, 540, 2.5, 1.6, "modelled"),
    Outcome("failed", "the worker was killed"),
    Outcome("evaluated", "", 16_000_000, 90, 0.1),
    Outcome("interrupted", "power was lost"),
    Outcome("failed", "its memory passed 48 MiB", 48_000_000, enforcement="soft", cause="killed"),
)
COMPLETE = 2 * len(OUTCOMES)


def write(path: Path, outcomes: tuple[Outcome, ...] = OUTCOMES) -> bytes:
    """Write a ledger of these outcomes and return its bytes."""
    for number, outcome in enumerate(outcomes):
        with Ledger(path) as ledger:
            ledger.begin(replace(INTENT, version=number))
            ledger.end(outcome)
    return path.read_bytes()


@contextmanager
def written(content: bytes) -> Iterator[Path]:
    """Yield a file with this content; hypothesis does not mix with tmp_path."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "ledger"
        path.write_bytes(content)
        yield path


def a_ledger() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        return write(Path(folder) / "ledger")


WHOLE = a_ledger()
LINES = WHOLE.splitlines(keepends=True)
ENDS = [sum(map(len, LINES[:number])) for number in range(len(LINES) + 1)]


def test_what_is_written_is_read(tmp_path: Path) -> None:
    write(tmp_path / "ledger")
    entries = [line.entry for line in read(tmp_path / "ledger")]
    assert entries[1::2] == list(OUTCOMES)
    assert entries[::2] == [replace(INTENT, version=number) for number in range(len(OUTCOMES))]
    verdict = verify(tmp_path / "ledger")
    assert (verdict.lines, verdict.broken, verdict.running) == (COMPLETE, None, False)


def test_sums_cover_what_is_known_and_count_what_is_not(tmp_path: Path) -> None:
    write(tmp_path / "ledger")
    totals = verify(tmp_path / "ledger").totals
    assert totals == Totals(
        tasks=5,
        examples=630,
        examples_unknown=3,
        seconds=2.6,
        seconds_unknown=3,
        joules=1.6,
        joules_unknown=4,
        joules_source="modelled",
        measured_peak_bytes=48_000_000,
    )


def test_what_is_unknown_is_null_and_never_zero(tmp_path: Path) -> None:
    write(tmp_path / "ledger", (Outcome("failed", "nobody knows"),))
    told = json.loads((tmp_path / "ledger").read_bytes().splitlines()[1])
    unknown = ("measured_peak_bytes", "examples", "seconds", "joules")
    assert [told["outcome"][name] for name in unknown] == [None] * 4
    assert [told["totals"][name] for name in unknown[1:]] == [None] * 3


def test_an_empty_ledger_is_right_and_an_absent_one_is_an_error(tmp_path: Path) -> None:
    Ledger(tmp_path / "ledger").close()
    assert verify(tmp_path / "ledger").lines == 0
    with pytest.raises(DataError, match="absent"):
        verify(tmp_path / "absent")


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_any_byte_that_is_changed_is_found_where_it_is(data: st.DataObject) -> None:
    place = data.draw(st.integers(0, len(WHOLE) - 1))
    value = data.draw(st.integers(0, 255).filter(lambda value: value != WHOLE[place]))
    changed = WHOLE[:place] + bytes([value]) + WHOLE[place + 1 :]
    number = next(number for number, end in enumerate(ENDS[1:], 1) if place < end)
    with written(changed) as path:
        broken = verify(path).broken
    assert broken is not None
    assert broken.line == number


@settings(max_examples=100, deadline=None)
@given(st.integers(0, COMPLETE - 1), st.binary(max_size=40), st.integers(0, 40), st.data())
def test_any_bytes_put_in_or_taken_out_are_found(
    number: int, put: bytes, taken: int, data: st.DataObject
) -> None:
    line = LINES[number]
    place = data.draw(st.integers(0, len(line)))
    changed = line[:place] + put + line[place + taken :]
    content = b"".join([*LINES[:number], changed, *LINES[number + 1 :]])
    # To take off whole lines at the end is the one change that only a remembered digest shows.
    if WHOLE.startswith(content) and len(content) in ENDS:
        return
    with written(content) as path:
        broken = verify(path).broken
    assert broken is not None
    assert broken.line in (number + 1, number + 2)


@settings(max_examples=50, deadline=None)
@given(st.permutations(range(COMPLETE)))
def test_lines_that_change_places_are_found(order: list[int]) -> None:
    first = next((at for at, line in enumerate(order) if at != line), None)
    with written(b"".join(LINES[line] for line in order)) as path:
        broken = verify(path).broken
    assert (None if broken is None else broken.line - 1) == first


@pytest.mark.parametrize("gone", range(COMPLETE - 1))
def test_a_line_left_out_or_doubled_is_found(gone: int) -> None:
    for lines, at in (
        (LINES[:gone] + LINES[gone + 1 :], gone + 1),
        (LINES[: gone + 1] + LINES[gone:], gone + 2),
    ):
        with written(b"".join(lines)) as path:
            broken = verify(path).broken
        assert broken is not None
        assert broken.line == at


def forged(number: int, /, **changes: object) -> bytes:
    """Return a ledger in which one line was written anew with a checksum of its own."""
    line = replace(Line.decode(LINES[number]), **changes)  # type: ignore[arg-type]
    return b"".join([*LINES[:number], line.encode(), *LINES[number + 1 :]])


@pytest.mark.parametrize(
    ("number", "changes", "reason", "named"),
    [
        (1, {"entry": replace(OUTCOMES[0], joules=1.5)}, "sums", 2),
        (1, {"totals": Totals()}, "sums", 2),
        (2, {"totals": Totals()}, "sums", 3),
        (1, {"time": 1.0}, "follow", 3),
        (2, {"previous": "0" * 64}, "follow", 3),
        (3, {"number": 5, "previous": "0" * 64}, "line 6", 4),
        (3, {"entry": INTENT}, "no outcome", 4),
        (4, {"entry": OUTCOMES[0]}, "no intent", 5),
    ],
)
def test_a_forged_line_is_named(
    number: int, changes: dict[str, object], reason: str, named: int
) -> None:
    with written(forged(number, **changes)) as path:
        broken = verify(path).broken
    assert broken is not None
    assert broken.line == named
    assert reason in broken.reason


def test_lines_taken_off_the_end_change_the_digest() -> None:
    with written(WHOLE) as path:
        whole = verify(path)
        path.write_bytes(b"".join(LINES[:-2]))
        assert verify(path).broken is None
        assert verify(path).digest != whole.digest


@settings(max_examples=300, deadline=None)
@given(st.integers(0, len(WHOLE)), st.integers(0, 3))
def test_a_ledger_cut_off_anywhere_recovers(length: int, zeros: int) -> None:
    """A power cut leaves any part of what was being written, perhaps with zeros behind it."""
    kept = max(number for number, end in enumerate(ENDS) if end <= length)
    torn = length > ENDS[kept] or zeros > 0
    with written(WHOLE[:length] + bytes(zeros)) as path:
        if torn:
            broken = verify(path).broken
            assert broken is not None
            assert broken.line == kept + 1
        with Ledger(path) as ledger:
            assert len(ledger.recovered) == torn + kept % 2
            ledger.begin(INTENT)
            ledger.end(OUTCOMES[0])
        verdict = verify(path)
        lines = list(read(path))
    assert verdict.broken is None
    assert verdict.lines == kept + kept % 2 + 2
    if kept % 2:
        assert isinstance(lines[kept].entry, Outcome)
        assert lines[kept].entry.status == "interrupted"
        assert lines[kept].entry.joules is None


@pytest.mark.parametrize("content", [b"somebody's notes", b"notes\n", b"notes\n" * 9999, b"\x00x"])
def test_a_file_that_is_no_ledger_is_left_alone(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "notes"
    path.write_bytes(content)
    with pytest.raises(PayloadError, match="move the file away"):
        Ledger(path)
    assert path.read_bytes() == content
    assert verify(path).broken is not None


def test_a_line_has_room_for_the_longest_names() -> None:
    entry = Outcome("failed", "\U0001f600" * 400, 1 << 48, 1 << 48, 1e9, 1e12, "calibrated")
    line = Line(1 << 48, "f" * 64, 1e11 + 1 / 3, entry, Totals(1 << 48, 1 << 60, 7, 1e200, 7))
    assert len(line.encode()) < MAX_LINE
    assert Line.decode(line.encode()) == line


def test_entries_out_of_order_are_refused_before_they_are_written(tmp_path: Path) -> None:
    with Ledger(tmp_path / "ledger") as ledger:
        with pytest.raises(ValueError, match="no intent"):
            ledger.end(OUTCOMES[0])
        ledger.begin(INTENT)
        with pytest.raises(ValueError, match="no outcome"):
            ledger.begin(INTENT)
        with pytest.raises(PayloadError, match="joules"):
            ledger.end(replace(OUTCOMES[0], joules=-1.0))
    assert verify(tmp_path / "ledger").lines == 1


@contextmanager
def disk_full_at(size: int) -> Iterator[None]:
    """Let the kernel refuse to make any file larger, in the middle of a write if need be."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("room", [0, 1, 100])
def test_a_full_disk_leaves_what_was_there(room: int, tmp_path: Path) -> None:
    path = tmp_path / "ledger"
    before = write(path)
    with Ledger(path) as ledger:
        with disk_full_at(len(before) + room), pytest.raises(StorageError, match="free some space"):
            ledger.begin(INTENT)
        assert path.read_bytes() == before
        ledger.begin(INTENT)
        ledger.end(OUTCOMES[0])
    assert verify(path).broken is None


def test_a_folder_that_is_not_there_is_a_storage_error(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="another folder"):
        Ledger(tmp_path / "absent" / "ledger")


KILLED = """
import sys
from edgetrain.memory_profiler.ledger import Ledger
from edgetrain.memory_profiler.ledger_line import Intent
from edgetrain.memory_profiler.budget import Budget
from edgetrain.task import PlanSummary
with Ledger(sys.argv[1]) as ledger:
    plan = PlanSummary("bnn", 1, 1, 1)
    ledger.begin(Intent("train", 7, "left", plan, 1, Budget()))
    print("begun", flush=True)
    sys.stdin.read()
"""


def test_who_is_killed_between_intent_and_outcome_leaves_an_interrupted_task(
    tmp_path: Path,
) -> None:
    path = tmp_path / "ledger"
    command = [sys.executable, "-c", KILLED, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"begun\n"
        assert verify(path).running
        os.kill(process.pid, signal.SIGKILL)
    with Ledger(path) as ledger:
        assert "version 7 for 'left' was interrupted" in ledger.recovered[0]
    verdict = verify(path)
    assert (verdict.lines, verdict.running, verdict.broken) == (2, False, None)
    assert verdict.totals == Totals(1, examples_unknown=1, seconds_unknown=1, joules_unknown=1)


TAKING_TURNS = """
import sys
from edgetrain.memory_profiler.budget import Budget
from edgetrain.memory_profiler.ledger import Ledger
from edgetrain.memory_profiler.ledger_line import Intent, Outcome
from edgetrain.task import PlanSummary
sys.stdin.read()
for version in range(20):
    with Ledger(sys.argv[1]) as ledger:
        assert not ledger.recovered
        ledger.begin(Intent("train", version, "left", PlanSummary("bnn", 1, 1, 1), 1, Budget()))
        ledger.end(Outcome("trained", examples=1))
"""


def test_two_processes_take_turns(tmp_path: Path) -> None:
    """Neither takes the other's open intent for an interrupted one."""
    path = tmp_path / "ledger"
    command = [sys.executable, "-c", TAKING_TURNS, str(path)]
    both = [subprocess.Popen(command, stdin=subprocess.PIPE) for _ in range(2)]
    for process in both:
        assert process.stdin is not None
        process.stdin.close()
    assert [process.wait() for process in both] == [0, 0]
    verdict = verify(path)
    assert (verdict.lines, verdict.broken, verdict.totals.tasks) == (80, None, 40)
    assert verdict.totals.examples == 40


@pytest.mark.parametrize(
    ("version", "unsaid"),
    [
        (2, b',"enforcement":null,"cause":null,"cgroup_peak_bytes":null,"network":null'),
        (3, b',"cgroup_peak_bytes":null,"network":null'),
        (4, b',"network":null'),
    ],
)
def test_a_line_of_an_older_version_is_read(version: int, unsaid: bytes) -> None:
    outcome = Outcome("trained", "", 17_100_000, 540, 2.5, 1.6, "modelled")
    line = Line(1, "0" * 64, 1e9, outcome, Totals().plus(outcome))
    body, _, _ = line.encode().rpartition(b',"sha256":"')
    old = body.replace(b'"ledger":5', b'"ledger":%d' % version).replace(unsaid, b"")
    assert len(old) < len(body)
    sealed = old + b',"sha256":"' + hashlib.sha256(old).hexdigest().encode() + b'"}\n'
    assert Line.decode(sealed) == line
