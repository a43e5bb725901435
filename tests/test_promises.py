"""Promises 1 to 5 of the contract on every instruction set, path and kind of mask (7: tests/ops/test_bad_input.py)."""

from __future__ import annotations

import itertools
import math
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

import mmha
from mask_zoo import HK, TK, TQ, ZOO, B, H, zoo_mask
from mmha import _kernels, masks
from mmha.bias import Additive, ALiBi, Relative
from mmha.masks import Causal, Dilated, Full, KeyPadding, Keys, Mask, Prefix, Queries, Window

D, DV = 19, 11
GROUP = H // HK
Result = tuple[Tensor, ...]


def numbers(
    dtype: torch.dtype = torch.float32, batch: int = B, dim: int = D, value_dim: int = DV
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """q, k, v and the gradients of out and lse."""
    torch.manual_seed(3)
    shapes = ((batch, H, TQ, dim), (batch, HK, TK, dim), (batch, HK, TK, value_dim), (batch, H, TQ, value_dim))
    q, k, v, grad_out = (torch.randn(shape).to(dtype) for shape in shapes)
    return (
        q,
        k,
        v,
        grad_out,
        torch.randn(batch, H, TQ, dtype=torch.float64 if dtype == torch.float64 else torch.float32),
    )


def kernel(mask: Mask, *x: Tensor, **arguments: Any) -> Result:
    """out, lse, dq, dk, dv."""
    q, k, v = (t.detach().clone().requires_grad_() for t in x[:3])
    out, lse = mmha.attention(q, k, v, mask, return_lse=True, **arguments)
    return out.detach(), lse.detach(), *torch.autograd.grad((out, lse), (q, k, v), x[3:])


def plain_bool(mask: Mask, *x: Tensor) -> Result:
    return kernel(mask.dense(x[0].shape[0], H, TQ, TK), *x)  # type: ignore[arg-type]


def float_of_zeros(mask: Mask, *x: Tensor) -> Result:
    visible = mask.dense(x[0].shape[0], H, TQ, TK)
    return kernel(torch.zeros(visible.shape).masked_fill(~visible, -math.inf), *x)  # type: ignore[arg-type]


def float_of_numbers(mask: Mask, *x: Tensor) -> Result:
    visible = mask.dense(x[0].shape[0], H, TQ, TK)
    slope = torch.arange(TK, dtype=torch.float32) / TK
    return kernel(slope.expand(visible.shape).masked_fill(~visible, -math.inf), *x)  # type: ignore[arg-type]


def weights(mask: Mask, *x: Tensor) -> Result:
    """As `kernel`, and the weights, whose gradient is given where they are visible."""
    q, k, v = (t.detach().clone().requires_grad_() for t in x[:3])
    results = mmha.attention(q, k, v, mask, return_lse=True, return_weights=True)
    visible = mask.dense(q.shape[0], H, TQ, TK)
    grad = torch.full(visible.shape, math.nan, dtype=q.dtype).masked_fill(visible, 0.25)
    return *(t.detach() for t in results), *torch.autograd.grad(results, (q, k, v), (*x[3:], grad))


def with_bias(mask: Mask, *x: Tensor) -> Result:
    return kernel(mask, *x, bias=ALiBi.standard(H) + Relative(_table()))


def with_additive(mask: Mask, *x: Tensor) -> Result:
    """What is added may be anything at hidden pairs."""
    visible = mask.dense(x[0].shape[0], H, TQ, TK)
    slope = torch.arange(TK, dtype=torch.float32) / TK
    strange = torch.where(visible, slope, math.nan)
    return kernel(mask, *x, bias=Additive(strange) + Additive(_table()[:, :1, None].bfloat16()))


def with_softcap(mask: Mask, *x: Tensor) -> Result:
    return kernel(mask, *x, softcap=1.5)


def with_sinks(mask: Mask, *x: Tensor) -> Result:
    return kernel(mask, *x, sinks=_table()[:, 0])


def with_dropout(mask: Mask, *x: Tensor) -> Result:
    torch.manual_seed(11)
    return kernel(mask, *x, dropout_p=0.25)


def _table() -> Tensor:
    return torch.randn(H, 2 * 29 + 1, generator=torch.Generator().manual_seed(13))


Path = Callable[..., Result]
PATHS: dict[str, tuple[Path, torch.dtype]] = {
    "float32": (kernel, torch.float32),
    "bfloat16": (kernel, torch.bfloat16),
    "float16": (kernel, torch.float16),
    "float64": (kernel, torch.float64),
    "bool tensor": (plain_bool, torch.float32),
    "float tensor of 0 and -inf": (float_of_zeros, torch.float32),
    "float tensor": (float_of_numbers, torch.float32),
    "weights": (weights, torch.float32),
    "bias": (with_bias, torch.float32),
    "bias, float64": (with_bias, torch.float64),
    "additive": (with_additive, torch.float32),
    "additive, bfloat16": (with_additive, torch.bfloat16),
    "softcap": (with_softcap, torch.float32),
    "sinks": (with_sinks, torch.float32),
    "dropout": (with_dropout, torch.float32),
    "dropout, float64": (with_dropout, torch.float64),
}
SLOW_PATHS = [name for name in PATHS if name != "float32"]


@pytest.fixture(autouse=True)
def threads() -> Iterator[Callable[[int], None]]:
    """One thread unless a test asks for more: the problems are tiny, waking a second one costs more than it does."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield torch.set_num_threads
    torch.set_num_threads(before)


def same(a: Result, b: Result) -> bool:
    """The same bits (and NaN nowhere)."""
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


# 1. A fully hidden row gives output 0, gradients 0, lse -inf ----------------------------------------------------
def check_hidden_rows(mask: Mask, path: Path, dtype: torch.dtype) -> None:
    visible = mask.dense(B, H, TQ, TK)
    hidden = ~visible.any(-1)
    assert hidden.any()
    unseen = ~visible.view(B, HK, GROUP, TQ, TK).any(3).any(2)
    out, lse, *more, dq, dk, dv = path(mask, *numbers(dtype))
    assert not out[hidden].any()
    assert not dq[hidden].any()
    assert (lse[hidden] == -math.inf).all()
    assert not dk[unseen].any()
    assert not dv[unseen].any()
    assert all(not w[hidden].any() for w in more)
    assert not any(x.isnan().any() for x in (out, lse, *more, dq, dk, dv))
    assert lse[~hidden].isfinite().all()


def with_hidden_rows(mask: Mask) -> Mask:
    rows = torch.ones(B, TQ, dtype=torch.bool)
    rows[:, ::5] = False
    rows[1, 32:] = False  # all of a tile
    return mask & Queries(rows)


@pytest.mark.parametrize("name", ZOO)
def test_hidden_rows(name: str, isa: str) -> None:
    check_hidden_rows(with_hidden_rows(zoo_mask(name)), kernel, torch.float32)


@pytest.mark.parametrize("path", SLOW_PATHS)
@pytest.mark.parametrize("name", ["Causal", "Dense", "nothing", "PerHead", "KeyPadding"])
def test_hidden_rows_on_every_path(name: str, path: str) -> None:
    check_hidden_rows(with_hidden_rows(zoo_mask(name)), *PATHS[path])


def test_hidden_rows_without_any_key(isa: str) -> None:
    q, k, v = torch.randn(B, H, TQ, D), torch.randn(B, HK, 0, D), torch.randn(B, HK, 0, DV)
    out, lse = mmha.attention(q, k, v, return_lse=True)
    assert not out.any()
    assert (lse == -math.inf).all()


# 2. What is hidden has no influence -----------------------------------------------------------------------------
def check_poison(mask: Mask, path: Path, dtype: torch.dtype, poison: float) -> None:
    """Poison what is hidden from all, then what is hidden from some; nothing that must not see it may change."""
    visible = mask.dense(B, H, TQ, TK)
    clean = path(mask, *numbers(dtype))
    rows, keys = ~visible.any(-1), ~visible.view(B, HK, GROUP, TQ, TK).any(3).any(2)
    q, k, v, grad_out, grad_lse = numbers(dtype)
    k[keys], v[keys] = poison, poison
    q[rows], grad_out[rows], grad_lse[rows] = poison, poison, poison
    assert same(path(mask, q, k, v, grad_out, grad_lse), clean)

    q, k, v, grad_out, grad_lse = numbers(dtype)
    k[:, :, 3::64], v[:, :, 3::64] = poison, poison  # visible to some: only they may change
    spared = ~visible[..., 3::64].any(-1)
    for have, want in zip(path(mask, q, k, v, grad_out, grad_lse)[:-2], clean, strict=False):
        assert torch.equal(have[spared], want[spared])

    q, k, v, grad_out, grad_lse = numbers(dtype)
    q[:, :, 7::32], grad_out[:, :, 7::32], grad_lse[:, :, 7::32] = poison, poison, poison
    spared = ~visible[:, :, 7::32].any(2).view(B, HK, GROUP, TK).any(2)
    for have, want in zip(path(mask, q, k, v, grad_out, grad_lse)[-2:], clean[-2:], strict=True):
        assert torch.equal(have[spared], want[spared])


@pytest.mark.parametrize("poison", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("name", ZOO)
def test_what_is_hidden_has_no_influence(name: str, poison: float, isa: str) -> None:
    check_poison(with_hidden_rows(zoo_mask(name)), kernel, torch.float32, poison)


@pytest.mark.parametrize("path", SLOW_PATHS)
@pytest.mark.parametrize("poison", [math.nan, math.inf])
@pytest.mark.parametrize("name", ["Causal", "Dense", "PerHead", "documents, causal, padded queries"])
def test_what_is_hidden_has_no_influence_on_every_path(name: str, poison: float, path: str) -> None:
    check_poison(with_hidden_rows(zoo_mask(name)) & Keys(torch.arange(TK).expand(B, TK) % 9 != 4), *PATHS[path], poison)


def test_visible_poison_does_arrive(isa: str) -> None:
    q, k, v, *_ = numbers()
    v[0, 0, 5] = math.nan
    out = mmha.attention(q, k, v, Causal())
    seen = Causal().dense(B, H, TQ, TK)[0, :GROUP, :, 5]
    assert out[0, :GROUP][seen].isnan().all()
    assert not out[0, GROUP:].isnan().any()


# 3. No Tq x Tk allocation ---------------------------------------------------------------------------------------
MEMORY_PROGRAM = """
import torch, mmha
from mmha.masks import Causal, Documents, Window
def peak(reset=False):
    if reset:
        open("/proc/self/clear_refs", "w").write("5")
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM")) * 1024
torch.manual_seed(0)
torch.set_num_threads({threads})
T, D = {length}, {dim}
def run(T):
    q, k, v = (torch.randn(1, 1, T, D, dtype=torch.{dtype}, requires_grad=True) for _ in range(3))
    mmha.attention(q, k, v, {mask}).sum().backward()
run(512)
before = peak(reset=True)
run(T)
print(peak() - before)
"""


def extra_memory(length: int, mask: str, dtype: str) -> int:
    """Bytes a forward and backward of one head adds to the peak of a process."""
    dim, threads = (8, 1) if dtype == "float64" else (32, 2)
    program = MEMORY_PROGRAM.format(length=length, mask=mask, dtype=dtype, dim=dim, threads=threads)
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    return int(run.stdout)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="peak memory is read from /proc")
@pytest.mark.parametrize(("mask", "dtype", "length"), [
    ("Causal()", "float32", 32768), ("Window(256)", "float32", 32768), ("Window(256)", "bfloat16", 32768),
    ("Causal() & Documents(torch.arange(T) // 1000)", "float32", 32768),
    ("Window(64)", "float64", 6144),
], ids=str)  # fmt: skip
def test_memory_grows_with_the_length_not_its_square(mask: str, dtype: str, length: int) -> None:
    used = extra_memory(length, mask, dtype)
    # q, k, v, out, their gradients, copies in float32 or float64, lse, delta, plan: under 40 numbers of 8 bytes per D.
    # A bool per pair would already be length * length bytes: 1024 MB at 32768 (36 MB at 6144).
    limit = 40 * 8 * 32 * length // 2 if dtype != "float64" else 24 << 20
    assert used < limit < length * length, f"{used / 2**20:.0f} MB more at T = {length}, allowed {limit / 2**20:.0f} MB"


# 4. Hidden tiles cost nothing -----------------------------------------------------------------------------------
GUARDED_PROGRAM = """
import ctypes, mmap, torch, mmha
from mmha import _kernels
from mmha.masks import Prefix, Window
_kernels.select("{isa}")
torch.manual_seed(0)
T, D, row = 65536, 32, 32 * 4
def guarded():
    memory = mmap.mmap(-1, T * row)
    tensor = torch.frombuffer(memory, dtype=torch.float32).view(1, 1, T, D).normal_().requires_grad_()
    return memory, tensor
(_, k), (_, v) = keep = guarded(), guarded()
q = torch.randn(1, 1, 64, D, requires_grad=True)
mask = {mask}
def run():
    return torch.autograd.grad(mmha.attention(q, k, v, mask).square().sum(), (q, k, v))
wanted = run()
protect = ctypes.CDLL(None, use_errno=True).mprotect
protect.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
for tensor in (k, v):
    assert protect(tensor.data_ptr() + {first} * row, ({last} - {first}) * row, 0) == 0  # PROT_NONE
assert all(torch.equal(x, y) for x, y in zip(run(), wanted))
"""


def run_guarded(isa: str, mask: str, first: int, last: int) -> int:
    """The exit code of a process that may not touch keys and values first .. last - 1: a read there is a crash."""
    program = GUARDED_PROGRAM.format(isa=isa, mask=mask, first=first, last=last)
    return subprocess.run([sys.executable, "-c", program], capture_output=True, check=False).returncode


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="memory is protected through mprotect")
@pytest.mark.parametrize(
    ("mask", "first", "last"), [("Window(255)", 0, 64512), ("Window(255) | Prefix(300)", 1024, 64512)], ids=str
)
def test_hidden_tiles_cost_nothing(isa: str, mask: str, first: int, last: int) -> None:
    """Forward and backward never even read the keys and values that no row sees: their memory is out of bounds."""
    assert run_guarded(isa, mask, first, last) == 0


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="memory is protected through mprotect")
def test_the_guard_guards() -> None:
    assert run_guarded(_kernels.isa(), "Window(None, 0)", 0, 64512) == -signal.SIGSEGV


# 5. The same bits ------------------------------------------------------------------------------------------------
SAME_BITS = ["Full", "Causal", "Window", "Dense", "PerHead", "Documents per row", "window and global", "KeyPadding"]


@pytest.mark.parametrize("name", SAME_BITS)
def test_the_same_bits_with_any_number_of_threads_and_every_time(
    name: str, isa: str, threads: Callable[[int], None]
) -> None:
    mask, x = zoo_mask(name), numbers(dim=129, value_dim=67)
    # Smaller problems stay on one thread (csrc/driver.cpp), and this would test nothing.
    assert mask.plan(B, H, TQ, TK).visible * (129 + 67) > 2 * (1 << 19)
    threads(1)
    wanted = kernel(mask, *x)
    for count in (2, 3, 1, 2):
        threads(count)
        assert same(kernel(mask, *x), wanted)


@pytest.mark.parametrize("path", SLOW_PATHS)
def test_the_same_bits_on_every_path(path: str, threads: Callable[[int], None]) -> None:
    run, dtype = PATHS[path]
    mask, x = zoo_mask("causal window with padding"), numbers(dtype)
    threads(1)
    wanted = run(mask, *x)
    for count in (2, 3):
        threads(count)
        assert same(run(mask, *x), wanted)


def places(mask_of: Callable[[list[int]], Mask], path: Path, dtype: torch.dtype) -> None:
    """A row of a batch of 7 equals the same row alone, and the same row at another place."""
    x = numbers(dtype, batch=7)
    whole = path(mask_of(list(range(7))), *x)
    for row in (0, 3, 6):
        alone = path(mask_of([row]), *(t[row : row + 1] for t in x))
        assert same(alone, tuple(t[row : row + 1] for t in whole))
    order = [5, 2, 6, 0, 1, 4, 3]
    assert same(path(mask_of(order), *(t[order] for t in x)), tuple(t[order] for t in whole))


def padded(rows: list[int]) -> Mask:
    return Causal() & KeyPadding([TK - 11 * row for row in rows])


def scattered(rows: list[int]) -> Mask:
    generator = torch.Generator().manual_seed(5)
    return masks.Dense((torch.rand(7, H, TQ, TK, generator=generator) < 0.3)[rows])


@pytest.mark.parametrize("mask_of", [padded, scattered], ids=["padded", "scattered"])
def test_the_same_bits_at_any_place_in_any_batch(mask_of: Callable[[list[int]], Mask], isa: str) -> None:
    places(mask_of, kernel, torch.float32)


@pytest.mark.parametrize("path", [path for path in SLOW_PATHS if "dropout" not in path])
def test_the_same_bits_at_any_place_on_every_path(path: str) -> None:
    places(padded, *PATHS[path])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_dropout_of_the_first_row_does_not_depend_on_the_others(dtype: torch.dtype) -> None:
    """What is dropped follows from the seed and the place in the batch: only row 0 can stay where it is."""
    x = numbers(dtype, batch=3)
    whole = with_dropout(padded([0, 3, 5]), *x)
    alone = with_dropout(padded([0]), *(t[:1] for t in x))
    assert same(alone, tuple(t[:1] for t in whole))
    assert not torch.equal(with_dropout(padded([0, 0]), *(t[:1].expand(2, *t.shape[1:]) for t in x))[0][1:], alone[0])


# 6. A chunk of a prefill -----------------------------------------------------------------------------------------
CHUNKED: dict[str, dict[str, Any]] = {
    "plain": {},
    "with extras": {
        "bias": ALiBi([0.3, 0.1, 0.03, 0.01]) + Relative(torch.arange(4 * 21.0).view(4, 21).sin()),
        "softcap": 2.5,
        "sinks": torch.tensor([0.5, -1.0, 2.0, 0.0]),
    },
}


@pytest.mark.parametrize("extras", CHUNKED)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("mask", [Causal(), Window(70), Causal() & KeyPadding([1057])], ids=str)
def test_rows_of_a_chunk_have_the_bits_of_the_whole(mask: Mask, dtype: torch.dtype, extras: str, isa: str) -> None:
    """Queries in chunks, one of them a single token, each against the keys so far, as a growing cache would ask."""
    length, cuts = 1201, (0, 1, 3, 37, 300, 1030, 1031, 1201)  # across a chunk of 1024 keys
    q, k, v = (torch.randn(1, h, length, d).to(dtype) for h, d in ((4, D), (2, D), (2, DV)))
    more = CHUNKED[extras]
    whole, lse = mmha.attention(q, k, v, mask, return_lse=True, **more)
    for first, last in itertools.pairwise(cuts):
        part = q[:, :, first:last], k[:, :, :last], v[:, :, :last]
        out, part_lse = mmha.attention(*part, mask, return_lse=True, **more)
        assert torch.equal(out, whole[:, :, first:last])
        assert torch.equal(part_lse, lse[:, :, first:last])


@pytest.mark.parametrize("group", [1, 2, 4])
def test_few_rows_and_few_blocks_have_the_bits_of_many(group: int, isa: str, threads: Callable[[int], None]) -> None:
    """A row alone (keys in the lanes, heads of a group in one block, chunks of keys on threads) as among others."""
    length, heads = 4099, 4
    q, k, v = (torch.randn(2, h, t, 48) for h, t in ((heads, 33), (heads // group, length), (heads // group, length)))
    threads(1)
    whole, lse = mmha.attention(q, k, v, return_lse=True)
    for count in (1, 2, 3):
        threads(count)
        for rows in (slice(0, 1), slice(5, 7), slice(20, 33)):
            out, part = mmha.attention(q[:, :, rows], k, v, return_lse=True)
            assert torch.equal(out, whole[:, :, rows])
            assert torch.equal(part, lse[:, :, rows])


DISTANT = {
    "window and prefix": Window(700) | Prefix(3),
    "another for each head": masks.PerHead([~Full(), Window(1500), Prefix(5), Window(3500) & Prefix(1030)]),
    "bits": Dilated(2) & (Window(1900) | Prefix(1030)),
    "a hidden batch row": Window(3000) & KeyPadding([0, 3999]),
}


@pytest.mark.parametrize("mask", DISTANT)
def test_chunks_that_some_rows_do_not_see_have_the_bits_of_one_thread(
    mask: str, isa: str, threads: Callable[[int], None]
) -> None:
    length, rows = 4099, 33
    q, k, v = (torch.randn(2, h, t, 48) for h, t in ((4, rows), (2, length), (2, length)))
    for first, last in ((0, 3), (20, 33)):
        shown, start = DISTANT[mask], torch.full((2,), length - rows + first)
        assert shown.plan(2, 4, last - first, length, start).visible * 96 > 1 << 19  # else it stays on one thread
        threads(1)
        wanted = mmha.attention(q[:, :, first:last], k, v, shown, q_start=start, return_lse=True)
        for count in (2, 3):
            threads(count)
            found = mmha.attention(q[:, :, first:last], k, v, shown, q_start=start, return_lse=True)
            assert same(found, wanted)


def test_pairs_of_keys_are_the_same_in_every_block(isa: str) -> None:
    """bfloat16 is multiplied two keys at a time. Every row here sees as much of +x as of -x: what is left of the sum is
    how it was rounded, in the order of the keys, and nothing else."""
    half, length = 67, 331
    k = torch.randn(1, 1, length, 5).bfloat16()
    once = (torch.randn(half, DV) * 2.0 ** torch.randint(0, 24, (half, 1))).bfloat16()
    v = torch.cat([once, -once] * 3)[None, None, :length]
    q = torch.zeros_like(k)  # every visible key weighs the same
    whole = mmha.attention(q, k, v, Window(2 * half - 1, 0))
    for first in (141, 142, 143):
        out = mmha.attention(q[:, :, first:], k, v, Window(2 * half - 1, 0))
        assert torch.equal(out, whole[:, :, first:])
