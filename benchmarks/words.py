"""What the writers of sections have in common: sentences by name in English and in Chinese, and titles of rows."""

from __future__ import annotations

import re
from collections.abc import Mapping

Words = Mapping[str, str]
"""Sentences by name, with braces for figures. In Chinese also titles of rows and columns, by what they are in English
with {} for each number; what has none keeps its name."""
NUMBER = re.compile(r"(?<![\w.])\d+(?:[.,]\d+)*(?![.\w])")


def title(text: str, words: Words) -> str:
    """A title of a row or of a column, in the language of `words`."""
    form = NUMBER.sub("{}", text)
    return words[form].format(*NUMBER.findall(text)) if form in words else text
