"""What the commands of `mmha train` share: the folder of a run, and its progress on the terminal."""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import typer

    from mmha.train import loop, run

PROBE = 10  # steps that are timed


def check_out(out: Path, resume: bool) -> None:
    """Raise ValueError when there is no run to go on with, or one that would be overwritten, or a file in its place."""
    for place in (out, *out.parents):
        if place.exists() and not place.is_dir():
            raise ValueError(f"--out: expected a folder, got the file {place}")
    there = (out / "state.json").exists()
    if resume and not there:
        raise ValueError(f"--resume: expected a stopped run in {out}, got none")
    if there and not resume:
        raise ValueError(f"--out: {out} holds a run already: go on with --resume, or choose another folder")


def check_run(options: dict[str, Any]) -> int:
    """The number of processes of a run that goes through `train.run`.

    Raises: ImportError without Lightning, before any data is fetched; ValueError when --minutes does not go together
    with what stands beside it, or as `check_out`.
    """
    from mmha import checks
    from mmha.train import processes
    from mmha.train.run import require_lightning

    require_lightning()
    several = int(max(options["devices"] * options["nodes"], processes.world()))
    minutes, steps = options["minutes"], options["steps"]
    if minutes is not None:
        checks.require(steps is None, "--minutes", "no --steps beside it", f"--steps {steps}")
        checks.require(checks.number("minutes", minutes) > 0, "minutes", "a number > 0", str(minutes))
        checks.require(several == 1, "--minutes", "one process (more take --steps)", f"{several}")
    if processes.rank() == 0:
        check_out(options["out"], options["resume"])
    return several


def fetch(name: str) -> Path:
    """The folder of a set of data, fetched first when it is not here; the terminal says so meanwhile."""
    from mmha.cli.printing import console
    from mmha.data import registry

    with console(stderr=True).status(f"{name}: fetching or verifying"):
        return registry.get(name)


def command(context: typer.Context) -> str:
    """The command line that trains this model again; --minutes has become --steps by then."""
    left_out = ("context", "files", "out", "resume", "json", "minutes", "steps")
    words = [*context.command_path.split(), *map(str, context.params.get("files") or ())]
    for parameter in context.command.params:
        value = context.params.get(str(parameter.name))
        if parameter.name in left_out or value == parameter.default:
            continue
        option = f"--{str(parameter.name).replace('_', '-')}"
        for one in value if isinstance(value, (list, tuple)) else (value,):
            words += [option, *([] if one is True else [str(one)])]
    return " ".join(words)


def steps_of(out: Path, kind: str) -> int:
    """The steps of the run of `mmha train KIND` that was stopped in the folder.

    Raises: FileNotFoundError when there is none, ValueError when it is of another kind.
    """
    from mmha import checkpoint

    document, _ = checkpoint.read(out / "state.json")
    try:
        return int(document["run"]["steps"])
    except (KeyError, TypeError, ValueError):
        raise ValueError(f"{out}: expected a stopped run of `mmha train {kind}`, got another") from None


def steps_in(
    minutes: float, start: Callable[[int, str], run.Run], evaluate: Callable[[Any], object], *what: Any, **more: Any
) -> int:
    """How many steps fit into so many minutes, by a few of a run that is thrown away.

    Args: start, makes a run of so many steps in a folder; evaluate, scores a model; what and more, those of `Run.fit`.
    """
    from mmha.train.settings import Settings

    times, scoring = list[float](), list[float]()

    def scored(model: Any) -> float:
        begun = time.perf_counter()
        evaluate(model)
        scoring.append(time.perf_counter() - begun)
        return 0.0

    with tempfile.TemporaryDirectory() as folder:
        start(PROBE + 2, folder).fit(
            *what, **more, evaluate=scored, show=lambda progress: times.append(time.perf_counter())
        )
    # The first step is slower than the others, the last one is followed by the score and by writing the state.
    return fitting(60 * minutes, (times[PROBE] - times[0]) / PROBE, scoring[0], Settings.rounds)


def fitting(seconds: float, step: float, scoring: float, rounds: int) -> int:
    """How many steps fit into so many seconds, when one takes `step` and the score of each of `rounds` `scoring`.

    >>> fitting(100.0, step=1.0, scoring=2.0, rounds=20), fitting(30.0, step=1.0, scoring=2.0, rounds=20)
    (60, 10)
    """
    each = int(seconds / (step + scoring))  # with fewer steps than rounds each step is a round
    return max(1, each if each < rounds else int((seconds - rounds * scoring) / step))


@contextlib.contextmanager
def bar(run: loop.Run | run.Run, unit: str, name: str, score: Callable[[float, int], str]) -> Iterator[Any]:
    """A progress bar on stderr, from the first process of a run; into a pipe, one line a round.

    Args: unit, what a pass between two scores is called; name, what is scored; score, the text of a score to so many
        digits.
    """
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    from mmha.cli.printing import console
    from mmha.train import processes

    if processes.rank():
        yield lambda at: None
        return
    err = console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=err, disable=not err.is_terminal) as progress:
        task = progress.add_task("training", total=None)
        told = run.progress.epoch

        def show(at: Any) -> None:
            nonlocal told
            best = f" · {name} {score(at.best, 2)}" if at.epoch else ""
            number = min(at.epoch + 1, run.rounds)
            text = f"{unit} {number} of {run.rounds} · loss {at.loss:.4f}{best}"
            progress.update(task, total=at.steps, completed=at.step, description=text)
            if at.epoch > told:
                told = at.epoch
                line = f"{unit} {at.epoch:>2}  loss {at.loss:.4f}  {name} {score(at.score, 3)}  {at.seconds:6.0f} s"
                err.print(line, markup=False)

        try:
            yield show
        except KeyboardInterrupt:
            err.print(f"stopped at step {run.progress.step} of {run.progress.steps}; go on with --resume", markup=False)
            raise
