"""The processes of one run: started here or by torchrun, and the few things that they tell each other.

torchrun describes a process in the environment (RANK, WORLD_SIZE, LOCAL_RANK, LOCAL_WORLD_SIZE, MASTER_ADDR,
MASTER_PORT); `start` does the same for those that it starts, so that the rest of a run need not tell them apart.
"""

from __future__ import annotations

import atexit
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from mmha import checks

NAMES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
LAUNCHER = "MMHA_LAUNCHER"
"""The process that started this one, to be followed when it ends."""
GRACE = 5.0
"""Seconds that a process has to find out by itself that another one is gone, or to leave after the first one has."""


def rank() -> int:
    """The number of this process in its run; 0 is the one that scores, shows and writes."""
    return _described("RANK", 0)


def world() -> int:
    """How many processes the run has."""
    return _described("WORLD_SIZE", 1)


def local() -> int:
    """How many of them are on this machine."""
    return _described("LOCAL_WORLD_SIZE", 1)


def _described(name: str, alone: int) -> int:
    return int(os.environ[name]) if all(n in os.environ for n in NAMES) else alone


def start(devices: int, nodes: int) -> None:
    """Start the other processes of this machine, each with this process' own command line; those of torchrun are there.

    The later the others begin, the longer this one waits for them, so a command may call this ahead of `Run`, which
    does it otherwise. Together they get as many threads as there are cores.

    Raises: ValueError when torchrun started other numbers than asked for, or when there are several machines and
        nothing says which of them this is.
    """
    if all(name in os.environ for name in NAMES):
        for name, asked, there in (("devices", devices, local()), ("nodes", nodes, world() // local())):
            checks.require(asked in (1, there), name, f"{there}, as torchrun started, or none given", asked)
        if LAUNCHER in os.environ:
            threading.Thread(target=_follow, args=(int(os.environ.pop(LAUNCHER)),), daemon=True).start()
    elif devices * nodes > 1:
        _launch(devices, nodes)
    if local() > 1:
        torch.set_num_threads(min(torch.get_num_threads(), max(1, len(os.sched_getaffinity(0)) // local())))


def _launch(devices: int, nodes: int) -> None:
    machine = 0
    if nodes > 1:
        missing = [n for n in ("NODE_RANK", "MASTER_ADDR", "MASTER_PORT") if n not in os.environ]
        checks.require(not missing, "nodes", f"torchrun, or {', '.join(missing)} in the environment", nodes)
        machine = int(os.environ["NODE_RANK"])
    os.environ |= {"GROUP_RANK": str(machine), "WORLD_SIZE": str(devices * nodes), "LOCAL_WORLD_SIZE": str(devices)}
    os.environ.setdefault("MASTER_ADDR", "127.0.0.1")
    os.environ.setdefault("MASTER_PORT", str(_free_port()))
    command = [sys.executable, *sys.orig_argv[1:]]
    ranks = [{"LOCAL_RANK": str(i), "RANK": str(machine * devices + i)} for i in range(devices)]
    launcher = {LAUNCHER: str(os.getpid())}
    children = [subprocess.Popen(command, env=os.environ | launcher | names) for names in ranks[1:]]
    os.environ |= ranks[0]
    threading.Thread(target=_watch, args=(children,), daemon=True).start()
    atexit.register(_leave, children)


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


over = threading.Event()
"""Set when the last step is done or a stop is agreed: from then on a process may leave."""


def _watch(children: Sequence[subprocess.Popen[bytes]]) -> None:
    """End this process when another one is gone: it may be waiting for it where nothing else would wake it."""
    while not over.wait(0.5):
        for number, child in enumerate(children, 1):
            if child.poll():
                time.sleep(GRACE)
                if not over.is_set():
                    _end(children)
                    lost = f"process {number} of {len(children) + 1} ended with code {child.returncode}"
                    print(f"mmha: {lost}: the run stops here; --resume goes on from its last state", file=sys.stderr)
                    sys.stderr.flush()
                    os._exit(1)


def _follow(launcher: int) -> None:
    """End this process when the one that started it is gone, which nothing else tells before they have met."""
    while not over.wait(0.5):
        if os.getppid() != launcher:
            time.sleep(GRACE)
            os._exit(1)


def _leave(children: Sequence[subprocess.Popen[bytes]]) -> None:
    over.set()
    end = time.monotonic() + GRACE
    while any(child.poll() is None for child in children) and time.monotonic() < end:
        time.sleep(0.02)
    _end(children)


def _end(children: Sequence[subprocess.Popen[bytes]]) -> None:
    for child in children:
        if child.poll() is None:
            child.kill()


def lost(error: RuntimeError) -> bool:
    """Whether the error says that another process does not answer any more."""
    return together() and (isinstance(error, torch.distributed.DistError) or "gloo/transport" in str(error))


def together() -> bool:
    """Whether this process has met others."""
    return torch.distributed.is_available() and torch.distributed.is_initialized()


def total(values: Sequence[float]) -> list[float]:
    """The sums over all processes, in float64."""
    if not together():
        return list(values)
    sums = torch.tensor(values, dtype=torch.float64)
    torch.distributed.all_reduce(sums)
    return [float(value) for value in sums]


def whole(tensor: Tensor) -> Tensor:
    """A tensor of which each process may hold a share, put together; all processes must ask for it."""
    shared: Any = tensor
    return shared.full_tensor().detach() if hasattr(shared, "full_tensor") else tensor.detach()


@torch.no_grad()
def spread(source: Tensor | None, into: Tensor) -> None:
    """Copy what the first process has into every process' tensor, whole or its share; the others give None."""
    shared: Any = into
    tensor = torch.empty(into.shape, dtype=into.dtype) if source is None else source.to(into.dtype).contiguous()
    if together():
        torch.distributed.broadcast(tensor, 0)
    if hasattr(shared, "full_tensor"):
        from torch.distributed.tensor import distribute_tensor

        tensor = distribute_tensor(tensor, shared.device_mesh, shared.placements, src_data_rank=None)
    into.copy_(tensor)
