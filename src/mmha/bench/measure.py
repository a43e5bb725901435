"""How it is measured: torch and mmha in turns within one run, medians, a bounded time per row.

Machines drift (frequency, neighbours), so two programs are only comparable when they are timed alternately: every
round times each once and every other round swaps the order. What is over in microseconds is called several times a
turn. Before anything is timed the two results are compared (`agree`). What torch needs prepared (its dense mask) is
prepared outside the clock.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import get_args

import torch

from mmha import _kernels, checks
from mmha.bench import agree, decode, features, masked
from mmha.bench.cases import Case, Kind, Unit
from mmha.bench.contest import Contest, Work

ROUNDS, MAX_ROUNDS = 5, 61
FEWEST_ROUNDS, PATIENCE = 3, 5  # so few will do after so many times a row's time: torch may take seconds a call
MIN_TURN = 1e-3  # seconds: far above what the clock resolves
READ_BYTES = 256 * 2**20  # larger than any last-level cache we know

BUILDERS: dict[Kind, Callable[[Case], Contest]] = {
    "dropout": features.dropout,
    "alibi": features.alibi,
    "relative": features.relative,
    "softcap": features.softcap,
    "sinks": features.sinks,
    "padded": masked.padded,
    "packed": masked.packed,
    "token": decode.token,
    "step": decode.step,
    "prefill": decode.prefill,
    "guesses": decode.guesses,
}


@dataclass(frozen=True)
class Limits:
    """What this machine can do at all: the best probe so far, by unit and threads; GFLOP/s are multiply-adds."""

    threads: int
    best: dict[tuple[Unit, int], float]

    @property
    def fma_gflops(self) -> float:
        """GFLOP/s of multiply-adds on the run's threads."""
        return self.best["GFLOP/s", self.threads]

    @property
    def read_gbs(self) -> float:
        """GB/s of reading from memory on the run's threads."""
        return self.best["GB/s", self.threads]


@dataclass(frozen=True)
class Row:
    """One measured row; times of one call in milliseconds, one entry per round, each the mean of `calls` calls.

    threads: what both sides had; limit: the best probe with as many so far, GFLOP/s of multiply-adds or, where reading
    bounds the row, GB/s. read: the bytes such a row reads a call. part_ms: times of what ours does besides, if any.
    """

    case: Case
    threads: int
    pairs: int
    limit: float
    torch_ms: list[float] = field(repr=False)
    mmha_ms: list[float] = field(repr=False)
    difference: float
    calls: int = 1
    read: int = 0
    part_ms: list[float] = field(default_factory=list, repr=False)

    @property
    def torch_median(self) -> float:
        """Median time of torch, ms."""
        return statistics.median(self.torch_ms)

    @property
    def mmha_median(self) -> float:
        """Median time of mmha, ms."""
        return statistics.median(self.mmha_ms)

    @property
    def ratio(self) -> float:
        """How many times faster than torch: the quotient of the medians."""
        return self.torch_median / self.mmha_median

    @property
    def gflops(self) -> float:
        """Useful GFLOP/s: visible pairs only."""
        return self.case.flop(self.pairs) / self.mmha_median / 1e6

    @property
    def rate(self) -> float:
        """What the row did in its own unit: useful GFLOP/s, or GB/s of keys and values read."""
        return self.gflops if self.case.unit == "GFLOP/s" else self.read / self.mmha_median / 1e6

    @property
    def share(self) -> float:
        """The rate as a share of what this machine reached: above 1 where all that is read stays in a cache."""
        return self.rate / self.limit

    @property
    def beyond_part(self) -> float | None:
        """Median time of mmha less that of the part it holds, ms; None where no part was timed."""
        return self.mmha_median - statistics.median(self.part_ms) if self.part_ms else None

    @property
    def rounds(self) -> int:
        """How many times each side was timed."""
        return len(self.mmha_ms)


@contextmanager
def thread_count(threads: int) -> Iterator[None]:
    """Run with this many threads in torch's pool, which mmha shares, and put the old number back."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def instruction_set(isa: str) -> Iterator[None]:
    """Run our kernels, and the probe of the machine's limit, for this instruction set, "" = the one in use."""
    if isa:
        checks.one_of("isa", isa, tuple(_kernels.available()))
    before = _kernels.select(isa or _kernels.isa())
    try:
        yield
    finally:
        _kernels.select(before)


def probe(threads: int) -> Limits:
    """The machine's own limits, measured now: the best of three short probes, since a limit is what can be reached."""
    units: tuple[Unit, ...] = get_args(Unit)
    return Limits(threads, {(unit, threads): probe_limit(unit, threads) for unit in units})


def probe_fma(threads: int) -> float:
    """GFLOP/s of multiply-adds without any memory traffic, the best of three probes of 0.05 s."""
    return max(_kernels.probe_fma(threads, 0.05) for _ in range(3))


def probe_read(threads: int) -> float:
    """GB/s of reading from memory, the best of three probes."""
    return max(_kernels.probe_read(READ_BYTES, threads) for _ in range(3))


def probe_limit(unit: Unit, threads: int) -> float:
    """What this machine can do in this unit, measured now."""
    return probe_fma(threads) if unit == "GFLOP/s" else probe_read(threads)


def measure(case: Case, threads: int, seconds: float = 2.0, limit: float = 0.0) -> Row:
    """Time one case against torch for about `seconds`, 5 rounds or more, 3 where those are long.

    threads: unless the case has its own number. The machine is probed before and after: a probe can only fall short of
    what it can do, so that the best one counts; `limit` is the best so far.

    Raises:
        RuntimeError: mmha and torch do not agree on the result.
    """
    threads = case.threads or threads
    with thread_count(threads):
        contest = BUILDERS.get(case.kind, masked.masked)(case)
        ours, theirs = contest.ours.work(case.direction), contest.theirs.work(case.direction)
        difference = agree.check(case, contest, ours(), theirs())
        calls = calls_a_turn(ours)
        limit = max(limit, probe_limit(case.unit, threads))
        parts = () if contest.part is None else (contest.part,)
        times = interleave(theirs, ours, *parts, seconds=seconds, calls=calls)
        limit = max(limit, probe_limit(case.unit, threads))
    part_ms = times[2] if parts else []
    return Row(case, threads, contest.pairs, limit, times[0], times[1], difference, calls, contest.read, part_ms)


def calls_a_turn(work: Work) -> int:
    """How often a turn calls its side, so that it does not vanish in the clock's resolution."""
    calls = 1
    while seconds_of(work, calls) < MIN_TURN:
        calls *= 2
    return calls


def interleave(*works: Work, seconds: float, calls: int = 1) -> tuple[list[float], ...]:
    """Times of a call in ms of each, one turn of each a round, in reversed order every other round; all are warm."""
    times: tuple[list[float], ...] = tuple([] for _ in works)
    start = time.perf_counter()
    while goes_on(len(times[0]), time.perf_counter() - start, seconds):
        turns = list(zip(works, times, strict=True))
        for work, taken in turns if len(times[0]) % 2 == 0 else reversed(turns):
            taken.append(seconds_of(work, calls) / calls * 1e3)
    return times


def goes_on(rounds: int, passed: float, seconds: float) -> bool:
    """Whether another round is due after so many, and so many seconds, when a row has `seconds`.

    >>> goes_on(4, 3.0, seconds=2.0), goes_on(5, 3.0, seconds=2.0), goes_on(4, 11.0, seconds=2.0)
    (True, False, False)
    """
    if rounds < ROUNDS:
        return rounds < FEWEST_ROUNDS or passed < PATIENCE * seconds
    return rounds < MAX_ROUNDS and passed < seconds


def seconds_of(work: Work, calls: int) -> float:
    """How long so many calls take."""
    start = time.perf_counter()
    for _ in range(calls):
        work()
    return time.perf_counter() - start
