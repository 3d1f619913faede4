"""FleetConfig: what a fleet trains on, what it trains, how, and on which devices.

```toml
[data]      path = "watch"     partition = "group"     test_groups = [3, 6, 9]
[model]     name = "mlp"       hidden = [256, 256]     mode = "bnn"
[training]  rounds = 30        batch = 32              codec = "luq4"
[[device]]  name = "pi-zero"   count = 8               memory = "48MiB"
```

Every key has a default but [data] path and the name and memory of a device. A relative path is
looked for beside the TOML file first, then in the working folder. A real fleet has no [data]: its
devices bring their own examples, and say what these look like.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeVar

from edgetrain.errors import ConfigError, ModelError
from edgetrain.freeze import freeze
from edgetrain.model import Model
from edgetrain.models import MODELS, mlp
from edgetrain.schedule import SCHEDULES, check_schedule, decay
from edgetrain.settings import (
    Settings,
    choice,
    nearest,
    optional,
    quantity,
    real,
    setting,
    size,
    text,
    whole,
    wholes,
    word,
)

__all__ = [
    "DataConfig",
    "DeviceConfig",
    "FleetConfig",
    "ModelConfig",
    "TrainingConfig",
]

PARTITIONS = ("group", "iid", "dirichlet", "shards", "quantity")
MAXIMUM_SEED = 2**31 - 1
MAXIMUM_DEVICES = 100_000
MAXIMUM_ROUNDS = 100_000


@dataclass(frozen=True)
class DataConfig(Settings):
    """[data]: whose examples a device holds, and who is held out to judge.

    `path` is a name ("watch") or a folder. `test_groups` holds out these people, `test_fraction`
    a share of the people, or of the examples where nobody knows whose they are; with neither, the
    data's own test part or a fifth is held out. `alpha` is the concentration of "dirichlet" and
    "quantity", `shards_per_device` belongs to "shards".
    """

    table: ClassVar[str] = "[data]"

    path: str = setting(text)
    partition: str = setting(choice(*PARTITIONS), "group")
    test_groups: tuple[int, ...] | None = setting(optional(wholes(0, 2**31 - 1, 1)), None)
    test_fraction: float | None = setting(optional(real(0, 0.9)), None)
    alpha: float = setting(real(0, 1e6), 0.5)
    shards_per_device: int = setting(whole(1, 1000), 2)
    seed: int = setting(whole(0, MAXIMUM_SEED), 0)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.test_groups is not None and self.test_fraction is not None:
            raise ConfigError("[data] has both test_groups and test_fraction: keep one of them")


def averaged_latent(value: Any) -> str:
    """Accept the one kind of latent whose mean over devices is exact."""
    if value != "int8":
        raise ValueError(
            "a fleet averages int8 latents alone: write 'int8', or train on one machine"
        )
    return "int8"


@dataclass(frozen=True)
class ModelConfig(Settings):
    """[model]: the network, and how its layers are trained ("bnn" or "fsb").

    `first` and `last` say how the outer layers are trained: "int8", or "auto" for the mode's way.
    `hidden` and `group`, the number of inputs that share a scale in fsb mode, are those of "mlp";
    the other networks leave the first layer as it suits them where `first` is "auto". The lowest
    `freeze` layers keep random signs, and devices neither train nor send them. `latent` is "int8",
    the only kind of which a fleet's mean is exact.
    """

    table: ClassVar[str] = "[model]"

    name: str = setting(choice(*MODELS), "mlp")
    hidden: tuple[int, ...] = setting(wholes(1, 65_536, 1), (256, 256))
    mode: Literal["bnn", "fsb"] = setting(choice("bnn", "fsb"), "bnn")
    first: Literal["auto", "int8"] = setting(choice("auto", "int8"), "auto")
    last: Literal["auto", "int8"] = setting(choice("auto", "int8"), "int8")
    group: int = setting(whole(1, 65_536), 4)
    freeze: int = setting(whole(0, 255), 0)
    latent: str = setting(averaged_latent, "int8")

    def build(self, inputs: int, classes: int) -> Model:
        """Return the model for data of `inputs` features and `classes` classes.

        Raises ConfigError for a network that is made for another shape of data, ModelError where
        no layer would be left to train.
        """
        return freeze(self._build(inputs, classes), self.freeze)

    def _build(self, inputs: int, classes: int) -> Model:
        if self.name == "mlp":
            return mlp(
                inputs, classes, self.hidden, first=self.first, last=self.last, group=self.group
            )
        outer = {} if self.first == "auto" else {"first": self.first}
        model = MODELS[self.name](classes=classes, last=self.last, **outer)
        if model.input_features != inputs:
            raise ConfigError(
                f"[model] name {self.name!r} reads {model.input_features} features an example and "
                f"the data have {inputs}: choose another network, or mlp, which reads any number"
            )
        return model


@dataclass(frozen=True)
class TrainingConfig(Settings):
    """[training]: rounds, what a device does in one, and what it sends.

    `aggregation` is "synchronous": of the training devices `fraction` are asked in each round,
    and a share of `over_selection` more, whose reports are not waited for; the round ends when
    as many as without those have reported or nobody is left who could. Or it is "buffered": that
    `fraction` of the devices is always at work, and every `buffer` reports, whatever version of
    the model they began with, make a new version, which is a round. Either kind of round ends
    when its `deadline` (seconds) has passed. A report that comes later is folded with a weight
    that falls with its age, up to `staleness` versions; 0 refuses it. The learning rate rises over
    the first `warmup` rounds and then follows `schedule` (edgetrain.schedule) down to `final_rate`
    times its start.
    """

    table: ClassVar[str] = "[training]"

    rounds: int = setting(whole(1, MAXIMUM_ROUNDS), 30)
    local_epochs: int = setting(whole(1, 1000), 1)
    batch: int = setting(whole(1, 65_536), 32)
    learning_rate: float = setting(real(0, 1), 0.04)
    schedule: str = setting(choice(*SCHEDULES), "linear")
    warmup: int = setting(whole(0, MAXIMUM_ROUNDS), 0)
    final_rate: float = setting(real(0, 1), 0.05)
    codec: str = setting(text, "luq4")
    aggregation: Literal["synchronous", "buffered"] = setting(
        choice("synchronous", "buffered"), "synchronous"
    )
    buffer: int = setting(whole(1, MAXIMUM_DEVICES), 10)
    staleness: int = setting(whole(0, 1000), 10)
    fraction: float = setting(real(0, 1), 1.0)
    over_selection: float = setting(real(0, 100, included=True), 0.0)
    deadline: float | None = setting(optional(quantity("seconds")), None)
    evaluate_every: int = setting(whole(1, MAXIMUM_ROUNDS), 1)
    seed: int = setting(whole(0, MAXIMUM_SEED), 0)

    def __post_init__(self) -> None:
        super().__post_init__()
        try:
            check_schedule(self.schedule, self.rounds, self.warmup, "rounds")
        except ModelError as error:
            raise ConfigError(f"{self.table} warmup: {error}") from None

    def rate(self, round: int) -> float:
        """Return the learning rate of a round, the first of which is 0."""
        return self.learning_rate * decay(
            self.schedule, round, self.rounds, warmup=self.warmup, floor=self.final_rate
        )


@dataclass(frozen=True)
class DeviceConfig(Settings):
    """[[device]]: a class of devices that are alike.

    `count` may be left out by one class, which then takes the devices that are left. `memory` is
    the budget of the whole worker process in bytes, `energy` one of joules a round. A device that
    has used `total_energy` (joules) or `total_seconds`, as its signed ledger or else its reports
    tell, is asked no more. A simulation
    models time by `examples_per_second`, `uplink` and `downlink` (bits a second), energy by
    `watts` while computing, and absence by `availability`, the chance to be there in a round.
    Devices of role "evaluate" hold the held-out examples; without any, they borrow the classes
    of those that train.
    """

    table: ClassVar[str] = "[[device]]"

    name: str = setting(word)
    memory: int = setting(size)
    count: int | None = setting(optional(whole(1, MAXIMUM_DEVICES)), None)
    role: Literal["train", "evaluate"] = setting(choice("train", "evaluate"), "train")
    energy: float | None = setting(optional(quantity("joules")), None)
    total_energy: float | None = setting(optional(quantity("joules")), None)
    total_seconds: float | None = setting(optional(quantity("seconds")), None)
    examples_per_second: float = setting(real(0, 1e12), 2000.0)
    watts: float = setting(real(0, 1e6), 2.0)
    uplink: float = setting(quantity("rate"), 1e6)
    downlink: float = setting(quantity("rate"), 4e6)
    availability: float = setting(real(0, 1, included=True), 1.0)
    threads: int = setting(whole(1, 256), 1)


SECTIONS = {
    "data": DataConfig,
    "model": ModelConfig,
    "training": TrainingConfig,
    "device": DeviceConfig,
}


@dataclass(frozen=True)
class FleetConfig:
    """A whole fleet: its data, model, training and classes of devices.

    Each part may be given as its dataclass or as the table that makes it; `data` is what a
    simulation deals out to its devices, and None where they bring their own. Raises ConfigError.
    """

    data: DataConfig | None = None
    model: ModelConfig = field(default_factory=ModelConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    devices: tuple[DeviceConfig, ...] = ()

    def __post_init__(self) -> None:
        if self.data is not None:
            object.__setattr__(self, "data", read(DataConfig, self.data))
        object.__setattr__(self, "model", read(ModelConfig, self.model))
        object.__setattr__(self, "training", read(TrainingConfig, self.training))
        object.__setattr__(self, "devices", tuple(read(DeviceConfig, d) for d in self.devices))
        self._check_devices()

    def _check_devices(self) -> None:
        """Refuse classes that share a name, none that trains, or two without a count."""
        names = [device.name for device in self.devices]
        for name in names:
            if names.count(name) > 1:
                raise ConfigError(f"[[device]] name = {name!r} comes twice: rename one of them")
        if not any(device.role == "train" for device in self.devices):
            raise ConfigError("no [[device]] trains: add one with a name, a count and a memory")
        for role in ("train", "evaluate"):
            open_ended = [d.name for d in self.devices if d.role == role and d.count is None]
            if len(open_ended) > 1:
                raise ConfigError(
                    f"[[device]] {' and '.join(open_ended)} have no count: one of them at most may "
                    "take the devices that are left"
                )

    @classmethod
    def from_toml(cls, path: str | Path) -> FleetConfig:
        """Return the fleet that a TOML file describes. Raises ConfigError naming what is wrong."""
        try:
            document = tomllib.loads(Path(path).read_text(encoding="utf-8"))
        except OSError as error:
            raise ConfigError(f"cannot read {path}: {error.strerror}: check the path") from None
        except ValueError as error:
            raise ConfigError(f"{path} is not TOML: {error}") from None
        try:
            return cls.from_table(document, Path(path).parent)
        except ConfigError as error:
            raise ConfigError(f"{path}: {error}") from None

    @classmethod
    def from_table(cls, document: Mapping[str, Any], folder: Path | None = None) -> FleetConfig:
        """Return the fleet in a TOML document; a relative [data] path is looked for in `folder`."""
        for key in document:
            if key not in SECTIONS:
                raise ConfigError(f"there is no table [{key}]: {nearest(key, SECTIONS)}")
        devices = document.get("device", [])
        if not isinstance(devices, list):
            raise ConfigError("[device] must be written [[device]], once for each class")
        return cls(
            read_data(document["data"], folder) if "data" in document else None,
            ModelConfig.from_table(document.get("model", {})),
            TrainingConfig.from_table(document.get("training", {})),
            tuple(read_device(number, device) for number, device in enumerate(devices, 1)),
        )

    def to_table(self) -> dict[str, Any]:
        """Return the document that makes this fleet again."""
        data = {} if self.data is None else {"data": self.data.to_table()}
        return {
            **data,
            "model": self.model.to_table(),
            "training": self.training.to_table(),
            "device": [device.to_table() for device in self.devices],
        }

    @property
    def dealt(self) -> DataConfig:
        """The data that a simulation deals out. Raises ConfigError where there are none."""
        if self.data is None:
            raise ConfigError("a simulated fleet needs a [data] table: add one with a path")
        return self.data


def read_data(found: object, folder: Path | None) -> DataConfig:
    """Return the data in a table; a relative path is looked for in `folder` first."""
    data = DataConfig.from_table(found)
    if folder is not None and (folder / data.path).is_dir() and not is_named(data.path):
        return replace(data, path=str(folder / data.path))
    return data


def is_named(path: str) -> bool:
    """Say whether a [data] path is the name of a known set, which wins over a folder's."""
    from edgetrain.data.catalogue import entries  # noqa: PLC0415 - numpy, for this question alone

    return any(path == entry.name for entry in entries())


def read_device(number: int, found: object) -> DeviceConfig:
    """Return a class of devices; an error says which [[device]] of the file it is, from 1."""
    try:
        return DeviceConfig.from_table(found)
    except ConfigError as error:
        table = DeviceConfig.table
        raise ConfigError(str(error).replace(table, f"{table} number {number}:", 1)) from None


Kind = TypeVar("Kind", bound=Settings)


def read(kind: type[Kind], found: object) -> Kind:
    """Return a part of the fleet that was given as its dataclass or as its table."""
    return found if isinstance(found, kind) else kind.from_table(found)
