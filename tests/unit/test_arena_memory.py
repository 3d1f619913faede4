"""The arena: private, touched whole as it is made, without huge pages; refused there or never."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

MIB = 1 << 20
MAKE = """
import sys
from pathlib import Path
from edgetrain import models
from edgetrain.errors import BudgetError
from edgetrain.planner import plan
from edgetrain.train import Trainer
from edgetrain.memory_profiler.memory import private_bytes, resident_bytes
compiled = plan(models.mlp(inputs=784, classes=10, hidden=(2048, 2048)), 100)
print(compiled.peak_bytes)
"""
HAVING = """
before = resident_bytes()
trainer = Trainer(compiled)
print(resident_bytes() - before)
print(Path("/proc/self/smaps").read_text())
"""
REFUSED = """
import resource
room = private_bytes() + compiled.peak_bytes // 2
resource.setrlimit(resource.RLIMIT_DATA, (room, room))
try:
    Trainer(compiled)
except BudgetError as error:
    print(error)
"""
# Pages of code that the engine runs through as it begins, and the kernel's lazy count of pages.
NOISE = 2 * MIB


def said(code: str) -> list[str]:
    answer = subprocess.run(
        [sys.executable, "-P", "-c", MAKE + code], capture_output=True, text=True, check=True
    )
    return answer.stdout.splitlines()


@pytest.fixture(scope="module")
def having() -> list[str]:
    return said(HAVING)


def test_it_is_resident_before_the_first_step(having: list[str]) -> None:
    planned, grown = int(having[0]), int(having[1])
    assert planned > 2 * NOISE
    assert grown == pytest.approx(planned, abs=NOISE)


def test_its_mapping_is_private_touched_whole_and_asks_for_no_huge_pages(having: list[str]) -> None:
    planned = int(having[0])
    mappings = re.split(r"\n(?=[0-9a-f]+-[0-9a-f]+ )", "\n".join(having[2:]))
    pages = -(-planned // 4096) * 4
    (arena,) = (text for text in mappings if re.search(rf"^Size: +{pages} kB$", text, re.M))
    assert " rw-p " in arena.splitlines()[0]
    assert re.search(rf"^Rss: +{pages} kB$", arena, re.M)
    assert re.search(r"^VmFlags:.* nh( |$)", arena, re.M)
    guards = [text for text in mappings if " ---p " in text.splitlines()[0]]
    assert len(guards) >= 2


def test_where_it_cannot_be_had_nothing_begins() -> None:
    _, reason = said(REFUSED)
    assert "arena" in reason
    assert "could not be had" in reason
