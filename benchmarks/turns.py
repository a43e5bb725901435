"""Several sides of one piece of work, called in turns: for end_to_end.py, bert.py and attention_peers.py."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor

from mmha.bench.measure import seconds_of

FEWEST, MOST = 3, 15
PATIENCE, SHORT = 1.9, 2.0  # times the fastest side; seconds that any side may take


def nothing() -> None:
    """What most sides need done before a turn."""


@dataclass(frozen=True)
class Side:
    """One way to do the work: `work` is timed, `result` compared, `before` done before each of them, off the clock."""

    name: str
    work: Callable[[], object]
    result: Callable[[], Tensor]
    before: Callable[[], object] = nothing


def in_turns(
    sides: Sequence[Side], seconds: float, patience: float = PATIENCE, short: float = SHORT
) -> dict[str, list[float]]:
    """Seconds of each call of each side; every other round goes in reversed order.

    A side whose first call takes over `patience` times as long as the fastest one's, and over `short` seconds, is timed
    in the first round only.
    """
    times: dict[str, list[float]] = {side.name: [] for side in sides}
    start, rounds = time.perf_counter(), 0
    waited_for = {side.name for side in sides}
    while rounds < FEWEST or (time.perf_counter() - start < seconds and rounds < MOST):
        for side in sides if rounds % 2 == 0 else reversed(sides):
            if side.name in waited_for:
                side.before()
                times[side.name].append(seconds_of(side.work, 1))
        rounds += 1
        longest = max(short, patience * min(taken[0] for taken in times.values()))
        waited_for = {name for name, taken in times.items() if taken[0] <= longest}
    return times
