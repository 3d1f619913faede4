"""Anyone can add up a run again: a version and its journal make the next version, bit for bit."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from edgetrain.coordinator.aggregate import Accumulator
from edgetrain.coordinator.checkpoint import CheckpointFolder, read_checkpoint, version_of
from edgetrain.coordinator.global_model import GlobalModel
from edgetrain.coordinator.journal import Entry, read_journal
from edgetrain.errors import DataError, PayloadError

__all__ = ["VersionAudit", "audit_folder", "refold"]


@dataclass(frozen=True)
class VersionAudit:
    """What adding up a round again has shown.

    Attributes:
        version: the version that the round made.
        reports, examples: what its journal holds.
        devices: who sent them, each once.
        same: whether they make the version that was kept.
    """

    version: int
    reports: int
    examples: int
    devices: tuple[str, ...]
    same: bool


def refold(model: GlobalModel, entries: Iterable[Entry]) -> Accumulator:
    """Return the sum of a round's entries over the version that it was about.

    Raises PayloadError where a report counts twice.
    """
    accumulator = Accumulator(model)
    seen: set[tuple[str, int]] = set()
    for entry in entries:
        report = entry.answer.report
        if report is None:
            raise PayloadError("an entry of a journal holds no report")
        if (report.device, report.version) in seen:
            raise PayloadError(f"{report.device}'s report on version {report.version} comes twice")
        seen.add((report.device, report.version))
        accumulator.fold(report, entry.sent)
    return accumulator


def audit_folder(folder: Path) -> Iterator[VersionAudit]:
    """Yield what adding up shows of every version that is kept with its predecessor and journal.

    Raises DataError where there is none, PayloadError for a file that is not what it should be.
    """
    kept = CheckpointFolder(folder)
    versions = sorted(map(version_of, kept.versions()))
    pairs = [one for one in versions if one + 1 in versions and kept.journal_of(one).exists()]
    if not pairs:
        raise DataError(f"{folder} holds no two versions and a journal: name a run's checkpoints")
    for version in pairs:
        yield audit_version(kept, version)


def audit_version(kept: CheckpointFolder, version: int) -> VersionAudit:
    """Return what adding up the round about a version shows."""
    model = read_checkpoint(kept.path_of(version)).model
    journal = kept.journal_of(version)
    devices = tuple(sorted(entry.answer.member.name for entry in read_journal(journal)))
    accumulator = refold(model, read_journal(journal))
    following = read_checkpoint(kept.path_of(version + 1)).model
    same = accumulator.apply().to_tensors() == following.to_tensors()
    return VersionAudit(version + 1, accumulator.reports, accumulator.examples, devices, same)
