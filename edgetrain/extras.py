"""Packages that only some of what the library does needs: they are imported where it is done."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from edgetrain.errors import ConfigError

__all__ = ["onnx_needed"]


@contextmanager
def onnx_needed() -> Iterator[None]:
    """Raise ConfigError, which says what to install, where an import of onnx in here fails."""
    try:
        yield
    except ModuleNotFoundError:
        raise ConfigError("ONNX files need onnx: pip install 'edgetrain[fleet]'") from None
