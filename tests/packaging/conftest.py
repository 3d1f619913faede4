"""The wheel, which is built once for all that is made of it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel."""
    folder = tmp_path_factory.mktemp("wheel")
    build = ("wheel", "--quiet", "--no-deps", "--no-build-isolation")
    # A build folder of its own, so that the editable installation is not disturbed.
    options = f"--config-settings=build-dir={folder / 'build'}"
    subprocess.run(
        [sys.executable, "-m", "pip", *build, options, "--wheel-dir", folder, ROOT],
        check=True, cwd=folder,
    )  # fmt: skip
    return next(folder.glob("*.whl"))
