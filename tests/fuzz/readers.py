"""Damaged files for every reader: python tests/fuzz/readers.py --cases 1000 [--reader NAME] [--json FILE]

A case takes a valid file (seeds.py), damages it (mutations.py) and reads it. Permitted are success and a ValueError,
TypeError or OSError of one line that names the file; anything else, more than 5 seconds, more than 3 GB and the end of
the process are findings. Each reader runs in a process of its own. `--first N --cases 1` repeats case N of one reader.
"""

from __future__ import annotations

import argparse
import datetime
import hashlib
import importlib
import json
import os
import platform
import random
import resource
import shutil
import signal
import sys
import tempfile
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from types import FrameType
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from fuzz.kinds import ARGUMENTS, HEAVY, NAMELESS, READERS
from fuzz.mutations import damaged, damaged_json

PERMITTED = (ValueError, TypeError, OSError)
SECONDS = 5.0
ADDRESSES = 3 << 30  # bytes beside those that libraries take when they are loaded


class TooLong(BaseException):
    """What ends a case after 5 seconds; no reader catches it by accident."""


@contextmanager
def _alarm() -> Iterator[None]:
    def ring(number: int, frame: FrameType | None) -> None:
        raise TooLong

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, 60 * SECONDS)  # what sleeps; a busy machine makes others wait, too
    signal.signal(signal.SIGVTALRM, ring)
    signal.setitimer(signal.ITIMER_VIRTUAL, SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGALRM, before)


def spoil(name: str, number: int, seed: Path, folder: Path) -> Path:
    """Case `number` of a reader in `folder`: the files of `seed`, one of them damaged; its first file."""
    pick = random.Random(f"{name} {number}")
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(seed, folder)
    found = sorted(path for pattern in READERS[name].damage for path in folder.glob(pattern))
    path = pick.choice(found)
    how = damaged_json if path.suffix == ".json" else damaged
    path.write_bytes(how(pick, path.read_bytes()))
    documents = [other for other in folder.glob("*.json") if b'"sha256"' in other.read_bytes()]
    if path.suffix == ".safetensors" and documents and pick.random() < 0.8:  # whoever damages it can sign it
        document = json.loads(documents[0].read_bytes())
        document["sha256"] = hashlib.sha256(path.read_bytes()).hexdigest()
        documents[0].write_text(json.dumps(document))
    return path


def finding(name: str, path: Path) -> str:
    """Reads; what is not permitted, as words, or nothing."""
    try:
        with warnings.catch_warnings(), _alarm():
            warnings.simplefilter("ignore")
            READERS[name].read(path)
    except PERMITTED as error:
        said = str(error)
        if "\n" in said:
            return f"{type(error).__name__} of several lines: {said[:300]}"
        named = path.name in said or path.parent.name in said or said.startswith(ARGUMENTS)
        if not named and name not in NAMELESS:
            return f"{type(error).__name__} that names no file: {said[:300]}"
    except TooLong:
        return "more than 5 seconds"
    except BaseException as error:
        return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
    return ""


def campaign(name: str, first: int, count: int, place: Path) -> dict[int, str]:
    """The findings of `count` cases of a reader; `place` keeps its files and the number of the case at work."""
    place.mkdir(parents=True, exist_ok=True)
    seed = place / "seed"
    if seed.exists():
        shutil.rmtree(seed)
    seed.mkdir()
    import torch

    torch.manual_seed(0)
    start = READERS[name].make(seed).relative_to(seed)
    found = {}
    if (wrong := finding(name, seed / start)) != "":
        found[-1] = wrong
    for number in range(first, first + count):
        (place / "number").write_text(str(number))
        spoil(name, number, seed, place / "case")
        wrong = finding(name, place / "case" / start)
        if wrong:
            found[number] = wrong
    return found


def _work(name: str, first: int, count: int, place: Path) -> None:
    """One reader, with a limit to its memory."""
    import torch

    torch.set_num_threads(1)  # the parent's threads did not come along, and torch would wait for them
    campaign(name, first, 2, place / "before")  # everything is imported
    pages = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (pages + ADDRESSES, pages + ADDRESSES))
    found = campaign(name, first, count, place)
    (place / "found.json").write_text(json.dumps(found))


def run(name: str, first: int, count: int) -> dict[str, str]:
    """The findings of a reader, in a process of its own that may end."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        child = os.fork()
        if not child:
            try:
                _work(name, first, count, place)
            except BaseException:
                traceback.print_exc()
                os._exit(1)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        if (place / "found.json").exists():
            return dict(json.loads((place / "found.json").read_text()))
        at = (place / "number").read_text() if (place / "number").exists() else "before"
        return {at: f"the process ended with status {status}"}


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reader", choices=READERS)
    parser.add_argument("--cases", type=int, default=1000)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    for module in HEAVY:  # once, and not in each process
        importlib.import_module(module)
    now = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
    report: dict[str, Any] = {"measured": now, "mmha": version("mmha"), "python": platform.python_version()}
    report["readers"] = {}
    for name in [asked.reader] if asked.reader else READERS:
        found = run(name, asked.first, asked.cases)
        report["readers"][name] = {"first": asked.first, "cases": asked.cases, "findings": found}
        print(f"{name}: {asked.cases} cases, {len(found)} findings", flush=True)
        for number, wrong in list(found.items())[:10]:
            print(f"  case {number}: {wrong}", flush=True)
        if asked.json:
            asked.json.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    sys.exit(1 if any(part["findings"] for part in report["readers"].values()) else 0)


if __name__ == "__main__":
    main()
