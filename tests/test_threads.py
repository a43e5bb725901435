"""Many threads at a time, the children of forks, memory that runs out: the same bits as alone, and nothing hangs."""

from __future__ import annotations

import ctypes
import gc
import itertools
import os
import pickle
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

import mmha
from mmha import _kernels
from mmha.masks import Causal, Documents, Full, KeyPadding, Mask, PerHead, Prefix, Window, from_dense
from mmha.masks.plan import CACHE
from mmha.ops.plans import MAX_PLANS, PLANS

# Python 3.12 warns of every fork beside threads; that is what is tested here.
pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")

PATIENCE = 8.0
# Large enough for two threads (driver.cpp, kWorthThreads), and small enough that torch's own operators do not look for
# theirs (32768 elements): in the child of a fork those hang, with or without mmha.
DIM = 17


@pytest.fixture(autouse=True)
def _two_threads() -> Iterator[None]:
    threads, interval = torch.get_num_threads(), sys.getswitchinterval()
    torch.set_num_threads(2)
    sys.setswitchinterval(1e-5)  # seconds; Python changes threads 500 times as often as usual
    yield
    sys.setswitchinterval(interval)
    torch.set_num_threads(threads)


@dataclass(frozen=True)
class Problem:
    """One call forward and backward, always with the same numbers."""

    mask: Mask | Tensor | None
    q_len: int = 83
    k_len: int = 131
    batch: int = 1
    kv_heads: int = 3

    def solve(self) -> list[bytes]:
        """The bits of out, lse, dq, dk and dv."""
        random = torch.Generator().manual_seed(self.q_len * self.k_len)
        shapes = [(2 * self.kv_heads, self.q_len), (self.kv_heads, self.k_len), (self.kv_heads, self.k_len)]
        q, k, v = (torch.randn(self.batch, *shape, DIM, generator=random).requires_grad_() for shape in shapes)
        out, lse = mmha.attention(q, k, v, self.mask, return_lse=True)
        weight = torch.randn(out.shape, generator=random)
        grads = torch.autograd.grad((out, lse), (q, k, v), (weight, torch.ones_like(lse)))
        return [x.detach().numpy().tobytes() for x in (out, lse, *grads)]


def problems() -> list[Problem]:
    random = torch.Generator().manual_seed(1)
    return [
        Problem(None),
        Problem(Causal(), q_len=131),
        Problem(Causal() & Window(19), q_len=197, k_len=389),
        Problem(Causal() & Documents.from_lengths([37, 0, 83, 31]), q_len=151, k_len=151),
        Problem(KeyPadding([71, 131, 0]) | Prefix(3), batch=3, q_len=43),
        Problem(PerHead([Causal(), Full()] * 3), q_len=67, k_len=263),
        Problem(torch.rand(61, 257, generator=random) < 0.3, q_len=61, k_len=257),
        Problem(from_dense(torch.rand(67, 211, generator=random) < 0.9), q_len=67, k_len=211),
        Problem(Causal(), q_len=383, k_len=383, kv_heads=1),  # one task would be too few: backward in two passes
    ]


def together(*tasks: Callable[[], object]) -> None:
    """Run the tasks at the same time, each in a thread of its own; raise what the first of them raised."""
    start, raised = threading.Barrier(len(tasks)), list[BaseException]()

    def run(task: Callable[[], object]) -> None:
        try:
            start.wait(PATIENCE)
            task()
        except BaseException as error:
            raised.append(error)

    threads = [threading.Thread(target=run, args=(task,), daemon=True) for task in tasks]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
        assert not thread.is_alive(), "a thread hangs"
    if raised:
        raise raised[0]


def in_a_fork(task: Callable[[], object]) -> Any:
    """What the task returns in the child of a fork."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        answer: object = None
        try:
            signal.alarm(int(PATIENCE))  # not left behind when the parent is killed
            answer = task()
        except BaseException as error:
            answer = repr(error)
        finally:
            with os.fdopen(writer, "wb") as pipe:
                pickle.dump(answer, pipe)
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        try:
            assert select.select([pipe], [], [], PATIENCE)[0], "the child hangs"
            return pickle.load(pipe)
        finally:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)


def check_all(expected: list[list[bytes]], threads: int, first: int = 0) -> None:
    torch.set_num_threads(threads)
    for n in range(len(expected)):
        at = (first + n) % len(expected)
        assert problems()[at].solve() == expected[at], f"problem {at} on {threads} threads"


@pytest.fixture(scope="module")
def expected() -> list[list[bytes]]:
    """What each problem gives alone and on one thread."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    solved = [problem.solve() for problem in problems()]
    torch.set_num_threads(before)
    return solved


def test_eight_threads_at_a_time_give_the_bits_of_one(expected: list[list[bytes]]) -> None:
    a = torch.randn(307, 307, dtype=torch.float64)
    product = a @ a

    def solve(worker: int) -> None:
        for _ in range(3):
            check_all(expected, 1 + worker % 2, first=worker)

    def multiply() -> None:
        torch.set_num_threads(2)
        for _ in range(50):
            torch.testing.assert_close(a @ a, product)

    together(*[lambda w=w: solve(w) for w in range(8)], multiply, multiply)  # type: ignore[misc]


def test_threads_share_caches_that_overflow() -> None:
    q, k, v = torch.randn(3, 1, 2, 7, DIM).requires_grad_().unbind()
    known = [Causal() & Window(n % 5) & KeyPadding(n) for n in range(MAX_PLANS + CACHE.count)]
    ids = torch.arange(5003)  # a tensor that is remembered by identity: each copy has a plan, until it dies
    alone = [mmha.attention(q, k, v, mask) for mask in known]
    diagonal = mmha.attention(q, k, v, Documents(ids))

    def attend(worker: int) -> None:
        for n in range(len(known)):
            at = (n * (2 * worker + 1) + worker * 7) % len(known)  # an order of its own
            assert torch.equal(mmha.attention(q, k, v, known[at]), alone[at])
            assert torch.equal(mmha.attention(q, k, v, Documents(ids)), diagonal)

    together(*[lambda w=w: attend(w) for w in range(8)])  # type: ignore[misc]
    gc.collect()
    assert len(PLANS._plans) <= MAX_PLANS
    assert PLANS._bytes == sum(plan.nbytes for plan, _ in PLANS._plans.values())
    assert all(ref() is not None for _, refs in PLANS._plans.values() for ref in refs)
    assert len(CACHE) <= CACHE.count
    assert CACHE.nbytes == sum(cost for _, cost in CACHE._plans.values()) <= CACHE.limit


def test_instruction_sets_may_be_switched_while_others_compute(expected: list[list[bytes]]) -> None:
    before, done = _kernels.isa(), threading.Event()

    def switch() -> None:
        for name in itertools.cycle(_kernels.available()):
            _kernels.select(name)
            if done.wait(0.001):
                return

    def solve(worker: int) -> None:
        for at, problem in enumerate(problems() * 3):
            for got, bits in zip(problem.solve(), expected[at % len(expected)], strict=True):
                a, b = (torch.frombuffer(bytearray(x), dtype=torch.float32) for x in (got, bits))
                torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)

    def solve_all() -> None:
        try:
            together(*[lambda w=w: solve(w) for w in range(3)])  # type: ignore[misc]
        finally:
            done.set()

    try:
        together(switch, solve_all)
    finally:
        _kernels.select(before)


def test_a_region_of_openmp_may_call(expected: list[list[bytes]]) -> None:
    if _kernels.pool() != "libgomp":
        pytest.skip("torch computes on another pool here")
    raised: list[BaseException] = []
    calls = itertools.count()

    @ctypes.CFUNCTYPE(None, ctypes.c_void_p)
    def member(_: object) -> None:
        try:
            check_all(expected, threads=2, first=next(calls))
        except BaseException as error:
            raised.append(error)

    gomp = ctypes.CDLL("libgomp.so.1").GOMP_parallel
    together(lambda: gomp(member, None, 3, 0))
    assert raised == []
    assert next(calls) == 3


def test_a_fork_computes_as_its_parent(expected: list[list[bytes]]) -> None:
    check_all(expected, threads=2)  # the parent has used torch's threads, which its children do not have
    torch.randn(301, 301) @ torch.randn(301, 301)
    assert in_a_fork(lambda: check_all(expected, threads=2)) is None
    assert in_a_fork(lambda: in_a_fork(lambda: check_all(expected, threads=2))) is None
    assert in_a_fork(lambda: together(*[lambda: check_all(expected, threads=2)] * 3)) is None
    assert in_a_fork(_kernels.pool) == "std::thread"
    check_all(expected, threads=2)


class Solved(Dataset[list[bytes]]):
    """Problems that are solved where they are loaded: in a worker."""

    def __len__(self) -> int:
        return len(problems())

    def __getitem__(self, at: int) -> list[bytes]:
        assert torch.get_num_threads() == 2
        assert torch.utils.data.get_worker_info() is not None
        return problems()[at].solve()


def test_workers_of_a_data_loader_compute_as_their_parent(expected: list[list[bytes]]) -> None:
    check_all(expected, threads=2)
    loader = DataLoader(
        Solved(),
        batch_size=None,
        num_workers=2,
        timeout=PATIENCE,
        multiprocessing_context="fork",
        worker_init_fn=lambda _: torch.set_num_threads(2),
    )
    assert list(loader) == expected


@pytest.mark.parametrize("cache", [CACHE], ids=["masks"])
def test_a_fork_does_not_wait_for_a_cache_that_another_thread_was_using(
    cache: Any, expected: list[list[bytes]]
) -> None:
    using, done = threading.Event(), threading.Event()

    def use() -> None:
        with cache._lock:
            using.set()
            done.wait(PATIENCE)

    def fork() -> None:
        assert using.wait(PATIENCE)
        try:
            assert in_a_fork(lambda: check_all(expected, threads=2)) is None
        finally:
            done.set()

    together(use, fork)
    before = len(cache._plans)
    assert before
    assert in_a_fork(lambda: len(cache._plans)) == before  # what nobody was using is inherited


OUT_OF_MEMORY = """
import resource, torch
from mmha import _kernels, masks

def problem(length, dim):
    q, k, v, out = torch.randn(4, 1, 2, length, dim).unbind()
    lse, plan = torch.empty(1, 2, length), masks.Full().plan(1, 2, length, length)
    args = [(x.data_ptr(), tuple(x.shape), x.stride()[:3]) for x in (q, k, v, out)]
    return (plan.native, 0, *args, 0, lse.data_ptr(), 0.1, None, 2), (q, k, v, out, lse, plan)

torch.set_num_threads(2)
small, large = problem(257, 2), problem(257, 512)
_kernels.forward(*small[0])  # now there are threads, with little memory of their own
pages = int(open("/proc/self/statm").read().split()[0])
resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize(), resource.RLIM_INFINITY))
hold, refused = [], 0
for size in (1 << 20, 1 << 17):  # nothing large is left to be had, what is small is
    try:
        while True:
            hold.append(bytearray(size))
    except MemoryError:
        pass
for _ in range(20):
    try:
        _kernels.forward(*large[0])
    except MemoryError:
        refused += 1
hold.clear()
resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
_kernels.forward(*large[0])
q, k, v, out = large[1][:4]
torch.testing.assert_close(out, (0.1 * q @ k.mT).softmax(-1) @ v, rtol=1e-4, atol=1e-4)
print("refused" if refused else "there was enough")
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the limit on memory is set the Linux way")
def test_memory_that_runs_out_is_an_error_and_not_the_end() -> None:
    source = str(Path(mmha.__file__).parents[1])
    run = subprocess.run(
        [sys.executable, "-c", OUT_OF_MEMORY],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        # A thread's own arena has reserved its address space beforehand, and there would be enough in it, now and then.
        env={**os.environ, "PYTHONPATH": source, "MALLOC_ARENA_MAX": "1"},
    )
    assert (run.returncode, run.stdout) == (0, "refused\n"), run.stderr
