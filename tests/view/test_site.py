"""The site of `make docs`, opened from disk in headless Chromium: it is searched without a server."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser

pytestmark = pytest.mark.slow
SITE = Path(__file__).parents[2] / "site"
TIMEOUT = 120_000  # ms


@pytest.mark.parametrize(
    ("page", "word", "found"),
    [("index.html", "logarithm", "Glossary"), ("examples/plot_heads.html", "DeepFilterNet3", "Speech"),
     ("zh/index.html", "软上限", "术语"), ("zh/api/masks.html", "KeyPadding", "mmha.masks")],
)  # fmt: skip
def test_a_site_on_disk_is_searched(browser: Browser, page: str, word: str, found: str) -> None:
    if not (SITE / "zh" / "search").exists():
        pytest.skip("needs the site: make docs")
    shown = browser.new_page()
    shown.set_default_timeout(TIMEOUT)
    asked: list[str] = []
    shown.on("request", lambda request: asked.append(request.url))
    shown.goto((SITE / page).as_uri())
    shown.locator(".md-search__input").click()
    shown.keyboard.type(word)
    results = shown.locator(".md-search-result__item")
    results.first.wait_for()
    # A search in Chinese marks between which words a line may break.
    assert any(found in text.replace("\u200b", "") for text in results.all_inner_texts())
    assert [url for url in asked if not url.startswith(("file:", "data:"))] == []
