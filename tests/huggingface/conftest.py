"""What every test of this folder needs: "mmha" known to transformers."""

from __future__ import annotations

import pytest

import mmha.huggingface


@pytest.fixture
def registered() -> None:
    mmha.huggingface.register()
