"""How commands print: for people on a terminal, plainly into a pipe, as JSON for programs.

rich is imported when a command prints and not before: `mmha --help` has 0.3 s in all.
"""

from __future__ import annotations

import json
import os
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

PIPE_WIDTH = 120


def examples(*lines: str) -> str:
    """The epilog of a command's help: lines that can be copied as they are.

    >>> examples("mmha info", "mmha info --json")
    '\\x08\\nExamples:\\n  mmha info\\n  mmha info --json'
    """
    return "\b\nExamples:\n" + "\n".join(f"  {line}" for line in lines)


def console(stderr: bool = False) -> Console:
    """A rich console that wraps nothing in a pipe; rich itself honours NO_COLOR and leaves colour out of pipes."""
    from rich.console import Console

    stream = sys.stderr if stderr else sys.stdout
    return Console(stderr=stderr, width=None if stream.isatty() else PIPE_WIDTH, highlight=False, soft_wrap=True)


def print_json(value: Any) -> None:
    """One JSON document on stdout, readable in any encoding."""
    print(json.dumps(value, indent=2))


def worded(error: Exception) -> str:
    """What an error says, the file first that it is about.

    >>> worded(FileNotFoundError(2, "No such file or directory", "a.wav"))
    'a.wav: No such file or directory'
    """
    if isinstance(error, OSError) and error.filename and error.strerror:
        return f"{os.fspath(error.filename)}: {error.strerror}"
    return str(error) or type(error).__name__


def harmless(text: str) -> str:
    """A text from outside as a terminal may show it: control characters, which it would obey, become U+FFFD.

    >>> harmless("a\\tb\\x1b[2J")
    'a\\tb�[2J'
    """
    import unicodedata

    return "".join("\ufffd" if unicodedata.category(c) == "Cc" and c not in "\n\t" else c for c in text)
