"""`mmha.nn.MultiheadAttention` against torch.nn.MultiheadAttention with the same weights: values and every gradient."""

from __future__ import annotations

import itertools
import random
import warnings
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mmha.nn import MultiheadAttention

N, L, S = 2, 5, 7
SIZES = {(12, 3): None, (20, 4): None, (7, 1): None, (6, 6): None}  # (E, H)
OPTIONS: dict[str, list[Any]] = {
    "size": list(SIZES),
    "bias": [True, False],
    "add_bias_kv": [False, True],
    "add_zero_attn": [False, True],
    "dims": [(None, None), (5, 11), (None, 11)],
    "layout": ["batch_first", "length_first", "unbatched"],
    "inputs": ["self", "key is value", "apart"],
    "training": [True, False],
    "attn_mask": [None, "bool 2", "float 2", "bool 3", "float 3"],
    "padding": [None, "bool", "float"],
    "weights": ["no", "averaged", "per head"],
}


def samples(count: int) -> list[dict[str, Any]]:
    """Random choices in which every pair of values of two options occurs."""
    generator, made = random.Random(0), []
    names = list(OPTIONS)
    missing = {
        (a, i, b, j)
        for a, b in itertools.combinations(names, 2)
        for i in range(len(OPTIONS[a]))
        for j in range(len(OPTIONS[b]))
    }

    def covers(picks: dict[str, int]) -> set[tuple[str, int, str, int]]:
        return {(a, picks[a], b, picks[b]) for a, b in itertools.combinations(names, 2)}

    for _ in range(count):
        tries = [{name: generator.randrange(len(OPTIONS[name])) for name in names} for _ in range(30)]
        best = max(tries, key=lambda picks: len(covers(picks) & missing))
        missing -= covers(best)
        made.append({name: OPTIONS[name][i] for name, i in best.items()})
    assert not missing
    return made


def build(sample: dict[str, Any]) -> tuple[nn.MultiheadAttention, MultiheadAttention]:
    """torch's module and ours with the same random weights, biases that are not 0 included."""
    (width, heads), (kdim, vdim) = sample["size"], sample["dims"]
    options = {name: sample[name] for name in ("bias", "add_bias_kv", "add_zero_attn")}
    options |= {"kdim": kdim, "vdim": vdim, "batch_first": sample["layout"] == "batch_first"}
    theirs, ours = nn.MultiheadAttention(width, heads, **options), MultiheadAttention(width, heads, **options)
    for p in theirs.parameters():
        nn.init.normal_(p, std=0.3)
    ours.load_state_dict(theirs.state_dict())
    return theirs.train(sample["training"]), ours.train(sample["training"])


def inputs_of(sample: dict[str, Any]) -> list[Tensor]:
    """The distinct tensors among query, key and value."""
    width, (kdim, vdim) = sample["size"][0], sample["dims"]

    def one(length: int, dim: int | None) -> Tensor:
        lead = {"batch_first": (N, length), "length_first": (length, N), "unbatched": (length,)}[sample["layout"]]
        return torch.randn(*lead, dim or width)

    made = [one(L, None), one(S, kdim), one(S, vdim)]
    same = kdim is None and vdim is None
    return made[: {"self": 1, "key is value": 2, "apart": 3}[sample["inputs"]] if same else 3]


def masks_of(sample: dict[str, Any], inputs: list[Tensor]) -> dict[str, Tensor]:
    """Masks that hide many keys but never key 0, so that torch's results are defined."""
    batch = 1 if sample["layout"] == "unbatched" else N
    k_len = L if len(inputs) == 1 else S
    made = {}
    if sample["attn_mask"] is not None:
        kind, dims = sample["attn_mask"].split()
        hidden = torch.rand((L, k_len) if dims == "2" else (batch * sample["size"][1], L, k_len)) < 0.5
        hidden[..., 0] = False
        made["attn_mask"] = hidden if kind == "bool" else torch.randn(hidden.shape).masked_fill(hidden, -torch.inf)
    if sample["padding"] is not None:
        hidden = torch.rand((k_len,) if sample["layout"] == "unbatched" else (batch, k_len)) < 0.5
        hidden[..., 0] = False
        is_bool = sample["padding"] == "bool"
        made["key_padding_mask"] = hidden if is_bool else torch.randn(hidden.shape).masked_fill(hidden, -torch.inf)
    return made


def run(module: nn.MultiheadAttention, sample: dict[str, Any], inputs: list[Tensor], masks: dict[str, Tensor]) -> Any:
    """out, weights and all gradients, under names."""
    leaves = [x.clone().requires_grad_() for x in inputs]
    query, key, value = (leaves * 3)[:3] if len(leaves) == 1 else (leaves + leaves[-1:])[:3]
    given = {name: x.clone().requires_grad_(x.is_floating_point()) for name, x in masks.items()}
    with warnings.catch_warnings():  # torch warns of masks whose dtypes differ
        warnings.simplefilter("ignore")
        out, weights = module(
            query, key, value, need_weights=sample["weights"] != "no",
            average_attn_weights=sample["weights"] == "averaged", **given,
        )  # fmt: skip
    torch.manual_seed(1)
    loss = (out * torch.randn(out.shape)).sum()
    if weights is not None:
        loss = loss + (weights * torch.randn(weights.shape)).sum()
    loss.backward()  # type: ignore[no-untyped-call]
    found = {"out": out, "weights": weights} | {f"input {i}": x.grad for i, x in enumerate(leaves)}
    found |= {name: x.grad for name, x in given.items()}
    return found | {name: p.grad for name, p in module.named_parameters()}


@pytest.mark.parametrize("sample", samples(120), ids=lambda sample: " ".join(map(str, sample.values())))
def test_values_and_gradients_are_torchs(sample: dict[str, Any], one_thread: None) -> None:
    theirs, ours = build(sample)
    inputs = inputs_of(sample)
    masks = masks_of(sample, inputs)
    wanted, found = (run(module, sample, inputs, masks) for module in (theirs, ours))
    assert wanted.keys() == found.keys()
    for name, x in wanted.items():
        if x is None:
            assert found[name] is None, name
        else:
            torch.testing.assert_close(found[name], x, rtol=1e-4, atol=1e-5, msg=lambda text, n=name: f"{n}: {text}")
