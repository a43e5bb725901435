"""Plans are lowered once and remembered, and never used when they are stale."""

from __future__ import annotations

import gc
import threading

import pytest
import torch
from torch import Tensor

import mmha
from mmha.masks import Causal, Dense, KeyPadding
from mmha.ops import plans
from mmha.ops.plans import PLAIN, MaskCall, PlanCache

SIZES = (2, 3, 5, 7)


class Counting(PlanCache):
    """Counts how often a call is lowered."""

    lowered = 0

    def _keep(self, *args: object) -> None:
        self.lowered += 1
        super()._keep(*args)  # type: ignore[arg-type]


def padding(lengths: Tensor) -> MaskCall:
    return MaskCall("KeyPadding($0)", [lengths], SIZES)


def test_a_call_is_lowered_once() -> None:
    cache = Counting()
    first = cache.get(MaskCall("Causal()", [], SIZES))
    assert cache.get(MaskCall("Causal()", [], SIZES)) is first
    assert cache.get(MaskCall("Causal()", [], SIZES), backward=True) is first
    others = [
        MaskCall("StrictCausal()", [], SIZES), MaskCall("Causal()", [], (2, 3, 5, 8)),
        MaskCall("Causal()", [], SIZES, torch.tensor(1)), MaskCall("Causal()", [], SIZES, torch.tensor([1, 2])),
    ]  # fmt: skip
    assert len({id(cache.get(call)) for call in others} | {id(first)}) == 5
    assert cache.lowered == 5


def test_what_has_no_tensor_is_recalled_by_its_notation_and_sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plans, "MAX_PLANS", 2)
    cache = Counting()
    assert cache.recall("Causal()", SIZES) is None
    first = cache.get(MaskCall("Causal()", [], SIZES))
    assert cache.recall("Causal()", SIZES) is first
    assert cache.recall("Causal()", (2, 3, 5, 8)) is None
    assert cache.recall("StrictCausal()", SIZES) is None
    cache.get(MaskCall("Causal()", [], SIZES, torch.tensor(1)))  # other positions: never recalled
    assert cache.recall("Causal()", SIZES) is first
    cache.get(MaskCall("Full()", [], SIZES))  # what was recalled last stays, what is older goes
    assert cache.recall("Causal()", SIZES) is first
    assert cache.lowered == 3


def test_small_tensors_are_known_by_content() -> None:
    cache = Counting()
    lengths = torch.tensor([3, 7])
    first = cache.get(padding(lengths))
    assert cache.get(padding(torch.tensor([3, 7]))) is first
    lengths.numpy()[0] = 4  # unseen by torch
    assert cache.get(padding(lengths)).visible == 3 * 5 * (4 + 7)


def large(share: float = 0.5) -> Tensor:
    return torch.rand(181, 191) < share


def test_large_tensors_of_a_value_are_known_by_identity_and_version() -> None:
    cache, tensor = Counting(), large()
    call = MaskCall("Dense($0)", [tensor], (2, 3, 181, 191))
    first = cache.get(call)
    assert cache.get(call) is first
    tensor.logical_not_()
    second = cache.get(call)
    assert second is not first
    assert second.visible == 2 * 3 * int(tensor.sum())


def test_a_callers_own_large_tensor_is_read_at_every_forward_call() -> None:
    cache, tensor = Counting(), large()
    call = MaskCall(PLAIN, [tensor], (2, 3, 181, 191))
    cache.get(call)
    tensor.numpy()[:] = True  # unseen by torch
    second = cache.get(call)
    assert second.visible == 2 * 3 * tensor.numel()
    assert cache.get(call, backward=True) is second


def test_a_mask_written_between_two_calls_is_seen_by_attention() -> None:
    q, k, v = torch.randn(1, 1, 181, 8), torch.randn(1, 1, 191, 8), torch.randn(1, 1, 191, 8)
    for mask in (large(), torch.rand(181, 1) < 0.5):
        for change in (mask.logical_not_, lambda mask=mask: mask.numpy().__setitem__(slice(3), False)):
            mmha.attention(q, k, v, mask)
            change()
            assert torch.equal(mmha.attention(q, k, v, mask), mmha.attention(q, k, v, mask.clone()))


def test_a_plan_dies_with_its_tensor() -> None:
    cache, tensor = Counting(), large()
    cache.get(MaskCall("Dense($0)", [tensor], (2, 3, 181, 191)))
    assert len(cache._plans) == 1
    assert cache._bytes > 0
    del tensor
    gc.collect()
    assert len(cache._plans) == 0
    assert cache._bytes == 0


def test_bounded_in_number_and_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plans, "MAX_PLANS", 3)
    cache = Counting()
    for length in range(1, 9):
        cache.get(MaskCall("Causal()", [], (1, 1, 4, length)))
    assert len(cache._plans) == 3
    assert cache._bytes == sum(plan.nbytes for plan, _ in cache._plans.values())
    monkeypatch.setattr(plans, "MAX_BYTES", 1)
    cache.get(MaskCall("Causal()", [], (1, 1, 4, 100)))
    assert len(cache._plans) == 1


def test_inference_tensors_are_not_remembered() -> None:
    cache = Counting()
    with torch.inference_mode():
        tensor = large()
        cache.get(MaskCall("Dense($0)", [tensor], (1, 1, 181, 191)))
    assert cache.lowered == 0


def test_many_threads_at_once() -> None:
    q = torch.randn(1, 2, 33, 8)
    wanted = {n: mmha.attention(q, q, q, Causal() & KeyPadding([n])) for n in range(1, 34)}
    wrong: list[int] = []

    def work(seed: int) -> None:
        for n in range(1, 34):
            n = (n * seed) % 33 + 1
            if not torch.equal(mmha.attention(q, q, q, Causal() & KeyPadding([n])), wanted[n]):
                wrong.append(n)

    workers = [threading.Thread(target=work, args=(seed,)) for seed in (1, 2, 5, 7)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not wrong


def test_a_dense_value_made_of_a_float_mask_is_equal() -> None:
    q = torch.randn(1, 2, 33, 8)
    visible = torch.rand(33, 33) < 0.5
    assert torch.equal(mmha.attention(q, q, q, Dense(visible)), mmha.attention(q, q, q, visible))
