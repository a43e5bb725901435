"""Headless Chromium, where it is; the tests that need it say what to install and are left out elsewhere."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    api = pytest.importorskip("playwright.sync_api", reason='needs playwright: pip install "mmha[browser]"')
    program = os.environ.get("MMHA_CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
    with api.sync_playwright() as play:
        try:
            launched = play.chromium.launch(executable_path=program, args=["--no-sandbox"])
        except api.Error as error:
            pytest.skip(f"needs Chromium (apt-get install chromium, or playwright install chromium): {error}")
        yield launched
        launched.close()
