"""Does anything grow, drift or break in the long run? python benchmarks/long_runs.py --json results/long_runs.json

- stream: an hour of sound through `Enhancer.stream()` with the network that ships, 16 ms at a time.
- generation: a text of the language model that ships through `generation.stream`, in cyclic caches with sinks.
- pages: a `PagedKVCache` whose sequences are allocated, appended to, forked and freed at random, a million steps.
- training: `mmha train tagger`, killed and resumed again and again (long_training.py).

Each is a process of its own. Memory is what the process holds at a moment, not its peak. A cost is the thread's own CPU
time, as a ratio to that in the first sixtieth of the run; by itself it is told by other benchmarks. Every run ends with
a comparison: of the last sixtieth with a run that began shortly before it, of the last logits with the formula, of the
pool with an empty one, of the weights with those of a run that nobody disturbed.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import long_training
import torch
from torch import Tensor

import mmha
from mmha import checkpoint, masks
from mmha.bench.machine import machine
from mmha.bench.record import rounded
from mmha.models import causal_lm, mhanet
from mmha.models.causal_lm import generation
from mmha.models.mhanet.frames import RATE, SHIFT

MARKS = (1, 10, 30, 60)  # sixtieths of a run at whose end memory and cost are noted
WINDOW, SINKS = 256, 4  # of the generation
MOST = 24  # sequences of the paged cache
PROMPT = "Enter the KING."
SEED = 1


def memory_mb() -> float:
    """What this process holds in memory, in MB."""
    pages = int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


class Course:
    """Notes, at each mark, the memory and the median cost of a unit in the sixtieth that ends there."""

    def __init__(self) -> None:
        self.costs: list[float] = []
        self.marks: list[dict[str, float]] = []

    def timed(self, work: Callable[[], Any]) -> Any:
        """What the work returns; its cost counts."""
        start = time.thread_time_ns()
        found = work()
        self.costs.append((time.thread_time_ns() - start) / 1e6)
        return found

    def close(self, sixtieth: int) -> None:
        """The sixtieth of this number, from 1, has ended."""
        if sixtieth in MARKS:
            self.marks.append({"at": sixtieth, "memory_mb": round(memory_mb(), 1), "ms": rounded(median(self.costs))})
            print(f"  {sixtieth}/60: {self.marks[-1]['memory_mb']:.1f} MB, {self.marks[-1]['ms']:.4f} ms", flush=True)
        self.costs.clear()


def noisy_minute(minute: int, frames: int) -> Tensor:
    """So many frames of sound, float32: noise that swells, and syllables of harmonics; another one each minute."""
    generator = torch.Generator().manual_seed(1000 * SEED + minute)
    at = torch.arange(frames * SHIFT) / RATE
    pitch = 110 + 60 * torch.rand(1, generator=generator) + 15 * torch.sin(0.7 * at)
    phase = 2 * torch.pi * torch.cumsum(pitch, 0) / RATE
    voice = sum(torch.sin(n * phase) / n for n in range(1, 9)) * torch.sin(9 * at).clamp(min=0)
    noise = torch.randn(len(at), generator=generator) * (0.03 + 0.02 * torch.sin(0.2 * at))
    return 0.08 * voice + noise


def stream(units: int) -> dict[str, Any]:
    """60 * `units` frames of sound; the last sixtieth is compared with a run that begins shortly before it.

    A frame depends on as many before it as all blocks' windows reach back, and on no other.
    """
    enhancer = mhanet.Enhancer(mhanet.load())
    one, course, made = enhancer.stream(), Course(), torch.zeros(0)
    for minute in range(1, 61):
        pieces = noisy_minute(minute, units).split(SHIFT)
        made = torch.cat([course.timed(partial(one.push, piece)) for piece in pieces])
        course.close(minute)
    made = torch.cat([made, one.finish()])[-units * SHIFT :]
    reach = enhancer.model.config.layers * (enhancer.window - 1) + 2
    first = max(1, 60 - -(-reach // units))
    again = enhancer.enhance(torch.cat([noisy_minute(minute, units) for minute in range(first, 61)]))[-len(made) :]
    apart = float((made - again).abs().max() / again.abs().max())
    return {"unit": "frame", "units": 60 * units, "marks": course.marks, "apart": apart}


def generate(units: int) -> dict[str, Any]:
    """A text of 60 * `units` tokens and one; the logits before the last are compared with those of the formula.

    The end-of-text token is forbidden, so that the text goes on.
    """
    model, tokenizer = causal_lm.load()
    said: dict[str, Any] = {"calls": 0}

    def look(module: causal_lm.CausalLM, given: Any, logits: Tensor) -> None:
        logits[..., tokenizer.end] = -torch.inf
        said.update(calls=said["calls"] + 1, logits=logits[0, -1].clone())

    model.register_forward_hook(look)
    limits = generation.Limits(60 * units + 1, window=WINDOW, sinks=SINKS)
    pieces = generation.stream(model, tokenizer, [PROMPT], causal_lm.Sampling(top_p=0.9), limits, SEED)
    course, done = Course(), None
    while done is None:
        before = said["calls"]
        done = course.timed(partial(next, pieces)).completion
        for call in range(before + 1, min(said["calls"], 60 * units) + 1):
            if call % units == 0:
                course.close(call // units)
    tokens = torch.tensor(tokenizer.encode(PROMPT) + list(done.tokens))
    apart = (said["logits"] - exact_logits(model, tokens[:-1], tokenizer.end)).abs().nan_to_num(0.0).max()
    return {"unit": "token", "units": 60 * units, "marks": course.marks, "apart": float(apart)}


@torch.no_grad()
def exact_logits(model: causal_lm.CausalLM, tokens: Tensor, end: int) -> Tensor:
    """The logits after the last token, in float64 and without a cache, of the tokens on which they can depend.

    These are the sinks and, for each layer, a window more, all at the positions at which they stand in the whole text.
    """
    reach = model.config.layers * (WINDOW - 1) + 1
    places = torch.arange(len(tokens))
    kept = (places < SINKS) | (places >= len(tokens) - reach)
    wide = causal_lm.CausalLM(model.config).double().eval()
    wide.load_state_dict(model.state_dict())
    cos, sin = wide.rotary.angles(places[kept])
    mask = masks.Causal() & (masks.Window(WINDOW - 1) | masks.Prefix(SINKS))
    x = wide.embedding(tokens[kept][None])
    for layer in wide.layers:
        x = layer(x, partial(wide.rotary.turn, cos=cos, sin=sin), mask)
    logits = (wide.norm(x)[0, -1] @ wide.embedding.weight.T).float()
    logits[end] = -torch.inf
    return logits


def pages(units: int) -> dict[str, Any]:
    """60 * `units` steps with a pool; at the end all sequences are freed, and every block must be free and unused."""
    choose, course = random.Random(SEED), Course()
    pool = mmha.PagedKVCache(num_blocks=64, block_size=16, kv_heads=1, head_dim=16)
    alive: deque[int] = deque()
    token, query = torch.ones(1, 1, 23, 16), torch.ones(1, 2, 1, 16)

    def step() -> None:
        what = choose.random()
        if what < 0.15 or not alive:
            alive.extend(pool.allocate())
        elif what < 0.25:
            alive.append(pool.fork(choose.choice(alive)))
        elif what < 0.4 or pool.free_blocks < 8 or len(alive) > MOST:
            pool.free(alive.popleft())
        else:
            rows = pool.select([choose.choice(alive)])
            rows.append(*[token[:, :, : choose.randint(1, 23)]] * 2)
            mmha.attention(query, rows)

    for sixtieth in range(1, 61):
        course.timed(lambda: [step() for _ in range(units)])
        course.close(sixtieth)
    pool.free(list(alive))
    whole = pool.free_blocks == pool.num_blocks and not any(pool._users) and not pool._sequences
    return {"unit": "step", "units": 60 * units, "marks": course.marks, "apart": 0.0 if whole else float("inf")}


RUNS: dict[str, tuple[Callable[[int], dict[str, Any]], int, str]] = {
    "stream": (stream, 3750, "frames"),
    "generation": (generate, 1000, "tokens"),
    "pages": (pages, 17000, "steps"),
    "training": (long_training.killed, 10, "times killed, in all"),
}


def measured(name: str, units: int) -> dict[str, Any]:
    """A run in this process, and where and how long it ran."""
    torch.set_num_threads(1)
    print(name, flush=True)
    start = time.perf_counter()
    found = RUNS[name][0](units)
    now = datetime.now(timezone.utc).isoformat(timespec="seconds")
    return {"run": name, **found, "seconds": round(time.perf_counter() - start), "measured": now, "machine": machine()}


def main(arguments: Sequence[str] | None = None) -> None:
    """Each run in a process of its own; those asked for replace those of the same name in the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", nargs="+", choices=list(RUNS), default=list(RUNS))
    parser.add_argument("--share", type=float, default=1.0, help="of the usual length, for a try")
    parser.add_argument("--json", type=Path, metavar="FILE", required=True)
    parser.add_argument("--here", action="store_true", help="one run, in this process")
    options = parser.parse_args(arguments)
    if options.here:
        [name] = options.runs
        rows = [measured(name, max(1, round(options.share * RUNS[name][1])))]
    else:
        rows = []
        for name in options.runs:
            own = ["--runs", name, "--share", str(options.share), "--json", str(options.json), "--here"]
            subprocess.run([sys.executable, __file__, *own], check=True)
        return
    if options.json.exists():
        old = json.loads(options.json.read_text(encoding="utf-8"))["rows"]
        rows = [row for row in old if row["run"] not in options.runs] + rows
    rows.sort(key=lambda row: list(RUNS).index(row["run"]))
    checkpoint.write(options.json, (json.dumps({"rows": rows}, indent=1) + "\n").encode())


if __name__ == "__main__":
    main()
