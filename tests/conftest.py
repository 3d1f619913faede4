"""What every test shares: how hypothesis searches, and a cache of their own."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from hypothesis import settings

# A busy machine is not a failing test; in CI the search is the same every time.
settings.register_profile("edgetrain", deadline=None, derandomize="CI" in os.environ)
settings.load_profile("edgetrain")


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep what is found out of this machine for the tests alone, and from the user's own home."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EDGETRAIN_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield
