"""torch.nn's transformers in float64 and ours with the same weights, masks for both, and what it takes to compare."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import Tensor, nn

import mmha
from tolerances import assert_near

WIDTH, HEADS, HIDDEN, BATCH, SRC, TGT, LAYERS = 6, 3, 11, 2, 7, 5, 2
SIZES = {"d_model": WIDTH, "nhead": HEADS, "dim_feedforward": HIDDEN}
DEPTHS = {"num_encoder_layers": LAYERS, "num_decoder_layers": LAYERS}
OPTIONS: dict[str, dict[str, Any]] = {
    "defaults": {},
    "norm first": {"norm_first": True, "batch_first": True},
    "no bias": {"bias": False, "activation": "gelu", "batch_first": True},
    "callable": {"activation": torch.tanh, "norm_first": True, "layer_norm_eps": 0.1},
}

LENGTHS = (7, 4)
PADDING = torch.arange(SRC) >= torch.tensor(LENGTHS)[:, None]
CAUSAL = nn.Transformer.generate_square_subsequent_mask(SRC)
BAND = (torch.arange(SRC)[:, None] - torch.arange(SRC)).abs() > 3
SCORES = torch.randn(SRC, SRC, generator=torch.Generator().manual_seed(5))
#: Of each name: a mask (L, S) or (N * H, L, S) among SRC tokens, and a key padding mask (N, S).
MASKS: dict[str, tuple[Tensor | None, Tensor | None]] = {
    "none": (None, None),
    "causal": (CAUSAL, None),
    "bool": (BAND, None),
    "padding": (None, PADDING),
    "causal and padding": (CAUSAL, PADDING),
    "bool and padding": (BAND, PADDING),
    "added": (SCORES, None),
    "added, hidden and padding": (SCORES.masked_fill(BAND, -torch.inf), PADDING),
    "heads apart": (torch.stack([BAND, BAND.T & (SCORES > 0), BAND & (SCORES < 0)] * BATCH), None),
    "added to keys": (BAND, torch.linspace(-1.0, 1.0, BATCH * SRC).view(BATCH, SRC)),
    "added twice": (SCORES, torch.linspace(-1.0, 1.0, BATCH * SRC).view(BATCH, SRC)),
}


def twins(name: str, dtype: torch.dtype = torch.float64, **given: Any) -> tuple[nn.Module, nn.Module]:
    """torch's module, in training, where it has only one way to compute, and ours."""
    made = []
    for home, kind in ((nn, torch.float64), (mmha.nn, dtype)):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's encoder tells why it does not make nested tensors
            made.append(_made(home, name, {"dropout": 0.0, **given, "dtype": kind}))
    theirs, ours = made
    for parameter in theirs.parameters():  # norms of 1 and biases of 0 would hide each other, and layers be alike
        nn.init.normal_(parameter, std=0.5)
    ours.load_state_dict(theirs.state_dict())
    return theirs, ours


def _made(home: Any, name: str, given: dict[str, Any]) -> nn.Module:
    if name == "Transformer":
        return home.Transformer(**SIZES, **DEPTHS, **given)
    if name.endswith("Layer"):
        return getattr(home, name)(**SIZES, **given)
    layer = getattr(home, f"{name}Layer")(**SIZES, **given)
    return getattr(home, name)(layer, LAYERS, nn.LayerNorm(WIDTH, dtype=given["dtype"]))


def tokens(length: int, batch_first: bool = False) -> Tensor:
    return torch.randn((BATCH, length, WIDTH) if batch_first else (length, BATCH, WIDTH), dtype=torch.float64)


def for_torch(*masks: Tensor | None) -> list[Tensor | None]:
    """The masks as floats, in which torch takes all of them without a warning."""
    return [None if mask is None else _as_float(mask) for mask in masks]


def _as_float(mask: Tensor) -> Tensor:
    if mask.dtype != torch.bool:
        return mask.double()
    return torch.zeros(mask.shape, dtype=torch.float64).masked_fill(mask, -torch.inf)


def compare(modules: tuple[nn.Module, nn.Module], inputs: list[Tensor], theirs: Any, ours: Any, dtype: Any) -> Tensor:
    """Our output, once it and the gradients for the inputs and all weights are torch's, and evaluation agrees."""
    exact, mine = [x.clone().requires_grad_() for x in inputs], [x.to(dtype).requires_grad_() for x in inputs]
    wanted, got = modules[0](*exact, **theirs), modules[1](*mine, **ours)
    assert got.dtype == dtype
    assert_near(got, wanted, dtype, factor=4)
    seed = torch.randn_like(wanted)
    wanted_grads = torch.autograd.grad(wanted, [*exact, *modules[0].parameters()], seed)
    grads = torch.autograd.grad(got, [*mine, *modules[1].parameters()], seed.to(dtype))
    scale = torch.stack([x.abs().max() for x in wanted_grads]).max()
    for x, y in zip(grads, wanted_grads, strict=True):
        assert_near(x, y, dtype, factor=8, scale=scale)
    modules[1].eval()
    assert torch.equal(modules[1](*mine, **ours), got)
    return got.detach()
