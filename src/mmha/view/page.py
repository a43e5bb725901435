"""A page from its parts and its data: one file, which asks for nothing from outside and runs no text that is in it."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Mapping
from importlib.resources import files
from typing import Any

# In this order: each uses what stands before it.
SCRIPTS = (
    "notation.js",
    "masks.js",
    "draw.js",
    "mask_panel.js",
    "look_panel.js",
    "steps_panel.js",
    "sound_panel.js",
    "start.js",
)
# What could end the element that holds the data, or begin another; all can only stand inside of strings.
_UNSAFE = {ord(c): f"\\u{ord(c):04x}" for c in "<>&\u2028\u2029"}
_HOLE = re.compile(r"\{\{(\w+)\}\}")


def read(name: str) -> str:
    """A part of the page."""
    return (files("mmha.view") / "parts" / name).read_text("utf-8")


def script() -> str:
    """All that runs in the page."""
    return "\n".join(read(name).replace('"use strict";\n', "", 1) for name in SCRIPTS)


def build(data: Mapping[str, Any], served: bool = False) -> str:
    """The page that shows the data, JSON values as `looks` makes them.

    Only the page's own script and style run, by their digests: nothing that a text in the data says. `served`: the page
    may send a form to where it came from.

    >>> "<b>" in build({"mask": {"text": "<b>", "size": 4}, "looks": [], "generation": None})
    False
    """
    style, code = read("view.css"), f'"use strict";\n{script()}'
    policy = (
        f"default-src 'none'; script-src {_digest(code)}; style-src {_digest(style)}; img-src data:; "
        f"media-src data:; base-uri 'none'; form-action {chr(39)}{'self' if served else 'none'}{chr(39)}"
    )
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"), allow_nan=False).translate(_UNSAFE)
    parts = {"policy": policy, "style": style, "data": text, "script": code}
    return _HOLE.sub(lambda hole: parts[hole[1]], read("view.html"))


def _digest(text: str) -> str:
    digest = hashlib.sha256(text.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"
