"""What a figure or a bug report needs to know about the machine and the installation."""

from __future__ import annotations

import os
import platform
import sys
from pathlib import Path
from typing import Any


def cpu_name() -> str:
    """The processor's name as the system gives it, or the architecture when it gives none."""
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.lower().startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass  # not Linux
    return platform.processor() or platform.machine()


def usable_cpus() -> int:
    """How many logical CPUs this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def kernels() -> dict[str, Any]:
    """The compiled core: the instruction set in use, those compiled in, those that run here, and whose threads."""
    try:
        from mmha import _kernels
    except ImportError as error:
        return {"isa": None, "error": str(error)}
    return {
        "isa": _kernels.isa(),
        "compiled": list(_kernels.compiled()),
        "available": list(_kernels.available()),
        "pool": _kernels.pool(),
    }


def torch_facts() -> dict[str, Any]:
    """torch's version and threads; mmha computes in the same threads."""
    try:
        import torch
    except ImportError as error:
        return {"version": None, "error": str(error)}
    return {"version": torch.__version__, "threads": torch.get_num_threads()}


def machine() -> dict[str, Any]:
    """What figures depend on, as plain JSON values; where things lie on this machine is no part of it."""
    import mmha

    return {
        "mmha": mmha.__version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpu": cpu_name(),
        "cpus": usable_cpus(),
        "torch": torch_facts(),
        "kernels": kernels(),  # after torch, whose thread pool they look for
        "environment": {
            name: os.environ[name] for name in ("MMHA_ISA", "OMP_NUM_THREADS", "MKL_NUM_THREADS") if name in os.environ
        },
    }


def everything() -> dict[str, Any]:
    """The same, and where Python and the data lie: for a bug report, and not for a record that is published."""
    from mmha.data.registry import root

    facts = machine() | {"executable": sys.executable, "data": str(root())}
    if "MMHA_DATA" in os.environ:
        facts["environment"] |= {"MMHA_DATA": os.environ["MMHA_DATA"]}
    return facts
