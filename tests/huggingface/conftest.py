"""Every test here finds the name "mmha" registered, and one thread: models this small only wait for a second one."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

import mmha.huggingface


@pytest.fixture(autouse=True)
def registered() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    mmha.huggingface.register()
    yield
    torch.set_num_threads(threads)
