"""One fit: read, learn hidden values, look at [CLS], fit time courses, map them, compare with the GLM, write."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from mmha import checks
from mmha.cli.fmri_files import Found, write
from mmha.cli.training import check_out, fetch

TOKENS = 8000  # of a step of stage 1
RATE, EPOCH_RATE = 2e-3, 5e-4
Show = Callable[[str, int, int], None]


class Job:
    """A fit with the options of the command."""

    def __init__(self, options: dict[str, Any]) -> None:
        self.options = options
        self.out: Path = options["out"]

    def check(self) -> None:
        """Raise ImportError without Lightning, ValueError or TypeError for options that do not go together.

        Before anything is read.
        """
        from mmha.models.mamsm import BUILDERS
        from mmha.train.run import require_lightning

        given, data = self.options["bold"] or [], self.options["data"]
        if data is None:
            checks.require(bool(given), "BOLD", "4-D images, or --data haxby", "none")
            checks.require(bool(self.options["events"]), "--events", "a file with the task of each run", "none")
        else:
            checks.one_of("--data", data, ("haxby",))
            for name in ("bold", "events", "mask", "confounds", "runs", "tr"):
                if self.options[name] not in (None, (), []):
                    raise ValueError(f"--data: expected it without {name}, which it brings, got both")
        checks.one_of("--size", self.options["size"], tuple(BUILDERS))
        checks.one_of("--hrf", self.options["hrf"], ("spm", "glover"))
        smooth = self.options["smooth"]
        checks.require(checks.number("--smooth", smooth) > 0, "--smooth", "seconds > 0", f"{smooth:g}")
        check_out(self.out / "hidden_values", self.options["resume"])
        require_lightning()

    def run(self) -> dict[str, Any]:
        """All of it; what was found is in the folder, with its page. Returns: result.json."""
        from mmha import checkpoint
        from mmha.cli.fmri_report import page

        bold, self.names, self.curves = self._read()
        self.bold = bold
        self.out.mkdir(parents=True, exist_ok=True)
        with _bars() as show:
            fitted = self._hidden_values(show)
            features = self._attention(show)
            hidden, held_out = self._time_courses(features, show)
        found = self._found(hidden, held_out, fitted)
        write(self.out, found)
        checkpoint.write(self.out / "report.html", page(found).encode())
        return found.result

    def _read(self) -> tuple[Any, tuple[str, ...], Any]:
        """The signals, the names of the conditions, and their curves."""
        from mmha.data import bold

        given = self.options
        tables: Any
        if given["data"]:
            found, tables, _ = bold.haxby(fetch("haxby"))
        else:
            paths, tables = given["bold"], given["events"]
            tables = tables[0] if len(tables) == 1 else tables
            runs = None if given["runs"] is None else run_numbers(given["runs"], sum(bold.volumes(paths)))
            found = bold.load(paths, given["mask"], given["tr"], runs, given["confounds"] or None, drop=given["drop"])
            checks.require(len(found.values) > 1, "--mask", "at least two voxels", "1")
        names, curves = bold.design(tables, found.tr, found.lengths, given["hrf"])
        self.blocks = bold.blocks(tables, found.tr, found.lengths) if given["blocks"] else None
        self.background: tuple[Any, Any] = found.mean, found.affine
        if given["background"] is not None:
            self.background = bold.volume(given["background"])
        return found, names, curves

    def _hidden_values(self, show: Show) -> Any:
        """Stage 1; the model is in mamsm.json afterwards."""
        import torch

        from mmha.models import mamsm
        from mmha.train.series_fit import Options, Stage
        from mmha.train.settings import Settings

        bold, steps = self.bold, self.options["steps"]
        self.scale = mamsm.Scale.of(bold.values)
        torch.manual_seed(self.options["seed"])
        longest = max(bold.lengths) + 2
        faithful, window = self.options["faithful"], self.options["window"]
        sizes = {} if window is None else {"window": window or None}
        config = mamsm.BUILDERS[self.options["size"]](
            self.scale.vocabulary, positions=longest, faithful=faithful, **sizes
        )
        self.model = mamsm.MAMSM(config)
        settings = Settings(
            steps, RATE, self.options["seed"], warmup=steps // 20, rounds=5, precision=self.options["precision"]
        )
        options = Options(max(1, TOKENS // longest), faithful=faithful)
        folder = self.out / "hidden_values"
        stage = Stage(self.model, self.scale, bold.values, bold.lengths, settings, folder, options, self.blocks)
        fitted = stage.fit(self.options["resume"], lambda at: show("hidden values", at.step, at.steps))
        about = {"steps": steps, "rms": fitted.scores.rms}
        mamsm.save(self.model, self.scale, self.out / "mamsm.json", about)
        return fitted

    def _attention(self, show: Show) -> Any:
        from mmha.models import mamsm

        width, count = mamsm.window(self.bold.tr, self.options["smooth"]), len(self.bold.values)
        return mamsm.features(
            self.model,
            self.scale,
            self.bold.values,
            self.bold.lengths,
            width,
            lambda done: show("attention", done, count),
        )

    def _time_courses(self, features: Any, show: Show) -> tuple[Any, Any]:
        """Stage 2 on all runs; before that, of several runs, without the last ones, which show what it is worth."""
        runs = self.bold.runs
        count = int(runs[-1]) + 1
        last = max(1, count // 6)
        held_out = None
        if count > 1:
            chosen = runs < count - last
            stage, found = self._guided(features, chosen, "held_out", show)
            held_out = (last, stage.r(found.hidden, ~chosen))
        _, found = self._guided(features, None, "time_courses", show)
        return found.hidden, held_out

    def _guided(self, features: Any, chosen: Any, name: str, show: Show) -> tuple[Any, Any]:
        import torch

        from mmha.models.mamsm import Autoencoder
        from mmha.train import courses

        torch.manual_seed(self.options["seed"])
        model = Autoencoder(features.shape[0] * features.shape[1], len(self.bold.values))
        settings = courses.settings(self.options["epochs"], EPOCH_RATE, self.options["seed"])
        folder = self.out / name
        stage = courses.Guided(model, features, self.bold.values, self.curves, settings, folder, chosen)
        resume = self.options["resume"] and (folder / "state.json").exists()
        title = "time courses" if chosen is None else "without the last runs"
        return stage, stage.fit(resume, lambda at: show(title, at.step, at.steps))

    def _found(self, hidden: Any, held_out: Any, fitted: Any) -> Found:
        """Maps, their overlap with the GLM's, and all figures."""
        from mmha.data.bold import glm
        from mmha.metrics.series import correlation
        from mmha.models.mamsm.maps import chance, network, overlap, spatial

        bold, courses = self.bold, hidden[:, : len(self.names)]
        maps, z = spatial(bold.values, courses), glm(bold, self.curves)
        ours, theirs, r = network(maps), network(z), correlation(courses, self.curves)
        conditions = [
            {
                "name": name,
                "r": round(float(r[i]), 4),
                "r_held_out": None if held_out is None else round(float(held_out[1][i]), 4),
                "iou": round(overlap(ours[:, i], theirs[:, i]), 4),
                "chance": round(chance(ours[:, i], theirs[:, i]), 4),
                "voxels": int(ours[:, i].sum()),
                "z": round(float(z[:, i].max(initial=0.0)), 2),
            }
            for i, name in enumerate(self.names)
        ]
        scores = {"model": fitted.scores, **fitted.baselines}
        result = {
            "data": self.options["data"] or [str(path) for path in self.options["bold"]],
            "voxels": len(bold.values),
            "volumes": bold.values.shape[1],
            "runs": len(bold.lengths),
            "held_out_runs": 0 if held_out is None else held_out[0],
            "tr": bold.tr,
            **{
                name: self.options[name] for name in ("size", "faithful", "blocks", "steps", "epochs", "smooth", "seed")
            },
            "window": self.model.config.window,
            "hidden_values": {
                name: {"exact": round(s.exact.value, 4), "near": round(s.near.value, 4), "rms": round(s.rms, 4)}
                for name, s in scores.items()
            },
            "conditions": conditions,
        }
        courses = courses.astype(np.float64)
        background = np.nan_to_num(self.background[0], posinf=0.0, neginf=0.0), self.background[1]
        return Found(result, bold.runs, self.curves, courses, maps, z, bold.mask, bold.affine, *background)


def run_numbers(text: str, volumes: int) -> list[int]:
    """The run of each volume, from how many each run has: "121,121,119", or "121" of all runs.

    Raises: ValueError for another text, and for a sum that is not `volumes`.

    >>> run_numbers("2,3", 5), run_numbers("2", 4)
    ([0, 0, 1, 1, 1], [0, 0, 1, 1])
    """
    parts = text.split(",")
    fits = all(part.strip().isdecimal() and int(part) > 0 for part in parts)
    checks.require(fits, "--runs", "volumes of each run, as 121,121,119, or one number for all", text)
    lengths = [int(part) for part in parts]
    if len(lengths) == 1:
        lengths *= max(1, volumes // lengths[0])
    checks.require(sum(lengths) == volumes, "--runs", f"{volumes} volumes in all, those of the images", sum(lengths))
    return [run for run, length in enumerate(lengths) for _ in range(length)]


@contextlib.contextmanager
def _bars() -> Iterator[Show]:
    """A bar with the time left for each part of the work, on stderr; into a pipe, a line when a part is done."""
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    from mmha.cli.printing import console

    err = console(stderr=True)
    columns = (
        TextColumn("{task.description:<22}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    tasks: dict[str, Any] = {}
    current = ""
    with Progress(*columns, console=err, disable=not err.is_terminal) as progress:

        def show(name: str, done: int, total: int) -> None:
            nonlocal current
            current = name
            if name not in tasks:
                tasks[name] = progress.add_task(name, total=total)
            progress.update(tasks[name], completed=done)
            if done == total and not err.is_terminal:
                err.print(f"{name}: {total}", markup=False)

        try:
            yield show
        except KeyboardInterrupt:
            way = f"stopped at {current}; go on with --resume" if current else "stopped before anything was learned"
            err.print(way, markup=False)
            raise


def print_result(result: dict[str, Any], out: Path) -> None:
    """The figures for people."""
    hidden = result["hidden_values"]
    print(f"{result['voxels']:,} voxels, {result['volumes']:,} volumes, {result['runs']} runs")
    print("hidden values, error  " + " · ".join(f"{name} {scores['rms']:.3f}" for name, scores in hidden.items()))
    wide = max(9, *(len(row["name"]) for row in result["conditions"])) if result["conditions"] else 9
    print(f"{'condition':<{wide}}  r fitted  r held out  overlap with GLM  by chance")
    for row in result["conditions"]:
        held = "-" if row["r_held_out"] is None else f"{row['r_held_out']:.3f}"
        print(f"{row['name']:<{wide}}  {row['r']:>8.3f}  {held:>10}  {row['iou']:>16.3f}  {row['chance']:>9.3f}")
    print(out / "report.html")
