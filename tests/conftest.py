"""What every test shares: how hypothesis searches."""

from __future__ import annotations

import os

from hypothesis import settings

# A busy machine is not a failing test; in CI the search is the same every time.
settings.register_profile("edgetrain", deadline=None, derandomize="CI" in os.environ)
settings.load_profile("edgetrain")
