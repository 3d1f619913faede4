"""Everything edgetrain raises on purpose, each with the exit code a command ends with.

EdgetrainError
├── ConfigError        a configuration file or option is wrong
├── DataError          a data file is missing, damaged or does not fit
├── ModelError         a model cannot be built, or does not fit its data
├── BudgetError        nothing fits the memory or energy that was allowed
├── EngineError        the native engine refused a plan or a setting
├── PayloadError       bytes off a wire or a disk are not what they claim to be
│   └── RefusedError   a device's report must not count
├── StorageError       a file could not be written; what was there before is intact
├── WorkerError        a training process ended without a report
├── OverBudgetError    a command was stopped because it used more than it was allowed
├── EnforceError       this system offers no way to hold a command to a limit
├── FleetError         the coordinator cannot be reached, or refuses this device
└── ServiceError       a federation's services cannot be reached, or refuse

Every message is one line that names the cause and the cure.
"""

from __future__ import annotations

from typing import ClassVar

__all__ = [
    "BudgetError",
    "ConfigError",
    "DataError",
    "EdgetrainError",
    "EnforceError",
    "EngineError",
    "FleetError",
    "ModelError",
    "OverBudgetError",
    "PayloadError",
    "RefusedError",
    "ServiceError",
    "StorageError",
    "WorkerError",
]


class EdgetrainError(Exception):
    """Base of every error that edgetrain raises on purpose."""

    exit_code: ClassVar[int] = 10


class ConfigError(EdgetrainError):
    """A configuration file or option is wrong."""

    exit_code: ClassVar[int] = 11


class DataError(EdgetrainError):
    """A data file is missing, damaged, or does not fit the model."""

    exit_code: ClassVar[int] = 12


class ModelError(EdgetrainError):
    """A model cannot be built, or does not fit its data."""

    exit_code: ClassVar[int] = 13


class BudgetError(EdgetrainError):
    """Nothing fits the memory or energy that was allowed."""

    exit_code: ClassVar[int] = 14


class EngineError(EdgetrainError):
    """The native engine refused a plan or a setting."""

    exit_code: ClassVar[int] = 15


class PayloadError(EdgetrainError):
    """Bytes off a wire or a disk are not what they claim to be."""

    exit_code: ClassVar[int] = 16


class RefusedError(PayloadError):
    """A device's report must not count; `refusal` is the name of the rule that it breaks."""

    def __init__(self, message: str, refusal: str) -> None:
        super().__init__(message)
        self.refusal = refusal


class StorageError(EdgetrainError):
    """A file could not be written; what was there before is intact."""

    exit_code: ClassVar[int] = 17


class WorkerError(EdgetrainError):
    """A training process ended without a report."""

    exit_code: ClassVar[int] = 18


class OverBudgetError(EdgetrainError):
    """A command was stopped because it used more than it was allowed."""

    exit_code: ClassVar[int] = 19


class EnforceError(EdgetrainError):
    """This system offers no way to hold a command to a limit."""

    exit_code: ClassVar[int] = 20


class FleetError(EdgetrainError):
    """The coordinator cannot be reached, or refuses this device.

    `status` is that of its HTTP answer, `code` Flower's number for what is wrong; None without.
    """

    exit_code: ClassVar[int] = 21

    def __init__(self, message: str, *, status: int | None = None, code: int | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.code = code


class ServiceError(EdgetrainError):
    """A federation's services cannot be reached, or refuse what was asked."""

    exit_code: ClassVar[int] = 22
