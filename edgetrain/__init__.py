"""Federated training of binary neural networks inside a memory budget.

Names resolve on first use, so that a device's worker that needs the planner and the native
engine alone never pays for numpy.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from edgetrain._version import __version__

if TYPE_CHECKING:
    from edgetrain import models as models
    from edgetrain.config import FleetConfig as FleetConfig
    from edgetrain.coordinator.simulation.report import SimulationReport as SimulationReport
    from edgetrain.coordinator.simulation.simulate import simulate as simulate
    from edgetrain.errors import BudgetError as BudgetError
    from edgetrain.errors import EdgetrainError as EdgetrainError
    from edgetrain.model import Model as Model
    from edgetrain.onnx import export_onnx as export_onnx
    from edgetrain.onnx_import import from_onnx as from_onnx
    from edgetrain.packed import export_packed as export_packed
    from edgetrain.planner import Plan as Plan
    from edgetrain.planner import plan as plan
    from edgetrain.predictor import Predictor as Predictor
    from edgetrain.torch import from_torch as from_torch
    from edgetrain.train import Metrics as Metrics
    from edgetrain.train import Trainer as Trainer
    from edgetrain.train import load as load

_HOME = {
    "BudgetError": "edgetrain.errors",
    "EdgetrainError": "edgetrain.errors",
    "FleetConfig": "edgetrain.config",
    "Metrics": "edgetrain.train",
    "Model": "edgetrain.model",
    "Plan": "edgetrain.planner",
    "Predictor": "edgetrain.predictor",
    "SimulationReport": "edgetrain.coordinator.simulation.report",
    "Trainer": "edgetrain.train",
    "export_onnx": "edgetrain.onnx",
    "export_packed": "edgetrain.packed",
    "from_onnx": "edgetrain.onnx_import",
    "from_torch": "edgetrain.torch",
    "load": "edgetrain.train",
    "plan": "edgetrain.planner",
    "simulate": "edgetrain.coordinator.simulation.simulate",
}

__all__ = ["__version__", "models", *_HOME]  # noqa: PLE0604


def __getattr__(name: str) -> Any:
    if name == "models":
        return import_module("edgetrain.models")
    if name not in _HOME:
        raise AttributeError(f"module 'edgetrain' has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
