"""`mmha.nn.functional.multi_head_attention_forward` against torch.nn.functional's, argument by argument."""

from __future__ import annotations

import inspect
import random
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from mmha.nn.functional import multi_head_attention_forward

N, H, L, S, D = 2, 3, 5, 7, 4
E = H * D


def sample(seed: int) -> dict[str, Any]:
    """Arguments for both, chosen at random."""
    flip = random.Random(seed)
    torch.manual_seed(seed)

    def maybe(x: Any) -> Any:
        return x if flip.random() < 0.5 else None

    batch = maybe(N) or 1
    lead = (batch,) if batch == N else ()
    made: dict[str, Any] = {"embed_dim_to_check": E, "num_heads": H, "dropout_p": 0.3, "training": False}
    made |= {"query": torch.randn(L, *lead, E), "key": torch.randn(S, *lead, E), "value": torch.randn(S, *lead, E)}
    made |= {"in_proj_weight": 0.3 * torch.randn(3 * E, E), "in_proj_bias": maybe(torch.randn(3 * E))}
    made |= {"out_proj_weight": 0.3 * torch.randn(E, E), "out_proj_bias": maybe(torch.randn(E))}
    made |= {"bias_k": None, "bias_v": None, "add_zero_attn": flip.random() < 0.5}
    made |= {"need_weights": flip.random() < 0.7, "average_attn_weights": flip.random() < 0.5}
    hidden = torch.rand(L, S) < 0.4
    hidden[:, 0] = False
    made["attn_mask"] = maybe(flip.choice([hidden, torch.zeros(L, S).masked_fill(hidden, -torch.inf)]))
    padding = torch.zeros(*lead, S, dtype=torch.bool)
    padding[..., 4:] = True
    made["key_padding_mask"] = (
        maybe(padding) if made["attn_mask"] is None or made["attn_mask"].dtype == torch.bool else None
    )
    if flip.random() < 0.4:
        made["key"], made["value"] = torch.randn(S, *lead, 6), torch.randn(S, *lead, 8)
        weights = {"q_proj_weight": (E, E), "k_proj_weight": (E, 6), "v_proj_weight": (E, 8)}
        made |= {name: 0.3 * torch.randn(shape) for name, shape in weights.items()}
        made |= {"use_separate_proj_weight": True, "in_proj_weight": None}
    choice = flip.randrange(3)
    if choice == 1:
        made |= {"bias_k": torch.randn(1, 1, E), "bias_v": torch.randn(1, 1, E)}
    elif choice == 2:
        made |= {"static_k": torch.randn(batch * H, S, D), "static_v": maybe(torch.randn(batch * H, S, D))}
    return made


@pytest.mark.parametrize("seed", range(40))
def test_values_and_gradients_are_torchs(seed: int, one_thread: None) -> None:
    results = []
    for compute in (F.multi_head_attention_forward, multi_head_attention_forward):
        arguments = sample(seed)
        leaves = {
            name: x.requires_grad_()
            for name, x in arguments.items()
            if isinstance(x, Tensor) and x.is_floating_point() and "mask" not in name
        }
        out, weights = compute(**arguments)
        loss = out.square().sum() + (0.0 if weights is None else weights.square().sum())
        grads = torch.autograd.grad(loss, list(leaves.values()), allow_unused=True)
        results.append([out, weights, *(g if g is None or g.any() else None for g in grads)])
    for wanted, found in zip(*results, strict=True):
        if wanted is None:
            assert found is None
        else:
            torch.testing.assert_close(found, wanted, rtol=1e-3, atol=2e-4)


def test_its_signature_is_torchs() -> None:
    ours, theirs = (inspect.signature(f) for f in (multi_head_attention_forward, F.multi_head_attention_forward))
    assert [(p.name, p.default, p.kind) for p in ours.parameters.values()] == [
        (p.name, p.default, p.kind) for p in theirs.parameters.values()
    ]


def test_is_causal_alone_and_dropout_in_training_only() -> None:
    arguments = sample(0) | {"attn_mask": None, "key_padding_mask": None, "need_weights": True, "add_zero_attn": False}
    arguments |= {"static_k": None, "static_v": None, "bias_k": None, "bias_v": None, "average_attn_weights": True}
    out, weights = multi_head_attention_forward(**arguments, is_causal=True)
    assert weights is not None
    seen = torch.ones(L, S, dtype=torch.bool).tril(S - L)
    assert torch.equal(weights > 0, seen.expand_as(weights))
    dropped, same = multi_head_attention_forward(**arguments | {"training": True}, is_causal=True)
    torch.testing.assert_close(same, weights)
    assert not torch.allclose(dropped, out)
