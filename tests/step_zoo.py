"""Decode steps with any combination of what they can take: one for `mmha.masked_multihead_attention`, its twin for the
reference, and the cases that cover every pair of choices."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from cache_model import INT8, ListModel, near
from mmha import KVCache, PagedKVCache, Rotary, masked_multihead_attention, reference
from mmha.bias import Additive, ALiBi, Relative
from mmha.masks import Causal, Keys, Mask, Window
from mmha.reference import Output, Rotation, Rule, Step
from tolerances import RELATIVE

FLOATS = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}

#: Every choice of every feature. A case takes one of each.
FACTORS: dict[str, tuple[Any, ...]] = {
    "dim": (16, 32, 37, 64, 80, 96, 128, 192, 256),
    "value_dim": ("same", "other"),
    "heads": ((4, 4), (6, 2), (5, 1), (8, 2)),
    "past": ((5, 0, 11), (23, 41, 2), (300, 7, 256), (17, 17, 17)),
    "given": ("float32", "bfloat16", "float16", "int32"),
    "stored": ("float32", "bfloat16", "float16", "int8"),
    "bias": (False, True),
    "rotary": (None, "half", "interleaved"),
    "dims": ("all", "some"),
    "positions": (None, "one", "two"),
    "lengths": (None, "same", "cut", "skip"),
    "src_mask": (None, "per row", "per head", "with -inf"),
    "beam": (False, True),
    "score_bias": (None, "alibi", "relative", "additive"),
    "mask": (None, "causal", "window", "keys"),
    "ring": (None, (7, 2), (300, 0)),
    "pages": (None, 3, 16),
    "branched": (False, True),
    "softcap": (None, 2.5),
    "sinks": (False, True),
    "scale": (None, 0.2),
    "shift": (False, True),
    "smooth": (False, True),
    "out": (None, "even", "away"),
    "bounds": ((-127, 127), (-128, 100)),
}
Case = Mapping[str, Any]
PLAIN: dict[str, Any] = {name: choices[0] for name, choices in FACTORS.items()}
FACTOR = 3.0  # float32 after a bias, a rotation, a shift and a factor


def pairwise(factors: Mapping[str, Sequence[Any]], seed: int = 1) -> list[dict[str, Any]]:
    """Cases in which every choice of every factor meets every choice of every other one."""
    draw = random.Random(seed)
    names = list(factors)
    open_pairs = {
        (a, x, b, y)
        for a, b in itertools.combinations(range(len(names)), 2)
        for x in range(len(factors[names[a]]))
        for y in range(len(factors[names[b]]))
    }
    cases = []
    while open_pairs:
        a, x, b, y = min(open_pairs)
        drawn = []
        for _ in range(30):
            picks = [draw.randrange(len(factors[name])) for name in names]
            picks[a], picks[b] = x, y
            drawn.append(picks)
        best = max(drawn, key=lambda picks: len(open_pairs & _pairs(picks)))
        open_pairs -= _pairs(best)
        cases.append({name: factors[name][pick] for name, pick in zip(names, best, strict=True)})
    return cases


def _pairs(picks: list[int]) -> set[tuple[int, int, int, int]]:
    return {(a, picks[a], b, picks[b]) for a, b in itertools.combinations(range(len(picks)), 2)}


@dataclass
class Twins:
    """The same step twice: what `masked_multihead_attention` takes, and what the reference takes."""

    qkv: Tensor
    cache: Any
    arguments: dict[str, Any]
    model: ListModel
    step: Step


def make(case: Case, seed: int = 5) -> Twins:
    """Unit-normal numbers for a case; only a plain cache has beams, no ring is cut."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        if case["beam"]:
            case = dict(case, ring=None, pages=None, branched=False)
        return _make(dict(case, pages=None) if case["ring"] else case)


def _make(case: Case) -> Twins:
    heads, kv_heads = case["heads"]
    dim = case["dim"]
    value_dim = dim if case["value_dim"] == "same" else dim // 2 + 3
    width = (heads + kv_heads) * dim + kv_heads * value_dim
    cache, model = _filled(case, list(case["past"]), kv_heads, dim, value_dim)
    if case["branched"]:
        cache.branch(torch.tensor([2, 0, 2]))
        model.reorder([2, 0, 2])
    past = model.lengths
    qkv, arguments, step = _incoming(case, len(past), width)
    lengths = _lengths(case, past)
    if lengths is not None:
        arguments["lengths"] = step["lengths"] = torch.tensor(lengths)
    kept = past if lengths is None else lengths
    for part in (_places(case, dim, len(past)), _rule(case, kept, past, heads), _outgoing(case, heads * value_dim)):
        arguments |= part[0]
        step |= part[1]
    if case["beam"]:
        arguments["beam"] = step["beam"] = _beam(kept, max(past) + 9)
    return Twins(qkv, cache, arguments, model, Step(**step))


def _filled(case: Case, past: list[int], kv_heads: int, dim: int, value_dim: int) -> tuple[Any, ListModel]:
    window, sinks = case["ring"] or (None, 0)
    stored = torch.int8 if case["stored"] == "int8" else FLOATS[case["stored"]]
    sizes = (len(past), kv_heads, max(past) + 9)
    if case["pages"]:
        blocks = sum(-(-(n + 9) // case["pages"]) for n in past) * 3
        pool = PagedKVCache(blocks, case["pages"], kv_heads, dim, value_dim=value_dim, dtype=stored)
        cache: Any = pool.select(pool.allocate(len(past)))
    else:
        cache = KVCache(*sizes, dim, value_dim=value_dim, dtype=stored, window=window, sinks=sinks)
    model = ListModel.empty(len(past), kv_heads, dim, value_dim, stored)
    k, v = torch.randn(*sizes[:2], max(past), dim), torch.randn(*sizes[:2], max(past), value_dim)
    cache.append(k, v, torch.tensor(past))
    model.append(k, v, past)
    return cache, model


def _incoming(case: Case, batch: int, width: int) -> tuple[Tensor, dict[str, Any], dict[str, Any]]:
    x = torch.randn(batch, width)
    held: dict[str, Any] = {}
    if case["given"] == "int32":
        held["qkv_scale"] = (0.5 + torch.rand(width)) / 300.0
        qkv = (x / held["qkv_scale"]).round().int()
    else:
        qkv = x.to(FLOATS[case["given"]])
    if case["bias"]:
        held["bias"] = torch.randn(width)
    stored = torch.int8 if case["stored"] == "int8" else FLOATS[case["stored"]]
    window, sinks = case["ring"] or (None, 0)
    return qkv, dict(held), held | {"stored": stored, "window": window, "sink_tokens": sinks}


def _lengths(case: Case, past: list[int]) -> list[int] | None:
    if case["lengths"] is None:
        return None
    if case["lengths"] == "skip":
        return [past[0], -1, *past[2:]]
    if case["lengths"] == "cut" and not case["ring"]:
        return [n - n // 3 for n in past]
    return past


def _places(case: Case, dim: int, batch: int) -> tuple[dict[str, Any], dict[str, Any]]:
    if case["rotary"] is None:
        return {}, {}
    dims = dim // 4 * 4 if case["dims"] == "all" else 12
    turn = {"dims": dims, "base": 10000.0 if case["dims"] == "all" else 500.0, "style": case["rotary"]}
    at: dict[str, Any] = {}
    if case["positions"] is not None:
        shape = (batch,) if case["positions"] == "one" else (batch, 2)
        at["positions"] = torch.randint(0, 4000, shape)
    return {"rotary": Rotary(**turn), **at}, {"rotation": Rotation(**turn), **at}


def _rule(case: Case, kept: list[int], past: list[int], heads: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """What is added and seen: a src_mask as wide as the rows that take the step, a bias and a mask as the cache."""
    batch, longest = len(kept), max(kept) + 1
    held = max(past[b] if n < 0 else n + 1 for b, n in enumerate(kept))
    arguments: dict[str, Any] = {}
    rule: dict[str, Any] = {}
    added: list[Tensor] = []
    for name, value in (("softcap", case["softcap"]), ("scale", case["scale"])):
        if value is not None:
            arguments[name] = rule[name] = value
    if case["sinks"]:
        arguments["sinks"] = rule["sinks"] = torch.randn(heads)
    if case["src_mask"]:
        shape = (1, heads, 1, longest) if case["src_mask"] == "per head" else (batch, 1, 1, longest)
        arguments["src_mask"] = torch.randn(shape)
        if case["src_mask"] == "with -inf":
            arguments["src_mask"].masked_fill_(torch.rand(shape) < 0.2, -math.inf)
        added.append(arguments["src_mask"])
    if case["score_bias"] == "alibi":
        rule["slopes"] = torch.rand(heads)
        arguments["score_bias"] = ALiBi(rule["slopes"])
    elif case["score_bias"] == "relative":
        rule["table"] = torch.randn(heads, 11)
        arguments["score_bias"] = Relative(rule["table"])
    elif case["score_bias"] == "additive":
        added.append(torch.randn(batch, heads, 1, held))
        arguments["score_bias"] = Additive(added[-1])
    if case["mask"] is not None:
        arguments["mask"], rule["visible"] = _mask(case["mask"], kept, held)
    return arguments, {"rule": Rule(additive=tuple(added), **rule)}


def _mask(name: str, kept: list[int], longest: int) -> tuple[Mask, Tensor]:
    seen = torch.rand(len(kept), longest) < 0.7
    mask = {"causal": Causal(), "window": Window(9), "keys": Keys(seen)}[name]
    p, j = torch.tensor(kept)[:, None], torch.arange(longest)
    visible = {"causal": j <= p, "window": (j <= p) & (j >= p - 9), "keys": seen}[name]
    return mask, visible[:, None, None]


def _outgoing(case: Case, width: int) -> tuple[dict[str, Any], dict[str, Any]]:
    arguments: dict[str, Any] = {}
    held: dict[str, Any] = {}
    if case["shift"]:
        arguments["out_shift"] = held["shift"] = torch.randn(width)
    if case["smooth"]:
        arguments["out_smooth"] = held["smooth"] = torch.randn(width)
    if case["out"]:
        held |= {"scale": 0.4, "round": case["out"], "bounds": case["bounds"]}
        arguments |= {"out_scale": 0.4, "round": case["out"], "out_bounds": case["bounds"]}
    return arguments, {"output": Output(**held)}


def _beam(kept: list[int], max_len: int) -> Tensor:
    """For every step of every row some row that has it."""
    beam = torch.arange(len(kept))[:, None].expand(-1, max_len).clone()
    for j in range(max(kept)):
        long_enough = [b for b, n in enumerate(kept) if n > j]
        beam[:, j] = torch.tensor(long_enough)[torch.randint(0, len(long_enough), (len(kept),))]
    return beam.to(torch.int32)


def check_step(twins: Twins) -> Tensor:
    """One step on both sides: the output, and what the caches hold afterwards."""
    got = masked_multihead_attention(twins.qkv, twins.cache, **twins.arguments)
    want, rows = reference.masked_multihead_attention(twins.qkv, twins.model.rows, twins.step)
    stored = twins.model.stored
    assert stored is not None
    assert got.shape == want.shape
    if twins.step.output.is_int8:
        assert got.dtype == torch.int8
        output = twins.step.output
        plain, _ = reference.masked_multihead_attention(
            twins.qkv, twins.model.rows, replace(twins.step, output=Output(output.shift, output.smooth))
        )
        assert output.scale is not None
        x = output.bounds[1] * output.scale * plain
        limit = INT8 if stored == torch.int8 else max(RELATIVE[torch.float32], RELATIVE[stored])
        # Half a step from rounding, and the error of what is rounded (in the dtype of qkv at most).
        room = 0.5 + max(limit, RELATIVE.get(twins.qkv.dtype, 0.0)) * FACTOR * x.abs().max()
        assert ((got - x.clamp(*output.bounds)).abs() <= room).all()
    else:
        assert got.dtype == (torch.float32 if twins.qkv.dtype == torch.int32 else twins.qkv.dtype)
        near(got, want, stored, FACTOR)
    twins.model.rows = rows
    assert twins.cache.lengths.tolist() == twins.model.lengths
    return got
