"""Random calls of `mmha.attention` against the float64 reference: python tests/fuzz/attention_cases.py --cases 1000000

A problem (attention_problems.py) is computed as CASES cases: in float32, bfloat16 and float16, on every instruction set
of this machine, in two layouts each, and once in float64; one problem in four has numbers of full precision and is
computed in float32 and float64 alone, in more layouts. A case is one call with, in four problems of five, its backward
pass; all that it returns is held to the bounds of tests/tolerances.py. `--problem N` repeats one problem and prints it.
With `--json` the run is written down every few seconds and goes on from there when it is called again.
"""

from __future__ import annotations

import argparse
import datetime
import json
import platform
import random
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

import mmha
from fuzz.attention_problems import LAYOUTS, Problem, draw, exact
from mmha import _kernels
from mmha.bias import Additive, ALiBi, Relative
from tolerances import RELATIVE

HALVES = (torch.bfloat16, torch.float16)
RESULTS = ("out", "lse", "weights")
TILE_KEYS = 256  # of which the kernels sum the probabilities one after the other (csrc/forward.h)
PAIRED = "bfloat16 in pairs"


class Case(NamedTuple):
    """How a problem is computed."""

    dtype: torch.dtype
    isa: str
    layout: str
    threads: int


class Exact(NamedTuple):
    """What a result should be, and the size of the terms of its sums."""

    numbers: npt.NDArray[np.float64]
    size: float

    @classmethod
    def of(cls, name: str, x: Tensor, pairs: int, distance: int) -> Exact:
        """A result of the reference; roundings of a sum over many `pairs` add up as their root does.

        A slope's gradient is a sum of distances, `distance` the farthest, that cancel.
        """
        finite = x[x.isfinite()].abs()
        size = 1.0 if name in RESULTS else 3.0
        if name not in (*RESULTS, "dq", "dk", "dv"):
            size *= max(1.0, pairs / max(x.numel(), 1)) ** 0.5
        if name == "dslopes":
            size *= max(1, distance)
        return cls(x.numpy(), max(size, float(finite.max()) if finite.numel() else 0.0))

    def error(self, have: Tensor) -> float:
        """The largest difference over the size; inf where a number is not finite and should be, or the reverse."""
        x = have.detach().double().numpy()
        if x.shape != self.numbers.shape:
            return float("inf")
        if x.size == 0:
            return 0.0
        with np.errstate(invalid="ignore"):
            most = float(np.where(x == self.numbers, 0.0, np.abs(x - self.numbers)).max())
        return most / self.size if most < float("inf") else float("inf")


def cases(made: Problem) -> Iterator[Case]:
    """All cases of a problem, as many for every problem of one machine."""
    pick = random.Random(made.number)
    names = [name for name in LAYOUTS if name != "expanded" or made.same]
    threads = pick.choice((1,) * 15 + (3,))
    for isa in _kernels.available():
        for dtype in (torch.float32,) * 3 if made.fine else (torch.float32, *HALVES):
            yield Case(dtype, isa, "contiguous" if isa == "scalar" else pick.choice(names), 1)
            yield Case(dtype, isa, pick.choice(names), threads)
    yield Case(torch.float64, "reference", pick.choice(names), 1)


def laid_out(x: Tensor, layout: str, same: tuple[int, ...]) -> Tensor:
    """The same numbers, otherwise in memory."""
    if layout == "expanded":
        part = x
        for dim in same:
            part = part.narrow(dim, 0, min(1, x.shape[dim]))
        return part.expand(x.shape)
    return x if layout == "contiguous" else LAYOUTS[layout](x)


def compute(made: Problem, case: Case) -> dict[str, Tensor]:
    """What the public function and its backward pass give."""
    narrow = tuple(dim for dim in made.same if dim != 3)
    inputs = [laid_out(x.to(case.dtype), case.layout, narrow) for x in (made.q, made.k)]
    inputs.append(laid_out(made.v.to(case.dtype), case.layout, made.same))
    leaves = {name: x.detach() for name, x in made.leaves.items()}
    wanted = [x.requires_grad_(made.backward) for x in (*inputs, *leaves.values())]
    bias = None
    for name, kind in (("slopes", ALiBi), ("table", Relative), ("additive", Additive), ("more", Additive)):
        if name in leaves:
            bias = kind(leaves[name]) if bias is None else bias + kind(leaves[name])
    results = mmha.attention(
        *inputs, made.mask, bias=bias, scale=made.scale, softcap=made.softcap, sinks=leaves.get("sinks"),
        dropout_p=0.0, q_start=made.sizes.q_start, return_lse=True, return_weights=made.weights,
    )  # fmt: skip
    found = dict(zip(RESULTS, results, strict=False))
    if made.backward:
        grads = [g.to(x.dtype) for x, g in zip(results, made.grads, strict=False)]
        grads[0] = laid_out(grads[0], "contiguous" if case.layout == "expanded" else case.layout, ())
        got = torch.autograd.grad(results, wanted, grads)
        found |= dict(zip(("dq", "dk", "dv", *(f"d{name}" for name in leaves)), got, strict=True))
    return found


def shares(made: Problem, case: Case, found: dict[str, Tensor], wanted: dict[str, Exact]) -> dict[str, float]:
    """The error of each result, as a share of its bound.

    As elsewhere in the tests an error is measured by the terms of its sum: values of unit size for the output, 3 for
    gradients, where what flows into a row's scores sums to 0; once the table's bound for results, twice for gradients
    of q, k and v, three times for those of what is added. Where bfloat16 is multiplied in pairs the probabilities are
    rounded as well as the result: that is twice the bound. `alike` says what is added where equal terms are summed.
    """
    added = {f"d{name}": x.dtype for name, x in made.leaves.items()}
    more = alike(made, torch.promote_types(case.dtype, torch.float32))
    shares = {}
    for name, have in found.items():
        dtype = added.get(name, case.dtype)
        if name == "lse" and case.dtype != torch.float64:
            dtype = torch.float32
        factor = 1.0 if name in RESULTS else 3.0 if name in added else 2.0
        factor = 2.0 if name == "out" and kind(case) == PAIRED else factor
        coarse = dtype if name not in added else max((case.dtype, dtype), key=lambda one: RELATIVE[one])
        error = wanted[name].error(have) if have.dtype == dtype else float("inf")
        shares[name] = error / (RELATIVE[coarse] * factor + more)
    return shares


def alike(made: Problem, dtype: torch.dtype) -> float:
    """What is added to the bounds where equal terms may be summed.

    Under a scale of 0 the keys of a tile may all score alike. The sum of n equal probabilities, one after the other, is
    rounded all up or all down: by up to n - 1 halves of a unit in the last place.
    """
    if made.scale != 0.0:
        return 0.0
    return max(0, min(made.sizes.k_len, TILE_KEYS) - 1) * torch.finfo(dtype).eps / 2


def kind(case: Case) -> str:
    """The row of the report that a case belongs to."""
    name = str(case.dtype).removeprefix("torch.")
    return PAIRED if name == "bfloat16" and case.isa == "avx512bf16" else name


def check(number: int, report: dict[str, Any], *, say: bool = False) -> None:
    """All cases of a problem; adds to the counts, the worst shares and the failures of a report."""
    made = draw(number)
    pairs = made.q.shape[:3].numel() * made.k.shape[2]
    starts = [made.k.shape[2] - made.q.shape[2]] if made.sizes.q_start is None else made.sizes.q_start
    distance = int(np.abs(np.add.outer(starts, [made.q.shape[2], -made.k.shape[2]])).max())
    wanted = {name: Exact.of(name, x, pairs, distance) for name, x in exact(made).items()}
    if say:
        print(f"problem {number}: {made}")
    for case in cases(made):
        dtype = kind(case)
        if case.isa != "reference":
            _kernels.select(case.isa)
        if torch.get_num_threads() != case.threads:
            torch.set_num_threads(case.threads)
        try:
            found = shares(made, case, compute(made, case), wanted)
        except Exception as error:  # whatever it is, it is a finding
            found = {f"{type(error).__name__}: {error}": float("inf")}
        worst = max(found, key=lambda name: found[name])
        if say:
            print(f"  {dtype} {case.isa} {case.layout}: {worst} at {found[worst]:.3f} of its bound")
        row = report["dtypes"].setdefault(dtype, {"cases": 0, "worst": 0.0, "problem": 0, "result": "", "isa": ""})
        row["cases"] += 1
        if found[worst] > row["worst"]:
            row.update(worst=found[worst], problem=number, result=worst, isa=case.isa)
        report["isas"][case.isa] = report["isas"].get(case.isa, 0) + 1
        report["cases"] += 1
        report["backward"] += made.backward
        if not found[worst] <= 1.0:
            report["failures"].append(
                {"problem": number, "dtype": dtype, "isa": case.isa, "layout": case.layout, "shares": found}
            )
            print(f"FAILED problem {number}: {made}\n  {dtype} {case.isa} {case.layout}: {found}", flush=True)
    report["problems"] += 1


def new_report(first: int) -> dict[str, Any]:
    """A run in which nothing has been computed."""
    return {
        "measured": "", "first": first, "problems": 0, "cases": 0, "backward": 0, "seconds": 0.0,
        "machine": {"mmha": mmha.__version__, "torch": torch.__version__, "python": platform.python_version(),
                    "isas": list(_kernels.available())},
        "isas": {}, "dtypes": {}, "failures": [],
    }  # fmt: skip


def write(report: dict[str, Any], path: Path) -> None:
    """The report, whole or not at all."""
    report["measured"] = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
    temporary = path.with_suffix(".part")
    temporary.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    temporary.replace(path)


def run(report: dict[str, Any], count: int, seconds: float, path: Path | None = None) -> None:
    """Problems from where the report stands until there are `count` cases or the time is over."""
    isa, threads = _kernels.isa(), torch.get_num_threads()
    started, written = time.monotonic(), time.monotonic()
    before = report["seconds"]
    try:
        while report["cases"] < count and time.monotonic() - started < seconds:
            check(report["first"] + report["problems"], report)
            report["seconds"] = round(before + time.monotonic() - started, 1)
            if path and time.monotonic() - written > 10.0:
                write(report, path)
                written = time.monotonic()
    finally:
        _kernels.select(isa)
        torch.set_num_threads(threads)
    if path:
        write(report, path)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=10_000)
    parser.add_argument("--first", type=int, default=0, help="the problem to begin with")
    parser.add_argument("--seconds", type=float, default=float("inf"))
    parser.add_argument("--problem", type=int, help="repeat this one alone")
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    report = new_report(asked.first)
    if asked.problem is not None:
        check(asked.problem, report, say=True)
    else:
        if asked.json and asked.json.exists():
            report = json.loads(asked.json.read_text(encoding="utf-8"))
        run(report, asked.cases, asked.seconds, asked.json)
        print(f"{report['cases']} cases, {len(report['failures'])} failed: {report['dtypes']}")
    sys.exit(1 if report["failures"] else 0)


if __name__ == "__main__":
    main()
