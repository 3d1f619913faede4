"""Data: named sets and anyone's folder, dealt to devices, stored so that a device can map it.

Names resolve on first use: a worker that maps a stored file (`edgetrain.data.store`) never pays
for numpy. `edgetrain.data.partition.partition` and `edgetrain.data.fetch.fetch` share their
module's name and are imported from there.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edgetrain.data.catalogue import load as load
    from edgetrain.data.dataset import Dataset as Dataset
    from edgetrain.data.dataset import Splits as Splits
    from edgetrain.data.partition import PARTITIONS as PARTITIONS
    from edgetrain.data.scaling import Scaling as Scaling

_HOME = {
    "Dataset": "edgetrain.data.dataset",
    "PARTITIONS": "edgetrain.data.partition",
    "Scaling": "edgetrain.data.scaling",
    "Splits": "edgetrain.data.dataset",
    "load": "edgetrain.data.catalogue",
}

__all__ = [*_HOME]  # noqa: PLE0604


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'edgetrain.data' has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
