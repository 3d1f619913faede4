"""What the operator asks of a run that is on: to pause, or to allow devices another total.

The file lies beside the run's fleet and is read before every round, so that directions outlive the
ServerApp that follows them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from edgetrain.config import DeviceConfig
from edgetrain.errors import ConfigError
from edgetrain.storage import replace_file

__all__ = ["BUDGETS", "Directions"]

BUDGETS = ("total_energy", "total_seconds")
"""The settings of a class of devices that may change while a run is on."""


@dataclass(frozen=True)
class Directions:
    """What an operator has directed.

    Attributes:
        paused: whether devices are to get no new tasks.
        budgets: by the class of devices, those of BUDGETS that take the place of the fleet's own.
    """

    paused: bool = False
    budgets: Mapping[str, Mapping[str, float]] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path) -> Directions:
        """Return the directions in a file; none where there is no file.

        Raises ConfigError for a file that is damaged: a pause must not end by accident.
        """
        try:
            return cls(**json.loads(path.read_text(encoding="utf-8")))
        except FileNotFoundError:
            return cls()
        except (OSError, ValueError, TypeError) as error:
            raise ConfigError(f"cannot use {path}: {error}: remove it, and direct anew") from None

    def store(self, path: Path) -> None:
        """Replace the file. Raises StorageError."""
        replace_file(path, [json.dumps(asdict(self), indent=2).encode("utf-8")])

    def allowed(self, device: DeviceConfig) -> DeviceConfig:
        """Return a class of devices with the totals that hold now. Raises ConfigError."""
        totals: Mapping[str, Any] = self.budgets.get(device.name, {})
        return replace(device, **totals)

    def allowing(self, device: DeviceConfig, totals: Mapping[str, Any]) -> Directions:
        """Return directions in which a class has these totals too. Raises ConfigError."""
        changed = replace(self.allowed(device), **totals)
        kept = {name: getattr(changed, name) for name in BUDGETS}
        given = {name: value for name, value in kept.items() if value is not None}
        return replace(self, budgets={**self.budgets, device.name: given})
