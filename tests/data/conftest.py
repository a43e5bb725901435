"""The real sets of data, fetched into the cache that users have and left there."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from mmha.data import registry


@pytest.fixture
def fetched(in_ci: bool) -> Callable[[str], Path]:
    """Gives the folder of a set; without a network the test is skipped, in CI it fails."""

    def get(name: str) -> Path:
        try:
            return registry.get(name)
        except registry.DataError as error:
            if in_ci:
                raise
            pytest.skip(f"the registry is out of reach: {error}")

    return get
