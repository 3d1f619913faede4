"""What the owner of a device says in a SuperNode's --node-config, and what follows from it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

from edgetrain.client.job import CHECKPOINT_SECONDS
from edgetrain.memory_profiler.budget import Budget
from edgetrain.memory_profiler.device import Device
from edgetrain.memory_profiler.energy.fit_file import load_fit
from edgetrain.memory_profiler.enforce.admission import Policy
from edgetrain.settings import (
    Settings,
    choice,
    optional,
    quantity,
    real,
    setting,
    size,
    text,
    whole,
)

__all__ = ["NodeSettings"]

FLOWERS_OWN = ("partition-id", "num-partitions")
"""Keys that Flower itself puts into a node's configuration."""


@dataclass(frozen=True)
class NodeSettings(Settings):
    """A device: its name and role, its data, its budget, and how fast it is, if that is known.

    Keys are written with dashes, e.g. `examples-per-second`, and `device_class` as `class`.
    `dataset` is the `.etd` file; without it the device has no examples yet. `memory`, `energy`
    (joules a task) and `seconds` (a task) are the owner's budget; `watts` and
    `examples-per-second` let energy and time be modelled; `calibration`, the file that
    `edgetrain-profile calibrate` wrote, tells energy better than `watts`. `clock` "virtual" says
    that this is a simulated device, whose time is not this machine's. A task begins only with that
    share of the `battery`'s charge, with the `charger` "connected", and with no part hotter than
    `celsius`, where the owner asks for it. `ledger` is the file that keeps account of what each
    task used; none is kept unless it is named. `ledger-key` is the private key that signs what it
    says; a file beside the ledger unless it is named. `checkpoint` is how many seconds of a
    training may be lost to a kill: so often it is kept on the disk.
    """

    table: ClassVar[str] = "node-config"

    device: str = setting(text)
    role: Literal["train", "evaluate"] = setting(choice("train", "evaluate"), "train")
    device_class: str = setting(text, "device")
    dataset: str | None = setting(optional(text), None)
    memory: int | None = setting(optional(size), None)
    energy: float | None = setting(optional(quantity("joules")), None)
    seconds: float | None = setting(optional(quantity("seconds")), None)
    threads: int = setting(whole(1, 256), 1)
    examples_per_second: float | None = setting(optional(real(0, 1e12)), None)
    watts: float | None = setting(optional(real(0, 1e6)), None)
    calibration: str | None = setting(optional(text), None)
    clock: Literal["real", "virtual"] = setting(choice("real", "virtual"), "real")
    battery: float | None = setting(optional(real(0, 1)), None)
    charger: Literal["any", "connected"] = setting(choice("any", "connected"), "any")
    celsius: float | None = setting(optional(real(-60, 150)), None)
    checkpoint: float = setting(quantity("seconds"), CHECKPOINT_SECONDS)
    ledger: str | None = setting(optional(text), None)
    ledger_key: str | None = setting(optional(text), None)

    @classmethod
    def of(cls, node_config: Mapping[str, Any]) -> NodeSettings:
        """Return the settings in a node's configuration. Raises ConfigError."""
        return cls.from_table(
            {
                "device_class" if key == "class" else key.replace("-", "_"): value
                for key, value in node_config.items()
                if key not in FLOWERS_OWN
            }
        )

    @property
    def budget(self) -> Budget:
        """What the owner allows one task."""
        return Budget(self.memory, self.energy, self.seconds)

    @property
    def policy(self) -> Policy:
        """What must hold before a task begins."""
        return Policy(
            battery=self.battery, charger=self.charger == "connected", celsius=self.celsius
        )

    @property
    def machine(self) -> Device:
        """The device as the profiler sees it."""
        return Device(
            name=self.device,
            examples_per_second=self.examples_per_second,
            watts=self.watts,
            threads=self.threads,
            fit=None if self.calibration is None else load_fit(Path(self.calibration)),
        )
