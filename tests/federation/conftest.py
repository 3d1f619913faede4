"""What the tests of real federations share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from federation import Federation


@pytest.fixture
def federation(tmp_path: Path) -> Iterator[Federation]:
    one = Federation(tmp_path)
    try:
        yield one
    finally:
        one.close()
