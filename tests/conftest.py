"""Fixtures for all tests: every instruction set of this machine, fixed seeds, and what to do without a network."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from mmha import _kernels
from mmha.data import registry


@pytest.fixture(params=_kernels.available())
def isa(request: pytest.FixtureRequest) -> Iterator[str]:
    """Runs the test once per instruction set that this machine has."""
    previous = _kernels.select(request.param)
    yield request.param
    _kernels.select(previous)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def _threads(number: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def one_thread() -> Iterator[None]:
    """For thousands of tiny steps: on a busy machine waiting for a second thread takes longer than they do."""
    yield from _threads(1)


@pytest.fixture
def two_threads() -> Iterator[None]:
    """For what is shared out between threads, on any machine."""
    yield from _threads(2)


@pytest.fixture
def in_ci() -> bool:
    """True where a missing network is a failure and not a reason to skip."""
    return os.environ.get("CI", "") not in ("", "0", "false")


@pytest.fixture
def fetched(in_ci: bool) -> Callable[[str], Path]:
    """Gives the folder of a set of data in the users' cache; without a network the test is skipped, in CI it fails."""

    def get(name: str) -> Path:
        try:
            return registry.get(name)
        except registry.DataError as error:
            if in_ci:
                raise
            pytest.skip(f"the registry is out of reach: {error}")

    return get
