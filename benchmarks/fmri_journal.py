"""What a long benchmark has found so far, so that it goes on where it was stopped."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mmha import checkpoint


class Journal:
    """A file with a line of JSON for each part that is done, [name, found, seconds of the processor so far].

    Args: path; settings, of the run: what a run with others has found is not taken.
    """

    def __init__(self, path: Path, settings: dict[str, Any]) -> None:
        self.path, self.before, self.begun = path, 0.0, time.process_time()
        self.found: dict[str, Any] = {}
        lines = path.read_text("utf-8").splitlines() if path.exists() else []
        if lines and json.loads(lines[0]) == settings:
            for line in lines[1:]:
                name, self.found[name], self.before = json.loads(line)
        self.lines = lines if self.found else [json.dumps(settings)]

    def __call__(self, name: str, make: Callable[[], Any]) -> Any:
        """What the part of this name found: made now, unless a run before this one did."""
        if name not in self.found:
            self.found[name] = made = make()
            print(f"{self.seconds():5.0f} s  {name}: {json.dumps(made)[:200]}", flush=True)
            self.lines.append(json.dumps([name, made, self.seconds()]))
            checkpoint.write(self.path, ("\n".join(self.lines) + "\n").encode())  # whole, whenever it is killed
        return self.found[name]

    def seconds(self) -> float:
        """Of the processor, in this run and in those that it goes on from."""
        return self.before + time.process_time() - self.begun
