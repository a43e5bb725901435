"""Does an installed mmha compute what its reference does? Run by check.py in an environment of a wheel and torch.

Prints one line of JSON: versions, instruction set, and the relative error of each piece of work; ends with 1 if one is
too large. Needs nothing but mmha, so that what is missing from a wheel's requirements shows here.
"""

from __future__ import annotations

import json
import platform
import sys
from pathlib import Path

import torch
from torch import Tensor

import mmha
from mmha import _kernels, reference
from mmha.masks import Causal, KeyPadding, Window

B, H, HK, T, D, DV = 2, 6, 3, 71, 17, 13
LIMIT = {torch.float32: 4e-6, torch.bfloat16: 8e-3, torch.float16: 1e-3}
MASK = Causal() & Window(23) & KeyPadding([71, 37])


def error(got: Tensor, exact: Tensor) -> float:
    """The largest difference over the largest magnitude; inf for anything that is not a number."""
    if got.shape != exact.shape or not bool(got.isfinite().all()):
        return float("inf")
    got, exact = got.detach().double(), exact.detach().double()
    return float((got - exact).abs().max() / exact.abs().max())


def attended(dtype: torch.dtype) -> dict[str, float]:
    """Forward and backward through a mask, on tensors of this dtype."""
    q, k, v = (torch.randn(B, h, T, d).to(dtype).requires_grad_() for h, d in ((H, D), (HK, D), (HK, DV)))
    rule = reference.Rule(MASK.dense(B, H, T, T))
    out = mmha.attention(q, k, v, MASK)
    flowing = torch.randn(out.shape).to(dtype)
    out.backward(flowing)
    exact, _, _ = reference.attention(q, k, v, rule)
    wanted = reference.gradients(q, k, v, reference.Gradients(flowing), rule)
    pairs = [(out, exact), (q.grad, wanted.q), (k.grad, wanted.k), (v.grad, wanted.v)]
    return {name: error(got, want) for name, (got, want) in zip(("out", "dq", "dk", "dv"), pairs, strict=True)}


def decoded() -> dict[str, float]:
    """A prompt and then single tokens, through a cache, and the fused step, against one full forward pass."""
    q, k, v = (torch.randn(B, h, T, d) for h, d in ((H, D), (HK, D), (HK, DV)))
    exact, _, _ = reference.attention(q, k, v, reference.Rule(Causal().dense(B, H, T, T)))
    cache = mmha.KVCache(B, HK, T, D, value_dim=DV)
    rows = []
    for at in (slice(0, T - 2), slice(T - 2, T - 1)):
        cache.append(k[:, :, at], v[:, :, at])
        rows.append(mmha.attention(q[:, :, at], cache, mask=Causal()))
    last = torch.cat([x[:, :, -1].flatten(1) for x in (q, k, v)], 1)
    step = mmha.masked_multihead_attention(last, cache)
    return {"cached": error(torch.cat(rows, 2), exact[:, :, :-1]), "step": error(step, exact[:, :, -1].flatten(1))}


def seen_by_torch() -> dict[str, float]:
    """Through torch's dispatcher: traced as one graph, as torch.nn's module, and in the place of torch's function."""
    q, k, v = (torch.randn(B, H, T, D) for _ in range(3))
    exact, _, _ = reference.attention(q, k, v, reference.Rule(Causal().dense(B, H, T, T)))
    traced = torch.compile(lambda *x: mmha.attention(*x, Causal()) * 2.0, backend="aot_eager", fullgraph=True)
    with mmha.patch():
        patched = torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
    theirs = torch.nn.MultiheadAttention(H * D, H, batch_first=True)
    ours = mmha.nn.MultiheadAttention(H * D, H, batch_first=True)
    ours.load_state_dict(theirs.state_dict())
    x = torch.randn(B, T, H * D)
    module = error(ours(x, x, x)[0], theirs(x, x, x)[0])
    return {"compiled": error(traced(q, k, v), 2.0 * exact), "patched": error(patched, exact), "module": module}


def main() -> int:
    torch.manual_seed(0)
    where = Path(mmha.__file__).resolve()
    if Path(sys.prefix).resolve() not in where.parents:
        raise SystemExit(f"smoke.py: expected the mmha of {sys.prefix}, got {where}")
    worst = {}
    for dtype in LIMIT:
        for name, found in attended(dtype).items():
            worst[f"{str(dtype).removeprefix('torch.')} {name}"] = (found, LIMIT[dtype])
    for name, found in (decoded() | seen_by_torch()).items():
        worst[name] = (found, LIMIT[torch.float32])
    said = {"mmha": mmha.__version__, "python": platform.python_version(), "torch": torch.__version__}
    said |= {"isa": _kernels.isa(), "errors": {name: found for name, (found, _) in worst.items()}}
    print(json.dumps(said))
    return int(any(not found <= limit for found, limit in worst.values()))


if __name__ == "__main__":
    sys.exit(main())
