"""A `KVCache` and a `PagedKVCache` under any sequence of orders, each beside a list of tensors that does the same."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from torch import Tensor

import mmha
from cache_model import ListModel, expected, near, same_as
from mmha import KVCache, PagedKVCache
from mmha.masks import Causal

B, H, HK, D, DV, MAX = 3, 4, 2, 5, 3, 37
SETTINGS = settings(
    max_examples=40, stateful_step_count=25, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)


def tokens(batch: int, n: int, seed: int) -> tuple[Tensor, Tensor]:
    random = torch.Generator().manual_seed(seed)
    return torch.randn(batch, HK, n, D, generator=random), torch.randn(batch, HK, n, DV, generator=random)


def attends_alike(cache: Any, model: ListModel, q_len: int, dtype: torch.dtype) -> None:
    q = torch.randn(len(model.rows), H, q_len, D, generator=torch.Generator().manual_seed(q_len))
    near(mmha.attention(q, cache, mask=Causal()), expected(q, model, Causal())[0], dtype)


each_row = st.lists(st.integers(0, B - 1), min_size=B, max_size=B)
seeds = st.integers(0, 2**31)


class Contiguous(RuleBasedStateMachine):
    """Rows of a batch that are appended to, cut, emptied, copied and shared."""

    @initialize(dtype=st.sampled_from([torch.float32, torch.bfloat16, torch.int8]))
    def begin(self, dtype: torch.dtype) -> None:
        self.dtype = dtype
        self.cache = KVCache(B, HK, MAX, D, value_dim=DV, dtype=dtype)
        self.model = ListModel.empty(B, HK, D, DV, dtype)

    @rule(n=st.integers(0, 19), seed=seeds)
    def append(self, n: int, seed: int) -> None:
        self._append(n, None, seed)

    @rule(counts=st.lists(st.integers(0, 19), min_size=B, max_size=B), seed=seeds)
    def append_ragged(self, counts: list[int], seed: int) -> None:
        self._append(max(counts), counts, seed)

    def _append(self, n: int, counts: list[int] | None, seed: int) -> None:
        k, v = tokens(B, n, seed)
        more = counts or [n] * B
        given = None if counts is None else torch.tensor(counts)
        if any(have + new > MAX for have, new in zip(self.model.lengths, more, strict=True)):
            with pytest.raises(ValueError, match=r"expected .*, got "):
                self.cache.append(k, v, given)
        else:
            self.cache.append(k, v, given)
            self.model.append(k, v, counts)

    @rule(shares=st.lists(st.floats(0.0, 1.0), min_size=B, max_size=B))
    def truncate(self, shares: list[float]) -> None:
        lengths = [int(share * n) for share, n in zip(shares, self.model.lengths, strict=True)]
        self.cache.truncate(torch.tensor(lengths))
        self.model.truncate(lengths)

    @rule(rows=st.none() | st.lists(st.integers(0, B - 1), max_size=B, unique=True))
    def reset(self, rows: list[int] | None) -> None:
        self.cache.reset(rows)
        self.model.reset(rows)

    @rule(index=each_row)
    def reorder(self, index: list[int]) -> None:
        self.cache.reorder(torch.tensor(index))
        self.model.reorder(index)

    @rule(index=each_row)
    def branch(self, index: list[int]) -> None:
        self.cache.branch(torch.tensor(index))
        self.model.reorder(index)

    @precondition(lambda self: max(self.model.lengths) > 0)
    @rule(q_len=st.sampled_from([1, 3]))
    def attend(self, q_len: int) -> None:
        attends_alike(self.cache, self.model, q_len, self.dtype)

    @invariant()
    def holds_the_same(self) -> None:
        same_as(self.cache, self.model)


WINDOW, SINKS, ROOM = 6, 2, 3


class Cyclic(RuleBasedStateMachine):
    """Rows that turn in their rings, are cut and exchanged. What a ring still holds is right, and the rest refused."""

    @initialize(dtype=st.sampled_from([torch.float32, torch.float16]))
    def begin(self, dtype: torch.dtype) -> None:
        self.dtype = dtype
        self.cache = KVCache(B, HK, WINDOW + SINKS + ROOM, D, value_dim=DV, dtype=dtype, window=WINDOW, sinks=SINKS)
        self.model = ListModel.empty(B, HK, D, DV, dtype)
        self.kept = [0] * B  # tokens before it, but for the sinks, were overwritten

    @rule(counts=st.lists(st.integers(0, 2 * WINDOW), min_size=B, max_size=B), seed=seeds)
    def append(self, counts: list[int], seed: int) -> None:
        k, v = tokens(B, max(counts), seed)
        self.cache.append(k, v, torch.tensor(counts))
        self.model.append(k, v, counts)
        self.kept = [max(old, n - WINDOW - ROOM) for old, n in zip(self.kept, self.model.lengths, strict=True)]

    @rule(back=st.lists(st.integers(0, 2 * ROOM), min_size=B, max_size=B))
    def truncate(self, back: list[int]) -> None:
        lengths = [max(n - less, 0) for n, less in zip(self.model.lengths, back, strict=True)]
        lost = [
            kept > SINKS and 0 < n < old and n - WINDOW + 1 < kept
            for n, old, kept in zip(lengths, self.model.lengths, self.kept, strict=True)
        ]
        if any(lost):
            with pytest.raises(ValueError, match=r"`lengths`: expected .*overwritten"):
                self.cache.truncate(torch.tensor(lengths))
        else:
            self.cache.truncate(torch.tensor(lengths))
            self.model.truncate(lengths)
            self.kept = [kept if n else 0 for n, kept in zip(lengths, self.kept, strict=True)]

    @rule(row=st.integers(0, B - 1))
    def reset(self, row: int) -> None:
        self.cache.reset([row])
        self.model.reset([row])
        self.kept[row] = 0

    @rule(index=each_row, how=st.sampled_from(["reorder", "branch"]))
    def exchange(self, index: list[int], how: str) -> None:
        getattr(self.cache, how)(torch.tensor(index))
        self.model.reorder(index)
        self.kept = [self.kept[b] for b in index]

    @precondition(lambda self: max(self.model.lengths) > 0)
    @rule(q_len=st.integers(1, ROOM + 1))
    def attend(self, q_len: int) -> None:
        q = torch.randn(B, H, q_len, D, generator=torch.Generator().manual_seed(q_len))
        first = [n - q_len for n in self.model.lengths]
        lost = [
            kept > SINKS and any(SINKS <= max(p - WINDOW + 1, SINKS) < min(kept, p + 1) for p in range(max(f, 0), n))
            for f, n, kept in zip(first, self.model.lengths, self.kept, strict=True)
        ]
        if any(lost):
            with pytest.raises(ValueError, match=r"`q`: expected .*overwritten"):
                mmha.attention(q, self.cache, mask=Causal())
        else:
            want = expected(q, self.model, Causal(), window=WINDOW, sink_tokens=SINKS)[0]
            near(mmha.attention(q, self.cache, mask=Causal()), want, self.dtype)

    @invariant()
    def has_its_lengths(self) -> None:
        assert self.cache.lengths.tolist() == self.model.lengths


BLOCKS, SIZE = 17, 4


class Paged(RuleBasedStateMachine):
    """Sequences that come, go, grow, fork and are cut in a pool of a few blocks."""

    @initialize(dtype=st.sampled_from([torch.float32, torch.float16]))
    def begin(self, dtype: torch.dtype) -> None:
        self.dtype = dtype
        self.pool = PagedKVCache(BLOCKS, SIZE, HK, D, value_dim=DV, dtype=dtype)
        self.rows: dict[int, ListModel] = {}

    @rule(count=st.integers(0, 2))
    def allocate(self, count: int) -> None:
        if len(self.rows) < 6:
            ids = self.pool.allocate(count)
            assert len(set(ids)) == count
            assert not set(ids) & set(self.rows)
            self.rows |= {each: ListModel.empty(1, HK, D, DV, self.dtype) for each in ids}

    @precondition(lambda self: self.rows)
    @rule(data=st.data())
    def free(self, data: st.DataObject) -> None:
        each = data.draw(st.sampled_from(sorted(self.rows)))
        self.pool.free([each])
        del self.rows[each]

    @precondition(lambda self: self.rows and len(self.rows) < 6)
    @rule(data=st.data())
    def fork(self, data: st.DataObject) -> None:
        parent = data.draw(st.sampled_from(sorted(self.rows)))
        child = self.pool.fork(parent)
        assert child not in self.rows
        self.rows[child] = ListModel(list(self.rows[parent].rows), self.dtype)

    @precondition(lambda self: self.rows)
    @rule(data=st.data(), n=st.integers(0, 11), seed=seeds)
    def append(self, data: st.DataObject, n: int, seed: int) -> None:
        """To some sequences at once, which are too many for the pool now and then: then nothing changes."""
        ids = data.draw(st.lists(st.sampled_from(sorted(self.rows)), min_size=1, max_size=3, unique=True))
        k, v = tokens(len(ids), n, seed)
        try:
            self.pool.select(ids).append(k, v)
        except ValueError as error:
            assert "expected" in str(error)  # noqa: PT017  (either outcome is right, as the pool happens to be)
            own = sum(-(-rows.lengths[0] // SIZE) for rows in self.rows.values())  # if nothing were shared
            wanted = sum(-(-(self.rows[each].lengths[0] + n) // SIZE) + 1 for each in ids)
            assert own + wanted > BLOCKS
        else:
            for b, each in enumerate(ids):
                self.rows[each].append(k[b : b + 1], v[b : b + 1])

    @precondition(lambda self: self.rows)
    @rule(data=st.data(), share=st.floats(0.0, 1.0))
    def truncate(self, data: st.DataObject, share: float) -> None:
        each = data.draw(st.sampled_from(sorted(self.rows)))
        length = int(share * self.rows[each].lengths[0])
        self.pool.select([each]).truncate(length)
        self.rows[each].truncate(length)

    @invariant()
    def holds_the_same(self) -> None:
        if getattr(self, "rows", None):
            ids = sorted(self.rows)
            model = ListModel([self.rows[each].rows[0] for each in ids], self.dtype)
            view = self.pool.select(ids)
            same_as(view, model)
            if max(model.lengths):
                attends_alike(view, model, 1, self.dtype)


Contiguous.TestCase.settings = SETTINGS
Paged.TestCase.settings = SETTINGS
Cyclic.TestCase.settings = SETTINGS
TestContiguous = Contiguous.TestCase
TestCyclic = Cyclic.TestCase
TestPaged = Paged.TestCase
