"""Attention of other systems under one mask, each on inputs laid out as it likes them: for attention_peers.py.

A side is made for a `Problem`; one that cannot do it raises, and what it says is the reason in the results. What a side
needs prepared (a dense mask, a block mask, a compiled graph) is prepared before it is timed.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import peers
import torch
from torch import Tensor

from mmha.bench import masked
from mmha.bench.cases import Case
from mmha.bench.contest import Contest, Results, Side, added, tensors
from mmha.bench.patterns import WINDOW, document_lengths, mask_of

TELEMETRY = "openvino_telemetry"  # where this cannot be imported, openvino tells nobody that it was
THREADS_OF_JAX = "NPROC"  # read once, when jax makes its pools


@dataclass(frozen=True)
class Problem:
    """One row: the case, its tensors (B, H, T, D) and its mask."""

    case: Case
    threads: int

    @cached_property
    def tensors(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """q, k, v and the gradient of out."""
        return tensors(self.case)

    @cached_property
    def contest(self) -> Contest:
        """mmha's side and that of torch's scaled_dot_product_attention, as in `mmha bench`."""
        return masked.masked(self.case)

    @cached_property
    def dense(self) -> Tensor | None:
        """The mask as bool (B, 1, Tq, Tk), True = visible; None where nothing is hidden."""
        mask, size = mask_of(self.case.kind, self.case.sizes), self.case.sizes
        return None if mask is None else mask.dense(size.batch, 1, size.q_len, size.k_len)

    @property
    def training(self) -> bool:
        """Whether gradients are part of it."""
        return self.case.direction == "training"

    @property
    def keys(self) -> int:
        """How many keys are real where the rest is padding."""
        return self.case.sizes.k_len * 3 // 4


@dataclass(frozen=True)
class Attempt:
    """What is timed, and its results as out, or out and the gradients of q, k, v, each (B, H, T, D).

    holds: what must live as long as the addresses that were handed on.
    """

    work: Callable[[], Any]
    view: Callable[[Any], Results]
    holds: tuple[object, ...] = ()


Maker = Callable[[Problem], Attempt]


def ours(problem: Problem) -> Attempt:
    """mmha.attention with the mask as a value."""
    return Attempt(problem.contest.ours.work(problem.case.direction), tuple)


def torch_sdpa(problem: Problem) -> Attempt:
    """torch's attention: is_causal where that says it, else the mask as numbers to add."""
    return Attempt(problem.contest.theirs.work(problem.case.direction), tuple)


def torch_flex(problem: Problem) -> Attempt:
    """FlexAttention with a block mask, compiled for this problem's sizes alone."""
    from torch.nn.attention.flex_attention import create_block_mask, flex_attention

    torch._dynamo.reset()
    compiled, size = torch.compile(flex_attention, dynamic=False), problem.case.sizes
    rule, block_mask = flex_rule(problem), None
    if rule is not None:
        block_mask = create_block_mask(rule, None, None, size.q_len, size.k_len, device="cpu")
    shared = size.heads != size.kv_heads

    def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return compiled(q, k, v, block_mask=block_mask, enable_gqa=shared)

    *inputs, grad = problem.tensors
    return Attempt(Side(attend, tuple(inputs), grad).work(problem.case.direction), tuple)


def flex_rule(problem: Problem) -> Callable[..., Tensor] | None:
    """The mask as FlexAttention takes it: whether key j is visible to row i."""
    length, keys = problem.case.sizes.k_len, problem.keys
    lengths = torch.tensor(document_lengths(length))
    ids = torch.arange(len(lengths)).repeat_interleave(lengths)
    rules: dict[str, Callable[..., Tensor] | None] = {
        "dense": None,
        "causal": lambda b, h, i, j: i >= j,
        "window": lambda b, h, i, j: (i >= j) & (i - j < WINDOW),
        "documents": lambda b, h, i, j: (i >= j) & (ids[i] == ids[j]),
        "padding": lambda b, h, i, j: j < keys,
    }
    return rules[problem.case.kind]


def onnxruntime(problem: Problem) -> Attempt:
    """GroupQueryAttention for what is causal, with its own window; else MultiHeadAttention, with lengths of keys.

    Inputs are (B, T, H·D). Documents are a bias. All is bound in advance, as in decode_peers.py.
    """
    if problem.training:
        raise NotImplementedError("it computes no gradients")
    size, kind, (q, k, v, _) = problem.case.sizes, problem.case.kind, problem.tensors
    batch, length, head = size.batch, size.k_len, {"num_heads": size.heads}
    given = dict(zip(("q", "k", "v"), (x.transpose(1, 2).flatten(2).contiguous() for x in (q, k, v)), strict=True))
    made = {"out": torch.empty_like(given["q"])}
    names = list(given)
    if kind in ("dense", "padding"):
        operator, options = "MultiHeadAttention", head
        if kind == "padding":
            given["lengths"] = torch.full((batch,), problem.keys, dtype=torch.int32)
            names += ["", "lengths"]
    else:
        operator, options = "GroupQueryAttention", head | {"kv_num_heads": size.kv_heads}
        given["lengths"] = torch.full((batch,), length - 1, dtype=torch.int32)
        given["total"] = torch.tensor(length, dtype=torch.int32)
        made |= {"present_key": torch.empty_like(k), "present_value": torch.empty_like(v)}
        names += ["", "", "lengths", "total"]
        if kind == "window":
            options["local_window_size"] = WINDOW
        elif kind == "documents":
            given["bias"] = added(mask_of(kind, size), size, q.dtype)
            names += ["", "", "", "bias"]
    session = peers.ort_operator(operator, names, given, made, options, problem.threads)
    binding = peers.ort_bound(session, given, made)

    out = made["out"].unflatten(2, (size.heads, size.dim)).transpose(1, 2)
    return Attempt(lambda: session.run_with_iobinding(binding), lambda _: (out,), (given, made))


def jax_xla(problem: Problem) -> Attempt:
    """jax.nn.dot_product_attention on (B, T, H, D), jitted, and its gradients by jax.vjp within the same program."""
    jax = importlib.import_module("jax")
    if os.environ.get(THREADS_OF_JAX) != str(problem.threads):
        raise ValueError(f"{THREADS_OF_JAX} must be {problem.threads} before jax is imported")
    options = {
        "dense": {},
        "causal": {"is_causal": True},
        "window": {"is_causal": True, "local_window_size": (WINDOW - 1, 0)},
        "documents": {},
        "padding": {"key_value_seq_lengths": jax.numpy.full(problem.case.sizes.batch, problem.keys)},
    }[problem.case.kind]
    *inputs, grad = (jax.dlpack.from_dlpack(x.transpose(1, 2).contiguous()) for x in problem.tensors)
    mask = jax.dlpack.from_dlpack(problem.dense) if problem.case.kind == "documents" else None

    def attend(q: Any, k: Any, v: Any, mask: Any) -> Any:
        return jax.nn.dot_product_attention(q, k, v, mask=mask, **options)

    def forward(q: Any, k: Any, v: Any, grad: Any, mask: Any) -> Any:
        return (attend(q, k, v, mask),)

    def training(q: Any, k: Any, v: Any, grad: Any, mask: Any) -> Any:
        out, back = jax.vjp(lambda q, k, v: attend(q, k, v, mask), q, k, v)
        return out, *back(grad)

    compiled = jax.jit(training if problem.training else forward)
    return Attempt(
        lambda: jax.block_until_ready(compiled(*inputs, grad, mask)),
        lambda results: tuple(torch.from_dlpack(x).transpose(1, 2) for x in results),
    )


def openvino(problem: Problem) -> Attempt:
    """ScaledDotProductAttention as a model on one stream, in the precision of its inputs, over tensors of ours."""
    if problem.training:
        raise NotImplementedError("it computes no gradients")
    sys.modules.setdefault(TELEMETRY, None)  # type: ignore[arg-type]
    ov, op = importlib.import_module("openvino"), importlib.import_module("openvino.opset13")
    size, (q, k, v, _) = problem.case.sizes, problem.tensors
    name = {torch.float32: "f32", torch.bfloat16: "bf16"}[q.dtype]
    kind, given = getattr(ov.Type, name), [q, k, v]
    parameters = [op.parameter(list(x.shape), kind) for x in given]
    heads = [parameters[0], *(op_repeated(op, x, size.heads // size.kv_heads) for x in parameters[1:])]
    causal = problem.case.kind == "causal"
    if problem.dense is not None and not causal:
        given.append(added(mask_of(problem.case.kind, size), size, q.dtype))
        parameters.append(op.parameter(list(given[-1].shape), kind))
    out = op.scaled_dot_product_attention(*heads, *parameters[3:], causal=causal)
    settings = {"INFERENCE_NUM_THREADS": problem.threads, "INFERENCE_PRECISION_HINT": name, "NUM_STREAMS": "1",
                "ENABLE_CPU_PINNING": False}  # fmt: skip
    request = ov.Core().compile_model(ov.Model([out], parameters), "CPU", settings).create_infer_request()
    made = torch.empty_like(q)
    for number, x in enumerate(given):
        request.set_input_tensor(number, shared_with(ov, x, kind))
    request.set_output_tensor(shared_with(ov, made, kind))
    return Attempt(lambda: request.infer(share_outputs=True), lambda _: (made,), tuple(given))


def op_repeated(op: Any, x: Any, group: int) -> Any:
    """(B, Hk, T, D) → (B, H, T, D) within OpenVINO's model: each head for all query heads of its group."""
    batch, heads, length, dim = x.get_output_shape(0)
    if group == 1:
        return x
    wide = op.broadcast(op.unsqueeze(x, [2]), [batch, heads, group, length, dim])
    return op.reshape(wide, [batch, heads * group, length, dim], False)


def shared_with(ov: Any, x: Tensor, kind: Any) -> Any:
    """The tensor's memory as one of OpenVINO's."""
    numbers = x.view(torch.int16) if x.dtype == torch.bfloat16 else x
    return ov.Tensor(numbers.numpy(), list(x.shape), kind)


PACKAGES = {
    "torch SDPA": "torch",
    "FlexAttention": "torch",
    "ONNX Runtime": "onnxruntime",
    "JAX": "jax",
    "OpenVINO": "openvino",
}
MAKERS: dict[str, Maker] = {
    "torch SDPA": torch_sdpa,
    "FlexAttention": torch_flex,
    "ONNX Runtime": onnxruntime,
    "JAX": jax_xla,
    "OpenVINO": openvino,
    "mmha": ours,
}
