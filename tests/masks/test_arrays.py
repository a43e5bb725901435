"""Arithmetic on bits and spans, where a mistake would only cost memory and show nowhere else."""

from __future__ import annotations

import os

import numpy as np
import pytest

from mmha import _kernels
from mmha.masks import arrays


@pytest.mark.parametrize("k_len", [1, 63, 64, 65, 131])
def test_runs_of_bits_are_counted_across_words(k_len: int) -> None:
    seen = np.random.default_rng(k_len).random((11, k_len)) < 0.8
    seen[0], seen[1] = True, False
    bits = _kernels.pack_bits(seen)
    starts = seen & ~np.pad(seen, ((0, 0), (1, 0)))[:, :-1]
    assert arrays.run_count(bits) == starts.sum()
    offsets, spans = arrays.bits_to_spans(bits, k_len)
    assert offsets.tolist() == [0, *np.cumsum(starts.sum(axis=1))]
    assert spans[:, 0].tolist() == np.nonzero(starts)[1].tolist()
    assert (_kernels.spans_to_bits(offsets, spans, k_len) == bits).all()


def test_ends() -> None:
    assert arrays.ends(np.array([2, 0, 3])).tolist() == [0, 2, 2, 5]
    assert arrays.ends(np.array([], dtype=np.int64)).tolist() == [0]


def test_a_plan_may_fill_the_machine_but_no_more() -> None:
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    arrays.check_room(memory)
    with pytest.raises(MemoryError, match=r"^`mask`: expected a plan that fits in memory \(\d+\.\d GB\), got one of"):
        arrays.check_room(memory + 1)
