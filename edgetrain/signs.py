"""Packs the signs of latents, however they are held, into words of 32, as the kernels read them."""

from __future__ import annotations

from collections.abc import Callable

from edgetrain.errors import PayloadError
from edgetrain.ops.op import LANES, padded
from edgetrain.tensorfile import State, Tensor

__all__ = ["take_signs"]

PLUS, MINUS = b"1", b"0"


def take_signs(tensors: State, layer: str, rows: int, columns: int) -> Tensor:
    """Take the latents of a layer out of a state, and return the signs of its weights.

    They are U32 (rows, words of 32 columns), a bit set where a weight is +1; a layer that holds
    signs keeps them. Raises PayloadError for a layer that has neither.
    """
    if (signs := tensors.pop(f"{layer}.signs", None)) is not None:
        return signs
    for name, digits_of in DIGITS.items():
        if (latents := tensors.pop(f"{layer}.{name}", None)) is not None:
            return _packed(digits_of(bytes(latents.data)), rows, columns)
    raise PayloadError(f"the state lacks the weights of {layer}")


def _packed(digits: bytes, rows: int, columns: int) -> Tensor:
    stride, size = len(digits) // rows, padded(columns) // 8
    # The first column is the lowest bit, and a number's last digit.
    data = b"".join(
        int(digits[row * stride : row * stride + columns][::-1], 2).to_bytes(size, "little")
        for row in range(rows)
    )
    return Tensor("U32", (rows, padded(columns) // LANES), data)


def _table(highest: int) -> bytes:
    """Map every byte to the digit of the sign that its bit of value `highest` says."""
    return b"".join(MINUS if value & highest else PLUS for value in range(256))


BYTE, LOW_NIBBLE = _table(0x80), _table(0x08)


def _nibbles(data: bytes) -> bytes:
    digits = bytearray(2 * len(data))
    digits[::2], digits[1::2] = data.translate(LOW_NIBBLE), data.translate(BYTE)
    return bytes(digits)


DIGITS: dict[str, Callable[[bytes], bytes]] = {
    "latent": lambda data: data.translate(BYTE),
    "latent4": _nibbles,
    "latent16": lambda data: data[1::2].translate(BYTE),
}
"""The digit of every latent's sign, by the name of the latents."""
