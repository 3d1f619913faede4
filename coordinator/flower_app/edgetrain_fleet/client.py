"""The installed edgetrain's ClientApp."""

from edgetrain.client.app import app

__all__ = ["app"]
