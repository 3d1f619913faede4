"""The installed edgetrain's ServerApp."""

from edgetrain.coordinator.app import app

__all__ = ["app"]
