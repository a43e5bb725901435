"""Everything that attention takes beside q, k, v and a mask: one case of every kind, some combinations, and how the
reference is told about them."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from mmha.bias import Additive, ALiBi, Bias, Relative
from mmha.reference import Dropout

Sizes = tuple[int, int, int, int]
Leaves = dict[str, Tensor]


class Feature(NamedTuple):
    """leaves: what may want a gradient, for sizes (B, H, Tq, Tk). numbers: softcap and dropout_p."""

    leaves: Callable[[Sizes], Leaves] = lambda sizes: {}
    numbers: dict[str, float] = {}  # noqa: RUF012

    def make(self, sizes: Sizes) -> Leaves:
        """The leaves, the same every time, wanting gradients."""
        with torch.random.fork_rng():
            torch.manual_seed(17)
            return {name: x.requires_grad_() for name, x in self.leaves(sizes).items()}


def _holed(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Numbers, a third of them -inf: those pairs are hidden."""
    return torch.randn(shape).masked_fill(torch.rand(shape) < 0.3, -math.inf).to(dtype)


def _strided(*shape: int) -> Tensor:
    """Numbers in no order a kernel could hope for."""
    return torch.randn(*reversed(shape), 2)[..., 1].permute(*reversed(range(len(shape))))


FEATURES: dict[str, Feature] = {
    "alibi": Feature(lambda s: {"slopes": torch.rand(s[1])}),
    "relative": Feature(lambda s: {"table": torch.randn(s[1], 2 * 3 + 1)}),
    "relative, shared, in half": Feature(lambda s: {"table": torch.randn(1, 2 * 2 + 1).half()}),
    "additive": Feature(lambda s: {"additive": torch.randn(s)}),
    "additive per head and key": Feature(lambda s: {"additive": torch.randn(s[1], 1, s[3])}),
    "additive per row, in bfloat16": Feature(lambda s: {"additive": torch.randn(s[0], 1, s[2], 1).bfloat16()}),
    "additive in half, any strides": Feature(lambda s: {"additive": _strided(s[1], s[2], s[3]).half()}),
    "additive in float64": Feature(lambda s: {"additive": torch.randn(s[2], s[3], dtype=torch.float64)}),
    "additive with -inf": Feature(lambda s: {"additive": _holed(*s)}),
    "float mask": Feature(lambda s: {"mask": _holed(s[2], s[3], dtype=torch.bfloat16)}),
    "softcap": Feature(numbers={"softcap": 1.5}),
    "sinks": Feature(lambda s: {"sinks": torch.randn(s[1])}),
    "sinks in bfloat16": Feature(lambda s: {"sinks": torch.randn(s[1]).bfloat16()}),
    "dropout": Feature(numbers={"dropout_p": 0.3}),
    "softcap, sinks": Feature(lambda s: {"sinks": torch.randn(s[1])}, {"softcap": 0.7}),
    "alibi, relative, additive": Feature(
        lambda s: {"slopes": torch.rand(s[1]), "table": torch.randn(s[1], 5), "additive": torch.randn(s[1], 1, s[3])}
    ),
    "everything": Feature(
        lambda s: {
            "slopes": torch.rand(s[1]), "table": torch.randn(1, 7), "additive": _holed(*s),
            "more": torch.randn(s[0], 1, 1, s[3]).half(), "sinks": torch.randn(s[1]),
            "mask": _holed(s[0], 1, s[2], s[3]),
        },
        {"softcap": 2.5, "dropout_p": 0.2},
    ),
}  # fmt: skip


def arguments_of(leaves: Leaves, numbers: dict[str, float]) -> dict[str, Any]:
    """What `mmha.attention` takes; a mask only where there is one."""
    makers: dict[str, Callable[[Tensor], Bias]] = {
        "slopes": ALiBi, "table": Relative, "additive": Additive, "more": Additive,
    }  # fmt: skip
    found: dict[str, Any] = {**numbers}
    for name, x in leaves.items():
        if name in makers:
            made = makers[name](x)
            found["bias"] = made if "bias" not in found else found["bias"] + made
        else:
            found[name] = x
    return found


def rule_of(leaves: Leaves, numbers: dict[str, float], heads: int, seed: int | None = None) -> dict[str, Any]:
    """What `reference.Rule` takes. Its additives come in the order of `additives_of`."""
    found: dict[str, Any] = {name: leaves[name] for name in ("slopes", "sinks") if name in leaves}
    if "table" in leaves:
        found["table"] = leaves["table"].expand(heads, -1)
    found["additive"] = tuple(leaves[name] for name in additives_of(leaves)) or None
    found["softcap"] = numbers.get("softcap")
    if "dropout_p" in numbers:
        assert seed is not None
        found["dropout"] = Dropout(numbers["dropout_p"], seed)
    return found


def additives_of(leaves: Leaves) -> list[str]:
    """The names of the leaves that are added pair by pair."""
    return [name for name in ("mask", "additive", "more") if name in leaves]


def seed_drawn_after(start: int) -> int:
    """The seed that dropout draws first after torch.manual_seed(start), which is left as it was then."""
    torch.manual_seed(start)
    seed = int(torch.randint((1 << 63) - 1, (1,)))
    torch.manual_seed(start)
    return seed
