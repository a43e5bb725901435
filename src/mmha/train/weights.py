"""The weights of a model by name, and their running means. A tensor may be a share of a whole one (DTensor)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn


def named(model: nn.Module) -> dict[str, Tensor]:
    """Parameters and the buffers that a checkpoint holds, the tensors themselves; a tied one once."""
    found: dict[str, Tensor] = dict(model.named_parameters())
    known = {id(tensor) for tensor in found.values()}
    state = model.state_dict(keep_vars=True)
    return found | {name: tensor for name, tensor in state.items() if id(tensor) not in known}


@torch.no_grad()
def put(model: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Copy weights into a model."""
    for name, tensor in named(model).items():
        tensor.copy_(weights[name])


def copied(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A copy that later steps leave alone."""
    return {name: tensor.detach().clone() for name, tensor in weights.items()}


class Means:
    """What is scored in the place of the weights: their running mean (`decay`), then the mean over the last rounds.

    Args: decay, 0 for the weights as they are; last, over how many rounds' ends.

    >>> layer = nn.Linear(1, 1, bias=False)
    >>> means = Means(named(layer), decay=0.0, last=2)
    >>> for value in (1.0, 2.0, 4.0):
    ...     put(layer, {"weight": torch.full((1, 1), value)})
    ...     means.end_round()
    >>> means.now()["weight"].item()
    3.0
    """

    def __init__(self, weights: Mapping[str, Tensor], decay: float, last: int) -> None:
        self.weights, self.decay, self.last = weights, decay, last
        self.running = copied(weights) if decay else {}
        self.ends: list[dict[str, Tensor]] = []

    @torch.no_grad()
    def update(self, step: int) -> None:
        """After step number `step`, counted from 1."""
        # Young means forget faster, else the random start would weigh for a thousand steps.
        decay = min(self.decay, (1 + step) / (10 + step))
        for name, mean in self.running.items():
            if mean.is_floating_point():
                mean.lerp_(self.weights[name].detach(), 1.0 - decay)
            else:
                mean.copy_(self.weights[name])

    def end_round(self) -> None:
        """Remember what the round ends with, when more than the last one counts."""
        if self.last > 1:
            self.ends = [*self.ends, copied(self.running or self.weights)][-self.last :]

    @torch.no_grad()
    def now(self) -> Mapping[str, Tensor]:
        """The weights to score and to keep."""
        if not self.ends:
            return self.running or self.weights
        mean = copied(self.ends[-1])
        for name, tensor in mean.items():
            if tensor.is_floating_point():
                for number, earlier in enumerate(self.ends[:-1], 2):
                    tensor.lerp_(earlier[name], 1.0 / number)
        return mean

    def tensors(self) -> dict[str, Tensor]:
        """All that must be kept to go on, by name."""
        found = {f"running.{name}": tensor for name, tensor in self.running.items()}
        for number, end in enumerate(self.ends):
            found |= {f"end{number}.{name}": tensor for name, tensor in end.items()}
        return found

    def expect(self, rounds: int) -> None:
        """Make room for what a run holds after so many rounds, to be filled from its state."""
        self.ends = [copied(self.weights) for _ in range(min(rounds, self.last))] if self.last > 1 else []


def blocks(model: nn.Module) -> list[nn.Module]:
    """The layers of a model's stacks: what its outermost ModuleLists hold."""
    found: list[nn.Module] = []
    waiting: list[nn.Module] = [model]
    while waiting:
        module = waiting.pop(0)
        if isinstance(module, nn.ModuleList):
            found += list(module)
        else:
            waiting += list(module.children())
    return found
