"""The oracle: one training step in plain numpy, op by op, bit for bit what the engine must give.

Written for the reader, not for speed: whole tensors, 64-bit integers, no tiles. One module an op;
`network` puts them together.
"""

from __future__ import annotations

from edgetrain.reference.network import ReferenceNetwork

__all__ = ["ReferenceNetwork"]
