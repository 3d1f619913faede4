"""What device_memory.py compares with: a Flower ClientApp's process that trains BinaryNet in torch.

The same layers as our `binarynet`, in 32-bit floats with signs in the forward pass and straight
gradients, and Adam: what a ClientApp for it looks like where nobody minds the memory.
"""

from __future__ import annotations

import flwr.clientapp  # noqa: F401 - its memory is part of a ClientApp's
import torch
from torch import Tensor, nn

BATCH, STEPS, CLASSES = 100, 3, 10
CHANNELS = ((3, 128), (128, 128), (128, 256), (256, 256), (256, 512), (512, 512))
DENSE = ((512 * 4 * 4, 1024), (1024, 1024), (1024, CLASSES))


class Sign(nn.Module):
    """Signs forward, the gradient unchanged between -1 and 1."""

    def forward(self, x: Tensor) -> Tensor:
        """Return signs."""
        bounded = x.clamp(-1, 1)
        return bounded + (x.sign() - bounded).detach()


def network() -> nn.Module:
    """Return BinaryNet."""
    layers: list[nn.Module] = []
    for number, (inputs, outputs) in enumerate(CHANNELS):
        layers.append(nn.Conv2d(inputs, outputs, 3, padding=1))
        if number % 2:
            layers.append(nn.MaxPool2d(2))
        layers += [nn.BatchNorm2d(outputs), Sign()]
    layers.append(nn.Flatten())
    for inputs, outputs in DENSE:
        layers += [nn.Linear(inputs, outputs), nn.BatchNorm1d(outputs), Sign()]
    return nn.Sequential(*layers[:-1])


def main() -> None:
    """Train for a few steps."""
    torch.manual_seed(0)
    model = network()
    optimiser = torch.optim.Adam(model.parameters())
    for _ in range(STEPS):
        images, labels = torch.randn(BATCH, 3, 32, 32), torch.randint(CLASSES, (BATCH,))
        loss = nn.functional.cross_entropy(model(images), labels)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()


if __name__ == "__main__":
    main()
