"""Masks inside torch.compile(fullgraph=True) and torch.export: building them and flattening them must trace."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from mmha.masks import (
    Blocks,
    Causal,
    Documents,
    Full,
    Global,
    KeyPadding,
    Keys,
    Mask,
    Not,
    PerHead,
    Predicate,
    Prefix,
    Queries,
    QueryPadding,
    Tree,
    Window,
    as_mask,
    unflatten,
)

SIZES = (2, 3, 5, 5)  # B, H, Tq, Tk
library = torch.library.Library("mmha_mask_tests", "DEF")
library.define("visible(Tensor[] tensors, str spec) -> Tensor")


@torch.library.impl(library, "visible", "CompositeExplicitAutograd")
def _visible(tensors: list[Tensor], spec: str) -> Tensor:
    return unflatten(spec, tensors).dense(*SIZES).float()


@torch.library.register_fake("mmha_mask_tests::visible", lib=library)
def _fake(tensors: list[Tensor], spec: str) -> Tensor:
    return torch.empty(SIZES)


def visible(mask: Mask) -> Tensor:
    """What an operation that is opaque to the compiler sees of a mask."""
    spec, tensors = mask.flatten()
    return torch.ops.mmha_mask_tests.visible(tensors, spec)


def fn(b: Tensor, h: Tensor, p: Tensor, j: Tensor) -> Tensor:
    return (p + j + h) % 2 == 0


outside = Causal() & KeyPadding([3, 4]) & Predicate(fn)


def positions(lengths: Tensor, flags: Tensor) -> Tensor:
    return visible(Causal() & Window(4) | Prefix(2))


def inputs(lengths: Tensor, flags: Tensor) -> Tensor:
    padded = KeyPadding(lengths) & KeyPadding.left(lengths - 1) | Prefix(lengths) & QueryPadding(lengths)
    return visible(padded | Keys(flags) & Queries(flags) | Global(lengths) & as_mask(flags[:, None, None]))


def structures(lengths: Tensor, flags: Tensor) -> Tensor:
    tree = Tree(lengths[:1] - 4) | Blocks(flags[:, :2] | True, 3)
    return visible(PerHead([Full(), Not(Causal()), tree]) & Documents(flags.long()) & KeyPadding([3, 4]))


def carried(lengths: Tensor, flags: Tensor) -> Tensor:
    return visible(outside) + visible(Predicate(fn))


PROGRAMS = [positions, inputs, structures, carried]
arguments = (torch.tensor([3, 4]), torch.tensor([[True, True, False, True, False], [False, True, True, True, True]]))


@pytest.mark.parametrize("program", PROGRAMS)
def test_masks_trace_without_graph_breaks(program: torch.nn.Module) -> None:
    compiled = torch.compile(program, fullgraph=True, backend="eager")
    assert torch.equal(compiled(*arguments), program(*arguments))
    others = (torch.tensor([3, 2]), ~arguments[1])
    assert torch.equal(compiled(*others), program(*others))


@pytest.mark.parametrize("program", PROGRAMS)
@pytest.mark.parametrize("strict", [True, False])
def test_masks_export(program: torch.nn.Module, strict: bool) -> None:
    if strict and torch.__version__.startswith("2.9.") and program is carried:
        pytest.skip("torch 2.9 exports no program that holds a tensor outside its module")

    class Module(torch.nn.Module):
        def forward(self, lengths: Tensor, flags: Tensor) -> Tensor:
            return program(lengths, flags)

    exported = torch.export.export(Module(), arguments, strict=strict).module()
    assert torch.equal(exported(*arguments), program(*arguments))


def test_values_are_still_checked_when_the_graph_runs() -> None:
    compiled = torch.compile(lambda lengths: visible(KeyPadding(lengths)), fullgraph=True, backend="eager")
    with pytest.raises(ValueError, match=r"^`lengths`: expected integers >= 0, got -1$"):
        compiled(torch.tensor([3, -1]))
