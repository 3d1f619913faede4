"""The journal: what counts is on the disk, whole or not at all, and adds up to the versions."""

from __future__ import annotations

import json
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from killed_coordinator import train
from stand_in_fleet import devices, fleet, run
from typer.testing import CliRunner

from edgetrain.coordinator.__main__ import app
from edgetrain.coordinator.answer import Answer, Member
from edgetrain.coordinator.audit import audit_folder, refold
from edgetrain.coordinator.checkpoint import CheckpointFolder, read_checkpoint
from edgetrain.coordinator.journal import Entry, Journal, read_journal
from edgetrain.coordinator.loop import Event, TaskAnswered
from edgetrain.errors import DataError, PayloadError, StorageError
from edgetrain.task import Report
from edgetrain.tensorfile import Tensor

MODEL, OTHER = "ab" * 32, "cd" * 32
ALL_VERSIONS = 1_000_000
BUFFERED = {"aggregation": "buffered", "buffer": 2, "evaluate_every": 50, "staleness": 50}


def entry(number: int, *, stale: bool = False) -> Entry:
    """Return an entry that is told from others by its number."""
    member = Member(number, f"pi-{number}", "pi", "train", 9, 4, 2, 1 << 20, "02ab")
    update = {"layer0.mean": Tensor("F32", (2,), bytes([number] * 8))}
    report = Report(
        "trained", number, member.name, examples=9, loss=0.1, accuracy=0.5, update=update
    )
    answer = Answer(member, "trained", "stopped early", report, 100 + number, 200)
    return Entry(answer, number / 7, update if stale else None)


ENTRIES = [entry(number, stale=number % 2 == 1) for number in range(1, 5)]


def write(path: Path, entries: list[Entry]) -> list[int]:
    """Write a journal and return its size before and after each entry."""
    with Journal(path, MODEL) as journal:
        sizes = [path.stat().st_size]
        for one in entries:
            journal.append(one)
            sizes.append(path.stat().st_size)
    return sizes


@contextmanager
def small_disk(size: int) -> Iterator[None]:
    """Let no file grow beyond `size` bytes: writing more fails as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_what_was_written_is_what_is_read(tmp_path: Path) -> None:
    write(tmp_path / "journal", ENTRIES)
    assert list(read_journal(tmp_path / "journal")) == ENTRIES
    with Journal(tmp_path / "journal", MODEL) as journal:
        assert list(journal.entries()) == ENTRIES


@given(cut=st.integers(0, 10**9))
@settings(max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_file_that_is_cut_anywhere_holds_what_was_whole_and_goes_on(
    tmp_path: Path, cut: int
) -> None:
    path = tmp_path / "journal"
    path.unlink(missing_ok=True)
    sizes = write(path, ENTRIES)
    kept = cut % (sizes[-1] + 1)
    path.write_bytes(path.read_bytes()[:kept])
    whole = ENTRIES[: sum(size <= kept for size in sizes[1:])]
    with Journal(path, MODEL) as journal:
        assert list(journal.entries()) == whole
        journal.append(entry(9))
    assert list(read_journal(path)) == [*whole, entry(9)]


@given(place=st.integers(0, 10**9), bit=st.integers(0, 7))
@settings(max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_flipped_bit_goes_unnoticed(tmp_path: Path, place: int, bit: int) -> None:
    path = tmp_path / "journal"
    path.unlink(missing_ok=True)
    sizes = write(path, ENTRIES)
    torn = bytearray(path.read_bytes())
    place = sizes[0] + place % (sizes[-1] - sizes[0])
    torn[place] ^= 1 << bit
    path.write_bytes(torn)
    assert list(read_journal(path)) == ENTRIES[: sum(size <= place for size in sizes[1:])]


def test_what_is_about_another_model_is_dropped(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write(tmp_path / "journal", ENTRIES)
    with Journal(tmp_path / "journal", OTHER) as journal:
        assert list(journal.entries()) == []
        journal.append(entry(9))
    assert "are no part of it" in caplog.text
    assert list(read_journal(tmp_path / "journal")) == [entry(9)]


def test_a_full_disk_is_one_line_and_what_was_counted_stays(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    sizes = write(path, ENTRIES)
    before = path.read_bytes()
    with Journal(path, MODEL) as journal:
        with small_disk(sizes[-1] + 10), pytest.raises(StorageError, match="intact"):
            journal.append(entry(9))
        assert path.read_bytes() == before
        journal.append(entry(9))
    assert list(read_journal(path)) == [*ENTRIES, entry(9)]


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="nowhere"):
        Journal(tmp_path / "nowhere" / "journal", MODEL)
    (tmp_path / "text").write_text("no journal\n")
    with pytest.raises(PayloadError, match="no journal of reports"):
        list(read_journal(tmp_path / "text"))


def test_a_report_is_on_the_disk_when_it_is_heard_to_count(tmp_path: Path) -> None:
    folder = CheckpointFolder(tmp_path)
    heard = 0

    def look(event: Event) -> None:
        nonlocal heard
        if isinstance(event, TaskAnswered) and event.answer.status == "trained":
            found = list(read_journal(folder.journal_of(event.round - 1)))
            assert found[-1].answer.report == event.answer.report
            heard += 1

    run(fleet(**BUFFERED), checkpoints=folder, notify=look)
    assert heard == 6


class PowerCutError(Exception):
    """Ends a run in the middle."""


@pytest.mark.parametrize("mode", ["bnn", "fsb"])
@pytest.mark.parametrize("codec", ["luq4", "raw8"])
def test_a_late_report_is_recovered_with_what_its_device_was_sent(
    tmp_path: Path, mode: Any, codec: str
) -> None:
    config = fleet(rounds=8, codec=codec, **BUFFERED)
    config = replace(config, model=replace(config.model, mode=mode))
    odd = {member.name: train for member in devices(config)}
    folder = CheckpointFolder(tmp_path, kept=ALL_VERSIONS)

    def cut_off(event: Event) -> None:
        if isinstance(event, TaskAnswered) and event.answer.status == "trained":
            assert event.answer.task is not None
            if event.answer.task.version + 1 < event.round:
                raise PowerCutError

    with pytest.raises(PowerCutError):
        run(config, odd, checkpoints=folder, notify=cut_off)
    run(config, odd, checkpoints=folder)
    audits = list(audit_folder(tmp_path))
    assert [one.version for one in audits] == list(range(1, 9))
    assert all(one.same for one in audits)
    entries = [one for version in range(8) for one in read_journal(folder.journal_of(version))]
    assert any(one.sent is not None for one in entries)


def test_only_the_newest_versions_keep_their_journals(tmp_path: Path) -> None:
    run(fleet(rounds=6), checkpoints=CheckpointFolder(tmp_path))
    names = sorted(path.name for path in tmp_path.iterdir())
    versions = [f"version-{version:06d}" for version in (4, 5, 6)]
    assert names == sorted(
        [f"{one}.safetensors" for one in versions] + [f"{one}.reports" for one in versions[:2]]
    )


def test_the_next_version_comes_again_from_a_damaged_one_s_journal(tmp_path: Path) -> None:
    folder = CheckpointFolder(tmp_path, kept=ALL_VERSIONS)
    _, model = run(fleet(rounds=3), checkpoints=folder)
    folder.path_of(3).write_bytes(b"damaged")
    loop, again = run(fleet(rounds=3), checkpoints=folder)
    assert again.to_tensors() == model.to_tensors()
    assert loop.history.devices["pi-0"].answered == 3


def test_audit_tells_a_run_that_adds_up_from_one_that_does_not(tmp_path: Path) -> None:
    folder, config = CheckpointFolder(tmp_path), fleet(rounds=3, codec="luq4")
    run(config, {member.name: train for member in devices(config)}, checkpoints=folder)
    good = CliRunner().invoke(app, ["audit", str(tmp_path), "--json"])
    found = json.loads(good.stdout)
    assert [(one["version"], one["reports"], one["same"]) for one in found] == [
        (2, 3, True),
        (3, 3, True),
    ]
    said = CliRunner().invoke(app, ["audit", str(tmp_path)]).stdout
    assert "version 3: 3 reports by 3 devices, " in said
    assert said.count("adds up") == 2
    path = folder.journal_of(2)
    path.write_bytes(path.read_bytes()[:-1])
    bad = CliRunner().invoke(app, ["audit", str(tmp_path)])
    assert isinstance(bad.exception, PayloadError)
    assert "version 3 is not what its journal adds up to" in str(bad.exception)
    assert "DIFFERS" in bad.stdout


def test_audit_of_nothing_and_of_a_report_that_comes_twice(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no two versions"):
        list(audit_folder(tmp_path))
    folder = CheckpointFolder(tmp_path)
    run(fleet(rounds=1), checkpoints=folder)
    entries = list(read_journal(folder.journal_of(0)))
    model = read_checkpoint(folder.path_of(0)).model
    with pytest.raises(PayloadError, match="on version 0 comes twice"):
        refold(model, [*entries, entries[0]])
