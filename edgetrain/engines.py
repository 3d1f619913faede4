"""The two engines that run a plan: the native one, and the numpy oracle."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from edgetrain import _native
from edgetrain.errors import BudgetError, EngineError
from edgetrain.gradient import Engine
from edgetrain.planner import Plan
from edgetrain.sizes import format_size

if TYPE_CHECKING:
    from edgetrain.reference.engine import ReferenceEngine

__all__ = ["start"]


def start(plan: Plan, seed: int, engine: Engine) -> _native.Engine | ReferenceEngine:
    """Return an engine with a plan's initial weights.

    Raises ModelError for a gradient format that the engine does not run, EngineError for an unknown
    EDGETRAIN_ISA, BudgetError where the arena cannot be had.
    """
    seed &= 0xFFFFFFFFFFFFFFFF
    plan.gradient.check_engine(engine)
    if engine == "reference":
        from edgetrain.reference.engine import (  # noqa: PLC0415  (numpy: not on a device)
            ReferenceEngine,
        )

        return ReferenceEngine(plan, seed)
    try:
        return _native.Engine(plan.program(), seed, os.environ.get("EDGETRAIN_ISA", ""))
    except MemoryError:
        raise BudgetError(
            f"the arena of {format_size(plan.peak_bytes)} could not be had: choose a smaller "
            f"micro-batch or stop what else runs here"
        ) from None
    except ValueError as error:
        raise EngineError(str(error)) from None
