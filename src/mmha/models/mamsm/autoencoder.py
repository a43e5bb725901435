"""Stage 2, the model: linear to hidden time courses and back, the first of which are held to the task's curves."""

from __future__ import annotations

from torch import Tensor, nn

from mmha import checks
from mmha.nn import Linear

HIDDEN = 256


class Autoencoder(nn.Module):
    """z = W₁·x, y = W₂·z, without biases: a volume's features (inputs,) → hidden (hidden,) → its values (voxels,).

    Args: inputs = voxels · heads; voxels; hidden, how many time courses.
    Source: He et al. (2023), section 2.4.

    >>> import torch
    >>> model = Autoencoder(inputs=14, voxels=7, hidden=5)
    >>> model(torch.zeros(3, 14)).shape, model.encode(torch.zeros(3, 14)).shape
    (torch.Size([3, 7]), torch.Size([3, 5]))
    """

    def __init__(self, inputs: int, voxels: int, hidden: int = HIDDEN) -> None:
        super().__init__()
        for name, size in (("inputs", inputs), ("voxels", voxels), ("hidden", hidden)):
            checks.integer(name, size, minimum=1)
        self.encoder = Linear(inputs, hidden, bias=False)
        self.decoder = Linear(hidden, voxels, bias=False)

    def encode(self, inputs: Tensor) -> Tensor:
        """The hidden time courses: (T, inputs) → (T, hidden)."""
        hidden: Tensor = self.encoder(inputs)
        return hidden

    def forward(self, inputs: Tensor) -> Tensor:
        values: Tensor = self.decoder(self.encode(inputs))
        return values
