"""The inputs that torch tests its own attention with (ModuleInfo and OpInfo), ours beside torch's."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.testing._internal.common_methods_invocations import op_db
from torch.testing._internal.common_modules import ModuleInfo, module_db

import mmha.nn
import mmha.nn.functional as ours
from tolerances import relative_error

CLASSES = (
    "MultiheadAttention",
    "TransformerEncoderLayer",
    "TransformerEncoder",
    "TransformerDecoderLayer",
    "TransformerDecoder",
    "Transformer",
)
INFOS = {info.module_cls.__name__: info for info in module_db if info.module_cls.__name__ in CLASSES}
OPS = {op.name: op for op in op_db}
# Inputs and weights go up to 9, scores to thousands, and their exponentials hold as many digits less.
TOLERANCE = {torch.float64: 1e-12, torch.float32: 5e-4, torch.bfloat16: 2.0**-6, torch.float16: 2.0**-9}
Outcome = list[Tensor]


@pytest.fixture(autouse=True)
def one(one_thread: None) -> Iterator[None]:
    """Thousands of tiny products; torch's own encoder says for which of them it has no fast path."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "enable_nested_tensor is True")
        yield


def error(got: Tensor, exact: Tensor) -> float:
    size = exact.detach().abs().max().clamp_min(1.0) if exact.numel() else None  # gradients may be all but 0
    return relative_error(got, exact, size)


def assert_equal(got: Outcome, wanted: Outcome, dtype: torch.dtype) -> None:
    assert [x.dtype for x in got] == [x.dtype for x in wanted]
    assert max(error(mine, theirs) for mine, theirs in zip(got, wanted, strict=True)) <= TOLERANCE[dtype]


def tensors(x: Any) -> Iterator[Tensor]:
    for value in x if isinstance(x, (tuple, list)) else [x]:
        if isinstance(value, Tensor):
            yield value


def with_gradients(made: Any, inputs: list[Tensor]) -> Outcome:
    """The outputs, and the gradients of a sum that no entry of them shares its weight in."""
    outputs = list(tensors(made))
    if not inputs:
        return outputs
    total = sum(((x * torch.arange(1.0, x.numel() + 1).view(x.shape).cos()).sum() for x in outputs), torch.zeros(()))
    grads = torch.autograd.grad(total, inputs, allow_unused=True, materialize_grads=True)
    return [x.detach() for x in outputs] + list(grads)


def samples(info: ModuleInfo, dtype: torch.dtype, training: bool) -> list[Any]:
    torch.manual_seed(5)
    made = info.module_inputs_func(info, "cpu", dtype, True, training)
    return [s for s in made if s.forward_input is not None]


def run(info: ModuleInfo, kind: type[nn.Module], sample: Any, dtype: torch.dtype, training: bool) -> Outcome:
    """The initial weights for a seed, the outputs, and when training the gradients of inputs and weights."""
    torch.manual_seed(7)
    construct, forward = sample.constructor_input, sample.forward_input
    if info.module_cls.__name__ != "TransformerEncoder":  # which takes both from its layers
        construct.kwargs.update(device="cpu", dtype=dtype)
    module = kind(*construct.args, **construct.kwargs).train(training)
    inputs = [x for x in (*forward.args, *forward.kwargs.values()) if isinstance(x, Tensor) and x.requires_grad]
    inputs += module.parameters()
    weights = [p.detach().clone() for p in module.parameters()]
    return weights + with_gradients(module(*forward.args, **forward.kwargs), inputs if training else [])


@pytest.mark.parametrize(("training", "dtype"), [(True, torch.float64), (False, torch.float32)], ids=["train", "eval"])
@pytest.mark.parametrize("name", INFOS)
def test_module_samples(name: str, dtype: torch.dtype, training: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """With gradients enabled, where torch takes no other path in eval (tests/test_conformance.py has what it does)."""
    info, kind = INFOS[name], getattr(mmha.nn, name)
    wanted = [run(info, getattr(nn, name), sample, dtype, training) for sample in samples(info, dtype, training)]
    monkeypatch.setattr(nn, "TransformerEncoderLayer", mmha.nn.TransformerEncoderLayer)  # what the samples are made of
    for sample, exact in zip(samples(info, dtype, training), wanted, strict=True):
        assert_equal(run(info, kind, sample, dtype, training), exact, dtype)


def test_module_samples_are_there() -> None:
    assert sorted(INFOS) == sorted(set(CLASSES) - {"TransformerDecoder"})  # of which torch has none
    assert all(len(samples(info, torch.float32, True)) > 30 for info in INFOS.values())


def outcome_of(function: Callable[..., Any], sample: Any) -> Outcome:
    torch.manual_seed(3)
    given = [sample.input, *sample.args, *sample.kwargs.values()]
    made = function(sample.input, *sample.args, **sample.kwargs)
    return with_gradients(made, [x for x in given if isinstance(x, Tensor) and x.requires_grad])


def widened(x: Any) -> Any:
    return x.detach().double().requires_grad_(x.requires_grad) if isinstance(x, Tensor) else x


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("name", ["scaled_dot_product_attention", "multi_head_attention_forward"])
def test_op_samples(name: str, dtype: torch.dtype) -> None:
    """Values and gradients; with dropout, whose pattern is torch's own, what does not depend on the pattern."""
    op = OPS[f"nn.functional.{name}"]
    torch.manual_seed(2)
    found = list(op.sample_inputs("cpu", dtype, requires_grad=name == "scaled_dot_product_attention"))
    count = 0
    for sample in found:
        dropped = sample.kwargs.get("dropout_p") or sample.kwargs.get("training")
        mine = outcome_of(getattr(ours, name), sample)
        theirs = outcome_of(getattr(nn.functional, name), sample)
        if dropped:
            assert [(x.shape, x.dtype) for x in mine] == [(x.shape, x.dtype) for x in theirs]
            assert all(x.isfinite().all() for x in mine)
        elif dtype == torch.float64:
            assert_equal(mine, theirs, dtype)
            count += 1
        else:  # both are rounded, and ours is no further from the exact result
            exact = outcome_of(getattr(nn.functional, name), sample.transform(widened))
            for x, y, z in zip(mine, theirs, exact, strict=True):
                assert x.dtype == y.dtype
                assert error(x, z) <= max(2 * error(y, z), TOLERANCE[dtype])
            count += 1
    assert count >= 10
