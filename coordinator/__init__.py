"""The coordinator: selects devices, folds their reports, judges and keeps every version.

Flower counts its users over the network unless told not to; a fleet's coordinator stays silent,
and so does everything that imports it. Whoever wants it otherwise sets the variables.
"""

from __future__ import annotations

import os

os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")
os.environ.setdefault("FLWR_DISABLE_UPDATE_CHECK", "1")
