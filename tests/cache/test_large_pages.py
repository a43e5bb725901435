"""Where the system has large pages, large caches ask for them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from mmha import KVCache
from mmha.ops.caches import LARGE_PAGE


@pytest.mark.skipif(not Path("/sys/kernel/mm/transparent_hugepage").exists(), reason="this system has no large pages")
def test_a_large_cache_prefers_large_pages() -> None:
    cache = KVCache(batch=1, kv_heads=1, max_len=64 << 10, head_dim=64)
    for x in (cache._memory.keys, cache._memory.values):
        (flags,) = [line for line in mapping(x.data_ptr() + LARGE_PAGE) if line.startswith("VmFlags:")]
        assert "hg" in flags.split()


def mapping(address: int) -> list[str]:
    """The lines of /proc/self/smaps on the run of memory that holds the address."""
    lines = Path("/proc/self/smaps").read_text(encoding="utf-8").splitlines()
    heads = [at for at, line in enumerate(lines) if re.match("[0-9a-f]+-[0-9a-f]+ ", line)]
    for at, end in zip(heads, [*heads[1:], len(lines)], strict=True):
        first, last = (int(x, 16) for x in lines[at].split()[0].split("-"))
        if first <= address < last:
            return lines[at:end]
    raise AssertionError(f"{address:x} is nowhere")
