"""BERT-base's pretraining on many machines, on paper: python benchmarks/scale_model.py --fill docs/scale.md

Computes the tables of docs/scale.md from the sizes of the model, what one core was measured to do
(results/scale.json, by scale_measure.py) and the assumptions below, and puts each between its two comments there; with
--fill docs/zh/scale.md in Chinese. Without --fill they are printed. Sizes are bytes, times seconds.
"""

from __future__ import annotations

import argparse
import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import scale_words
from words import Words, title

from mmha.models.bert.config import Config, base

HERE = Path(__file__).parent
LENGTH = 512
MASKED = 0.15  # the share of tokens that the head for masked words sees
FLOAT = 4
ADAM = 3 * FLOAT + FLOAT  # weight, gradient and two moments of a parameter
TOUCHED = 40  # bytes of a parameter that clipping and AdamW read and write
BUCKET = 25 * 2**20  # DDP reduces gradients in pieces of this size


@dataclass(frozen=True)
class Machine:
    """What is assumed of each machine and of the network between them; `core` was measured."""

    core: float  # tokens a second, float32
    rounded: float = 0.0  # the same in bfloat16; the tables are of float32
    cores: int = 32
    shared: float = 0.8  # of 32 times one core, what 32 cores do together
    memory: float = 100e9  # bytes a second that all cores read and write
    network: float = 10e9 / 8
    line: float = 0.8  # of the network's bandwidth, what TCP gives to one process
    latency: float = 30e-6  # of a message

    @property
    def tokens(self) -> float:
        return self.core * self.cores * self.shared

    @property
    def bytes(self) -> float:
        return self.network * self.line


@dataclass(frozen=True)
class Job:
    """A global batch of so many sequences on so many machines; a machine computes it in parts of at most `part`."""

    sequences: int
    machines: int
    steps: int
    part: int = 32

    @property
    def own(self) -> int:
        """Sequences a machine; where they do not divide, the machine with most holds up the others."""
        return math.ceil(self.sequences / self.machines)

    @property
    def parts(self) -> int:
        return math.ceil(self.own / self.part)

    @property
    def at_once(self) -> int:
        """Tokens in memory at a time."""
        return math.ceil(self.own / self.parts) * LENGTH


def outside(config: Config) -> int:
    """Parameters that belong to no layer: embeddings, pooler and the two heads (the words' matrix is the embedding)."""
    width, words = config.width, config.vocabulary
    embeddings = (words + config.positions + config.segments + 2) * width
    heads = (width + 1) * width + (width + 3) * width + words + 2 * (width + 1)
    return embeddings + heads


def layer(config: Config) -> int:
    """Parameters of one layer: attention, feed-forward and two norms."""
    width, hidden = config.width, config.hidden
    return 4 * (width + 1) * width + (2 * hidden + 1) * width + hidden + 4 * width


def parameters(config: Config) -> int:
    return outside(config) + config.layers * layer(config)


def activations(config: Config, tokens: int, recomputed: bool) -> float:
    """What backward needs of forward, and the words' logits with their gradient.

    Of a token, a layer keeps 10 widths (its input; q, k and v; attention's output; two patterns of dropout; what goes
    into both norms and into the feed-forward half), the hidden numbers before and after the activation, and a few
    statistics. A layer that is computed again keeps its input; one layer at a time is there in full.
    """
    width, heads = config.width, config.heads
    kept = 10 * width + 2 * config.hidden + heads + 4
    layers = config.layers * width + kept if recomputed else config.layers * kept
    words = MASKED * (2 * config.vocabulary + 4 * width)
    return FLOAT * tokens * (layers + 2 * width + words)


def states(config: Config, machines: int, sharded: bool) -> float:
    """Weights, gradients and Adam's moments; where they are shared out, what is gathered for a while as well.

    Gathered at a time: all outside the layers from the first forward to the last backward, two layers' weights (the
    next one is fetched meanwhile), and gradients of a layer and of what is outside.
    """
    if not sharded:
        return ADAM * parameters(config)
    gathered = 2 * outside(config) + 3 * layer(config)
    return ADAM * parameters(config) / machines + FLOAT * gathered


def traffic(config: Config, job: Job, sharded: bool) -> float:
    """Bytes that a machine sends in a step (and receives as many).

    DDP: a ring all-reduce of the gradients, once a step. FSDP: for each part, weights are gathered for forward, those
    of the layers again for backward, and gradients are reduced and scattered.
    """
    ring = (job.machines - 1) / job.machines * FLOAT
    if not sharded:
        return 2 * ring * parameters(config)
    return job.parts * ring * (3 * parameters(config) - outside(config))


@dataclass(frozen=True)
class Step:
    """Where the time of a step goes: forward and backward, the optimizer, the network, and all with what overlaps."""

    compute: float
    optimizer: float
    network: float
    total: float
    share: float  # of the machines that have something to compute

    @property
    def efficiency(self) -> float:
        return self.share * self.compute / self.total


def step(config: Config, job: Job, machine: Machine, sharded: bool) -> Step:
    """One step. With DDP the network works during the last part's backward, two thirds of it, with FSDP all the time.

    What cannot overlap: the gradient of the embedding, tied to the words, is complete when backward ends (and FSDP
    begins by gathering it). A ring of n machines passes 2 (n − 1) messages a bucket, FSDP n − 1 a collective.
    """
    n, part = job.machines, FLOAT * outside(config) / machine.bytes * (job.machines - 1) / job.machines
    compute = job.own * LENGTH / machine.tokens
    optimizer = TOUCHED * parameters(config) / machine.memory / (n if sharded else 1)
    if sharded:
        messages = job.parts * (n - 1) * (3 * config.layers + 2)
        exposed, behind = 2 * part * job.parts, compute
    else:
        messages = 2 * (n - 1) * math.ceil(FLOAT * parameters(config) / BUCKET)
        exposed, behind = 2 * part, compute / job.parts * 2 / 3
    network = traffic(config, job, sharded) / machine.bytes + messages * machine.latency
    total = compute - behind + max(behind, network - exposed) + min(network, exposed) + optimizer
    return Step(compute, optimizer, network, total, job.sequences / (job.own * n))


def most(config: Config, job: Job, machine: Machine, share: float) -> int:
    """The most machines, up to one a sequence, of which DDP uses at least that share."""
    counts = (n for n in range(job.sequences, 0, -1) if job.sequences % n == 0)
    return next(n for n in counts if step(config, replace(job, machines=n), machine, False).efficiency >= share)


NETWORKS = (10, 25, 100)
PUBLISHED = Job(256, 8, 1_000_000)
LARGE = Job(8192, 8, 31_250)  # as many sequences in all
JOBS = tuple(replace(job, machines=n) for job in (PUBLISHED, LARGE) for n in (8, 64, 512))


def on(machine: Machine, gigabits: int) -> Machine:
    return replace(machine, network=gigabits * 1e9 / 8)


def tables(machine: Machine, words: Words | None = None) -> dict[str, str]:
    """All tables of the page, by name; with `words` in their language."""
    config = base()
    made: dict[str, tuple[tuple[str, ...], Iterator[tuple[str, ...]]]] = {
        "machine": (("assumed or measured", "value"), _machine(machine)),
        "parameters": (("part", "parameters", "float32, MB"), _parts(config)),
        "memory": (MEMORY, (_memory(config, job) for job in JOBS)),
        "traffic": (TRAFFIC, (_traffic(config, job) for job in JOBS)),
        "time": (TIME, (_time(config, j, machine, gb) for j in JOBS for gb in NETWORKS)),
        "limits": (LIMITS, (_limits(config, j, machine) for j in (PUBLISHED, LARGE))),
    }
    return {name: _table(head, rows, words or {}) for name, (head, rows) in made.items()}


MEMORY = ("batch", "machines", "tokens each", "parts", "DDP", "FSDP", "activations", "computed again")
TRAFFIC = ("batch", "machines", "DDP, GB", "FSDP, GB")
TIME = (*("batch", "machines", "Gb/s", "compute", "optimizer", "network"),
        *("step, DDP", "busy", "days", "step, FSDP", "busy"))  # fmt: skip
LIMITS = ("batch", *(f"{gb} Gb/s" for gb in NETWORKS))


def _parts(config: Config) -> Iterator[tuple[str, ...]]:
    rows = (("outside the layers", outside(config)), ("a layer", layer(config)), ("all", parameters(config)))
    return ((name, f"{count:,}", f"{FLOAT * count / 1e6:.0f}") for name, count in rows)


def _memory(config: Config, job: Job) -> tuple[str, ...]:
    sizes = [states(config, job.machines, sharded) for sharded in (False, True)]
    sizes += [activations(config, job.at_once, recomputed) for recomputed in (False, True)]
    return (*_names(job), f"{job.own * LENGTH:,}", str(job.parts), *(f"{size / 1e9:.2f} GB" for size in sizes))


def _traffic(config: Config, job: Job) -> tuple[str, ...]:
    return (*_names(job), *(f"{traffic(config, job, sharded) / 1e9:.2f}" for sharded in (False, True)))


def _time(config: Config, job: Job, machine: Machine, gigabits: int) -> tuple[str, ...]:
    both = [step(config, job, on(machine, gigabits), sharded) for sharded in (False, True)]
    whole = both[0]
    days = job.steps * whole.total / 86400
    times = (f"{seconds:.2f}" for seconds in (whole.compute, whole.optimizer, whole.network, whole.total))
    shared = (f"{both[1].total:.2f}", f"{both[1].efficiency:.0%}")
    return (*_names(job), str(gigabits), *times, f"{whole.efficiency:.0%}", f"{days:.1f}", *shared)


def _limits(config: Config, job: Job, machine: Machine) -> tuple[str, ...]:
    return (f"{job.sequences:,}", *(str(most(config, job, on(machine, gb), 0.5)) for gb in NETWORKS))


def _machine(machine: Machine) -> Iterator[tuple[str, str]]:
    yield "tokens a second of one core, float32, sequences of 512 (measured)", f"{machine.core:.0f}"
    yield "the same with `--precision bf16-mixed` (measured)", f"{machine.rounded:.0f}"
    yield "cores, and what they do together of as many times one core", f"{machine.cores}, {machine.shared:.0%}"
    yield "tokens a second of a machine, of these", f"{machine.tokens:,.0f}"
    yield "bytes a second between cores and memory", f"{machine.memory / 1e9:.0f} GB"
    yield "what TCP gives of the line, and a message's latency", f"{machine.line:.0%}, {machine.latency * 1e6:.0f} µs"


def _names(job: Job) -> tuple[str, str]:
    return f"{job.sequences:,}", str(job.machines)


def _table(head: tuple[str, ...], rows: Iterator[tuple[str, ...]], words: Words) -> str:
    lines = [head, ("---",) + ("---:",) * (len(head) - 1), *rows]
    return "\n".join(f"| {' | '.join(title(cell, words) for cell in line)} |" for line in lines)


def measured() -> Machine:
    """The machine of the tables: with the core that results/scale.json describes."""
    rates = json.loads((HERE / "results" / "scale.json").read_text())["tokens_a_core_second"]
    return Machine(core=rates["float32"][str(LENGTH)], rounded=rates["bfloat16"][str(LENGTH)])


def filled(page: str, words: Words | None = None) -> str:
    """The page with every table computed again. Raises: KeyError for a comment that names no table."""
    found = tables(measured(), words)
    pattern = re.compile(r"(<!-- table: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)
    return pattern.sub(lambda match: match[1] + found[match[2]] + "\n" + match[3], page)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--fill", type=Path)
    given = parser.parse_args()
    if given.fill:
        words = scale_words.CHINESE if "zh" in given.fill.parts else None
        given.fill.write_text(filled(given.fill.read_text("utf-8"), words), "utf-8")
    else:
        print("\n\n".join(tables(measured()).values()))


if __name__ == "__main__":
    main()
