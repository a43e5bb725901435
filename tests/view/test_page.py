"""The page as a file: whole, small, asking for nothing outside, and deaf to what texts in it say."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from html.parser import HTMLParser
from typing import Any

import pytest
import quickjs

from mmha.view import page

VOID = {"meta", "link", "br", "input"}
EVIL = [
    "</script><script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "<!--",
    "]]>",
    "\u2028",
    "&lt;",
    "\\u003c",
    '"',
]


class Tags(HTMLParser):
    """Elements that are opened and closed in turn, the attributes that were met, and what each script holds."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.attributes: list[tuple[str, str, str | None]] = []
        self.held: dict[str, list[str]] = {}
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += [(tag, name, value) for name, value in attrs]
        if tag not in VOID:
            self.open.append(tag)
            self.held.setdefault(tag, []).append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open:
            self.held[self.open[-1]][-1] += data


def data(text: str = "causal") -> dict[str, Any]:
    look = {
        "id": "tagger", "short": text, "title": text, "about": text, "rows": [text, "b"], "columns": [text, "b"],
        "same": True, "labels": [text, "NOUN"], "weights": [[[[1000], [500, 500]]]],
    }  # fmt: skip
    step = {"may": [[text, 500.0]], "next": [text, 500.0, 0]}
    generation = {"about": text, "prompt": 1, "tokens": [text], "weights": [[[[1000]]]], "steps": [step]}
    return {"mask": {"text": text, "size": 7}, "looks": [look], "generation": generation}


@pytest.mark.parametrize("text", ["causal", *EVIL])
def test_a_text_stays_a_text(text: str) -> None:
    built = page.build(data(text))
    tags = Tags(built)
    assert tags.open == []
    assert len(tags.held["script"]) == 2  # the data and the page's own script: nothing has begun another
    assert json.loads(tags.held["script"][0]) == data(text)
    assert not set("<>&\u2028\u2029") & set(tags.held["script"][0])
    assert [name for _, name, _ in tags.attributes if name.startswith("on")] == []


def test_only_what_is_the_pages_own_may_run() -> None:
    tags = Tags(page.build(data(EVIL[0])))
    policy = next(value for _, name, value in tags.attributes if name == "content" and "default-src" in (value or ""))
    for directive, held in (("script-src", tags.held["script"][1]), ("style-src", tags.held["style"][0])):
        digest = base64.b64encode(hashlib.sha256(held.encode()).digest()).decode()
        assert re.search(rf"{directive} 'sha256-{re.escape(digest)}';", policy or "")
    assert "default-src 'none'" in (policy or "")
    assert (policy or "").endswith("form-action 'none'")
    assert "form-action 'self'" in page.build(data(), served=True)


def test_nothing_is_fetched() -> None:
    built = page.build(data())
    assert re.findall(r"https?:|//[a-z]|@import|url\(|\bfetch\b|XMLHttpRequest|WebSocket|import\(", built) == []
    links = [(tag, value) for tag, name, value in Tags(built).attributes if name in ("src", "href", "action")]
    assert links == [("link", "data:,")]
    assert len(built.encode()) < 80_000


def test_scripts_parse_and_make_no_markup_of_texts() -> None:
    quickjs.Context().eval(f"(() => {{ 'use strict'; {page.script()} }})")
    assert re.findall(r"innerHTML|outerHTML|insertAdjacent|document\.write|\beval\b|new Function", page.script()) == []


def test_numbers_that_json_lacks_are_refused() -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        page.build(data() | {"more": float("nan")})
