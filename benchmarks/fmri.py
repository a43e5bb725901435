"""What MAMSM finds in Haxby's slice and in simulated tasks, beside what is simpler and beside itself in parts.

    python benchmarks/fmri.py [--json FILE] [--work FOLDER] [--quick]

Time courses: Pearson's r with the curves of the design, in the volumes that were fitted and in two runs of twelve that
were not, six times. A held-out run has part in stage 1, which knows no events, and in nothing else. Where a method has
no time course for a curve, the most similar one in the fitted volumes is taken. Decoding: 8 kinds of pictures from the
means of blocks, ridge classifier, runs held out. Simulation: `fmri_simulation.py`. About 15 minutes of one core; with
--work, a run that was stopped goes on where it was.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import fmri_methods as methods
import numpy as np
import torch
from fmri_journal import Journal
from fmri_looks import looks
from fmri_methods import Data
from fmri_simulation import TASKS, TR, Simulation, as_bold, simulate
from sklearn.linear_model import RidgeClassifier
from sklearn.preprocessing import StandardScaler

from mmha import checkpoint
from mmha.data import bold
from mmha.metrics.series import correlation
from mmha.models.mamsm import maps
from mmha.train import courses
from mmha.train.series_scores import Scores

FOLDS = 6
LONGER = 4  # times as many epochs for stage 2 on voxels, whose numbers are a sixth as many


@dataclass(frozen=True)
class Sizes:
    """Steps of stage 1, of the published size and of the simulated tasks; epochs of stage 2."""

    steps: int = 300
    published: int = 100
    epochs: int = courses.EPOCHS
    simulated: int = 40


class Way(NamedTuple):
    """make: chosen volumes → time courses (T, n) of all; the curves to follow; many: the most similar are taken."""

    make: Callable[[Any], Any]
    curves: Any
    many: bool = False


def haxby() -> tuple[Data, Any, Any, Any]:
    """The data, the curves of events whose kinds are dealt anew in each run, the run and the label of each volume."""
    found, events, labels = bold.haxby()
    _, curves = bold.design(events, found.tr, found.lengths)
    generator = np.random.default_rng(1)
    for table in events:
        table["trial_type"] = generator.permutation(table["trial_type"].to_numpy())
    _, shuffled = bold.design(events, found.tr, found.lengths)
    return Data(found.values, found.lengths, curves, found.tr), shuffled, found.runs, labels


def folds(runs: Any) -> Iterator[Any]:
    """The volumes that are fitted: all but two runs, which take turns."""
    for first in range(0, 12, 12 // FOLDS):
        yield ~np.isin(runs, (first, first + 1))


def every_way(data: Data, shuffled: Any, runs: Any, features: dict[str, Any], epochs: int) -> dict[str, Way]:
    """The ways to time courses, by name."""
    curves, none = data.curves, data.curves[:, :0]

    def guided(name: str, to: Any = curves, longer: int = 1) -> Callable[[Any], Any]:
        return lambda chosen: methods.stage_2(data, features[name], chosen, to, longer * epochs)

    def ridge(name: str) -> Callable[[Any], Any]:
        flat = features[name].flatten(0, 1).numpy()
        return lambda chosen: methods.regression(flat, chosen, curves, runs)

    def components(kind: str) -> Callable[[Any], Any]:
        return lambda chosen: methods.components(data.values, chosen, kind)

    ways = {
        "MAMSM": Way(guided("trained"), curves),
        "MAMSM, weights as published": Way(guided("trained, weights"), curves),
        "without stage 1": Way(guided("drawn"), curves),
        "without stage 1, weights as published": Way(guided("drawn, weights"), curves),
        "voxels, smoothed": Way(guided("smoothed", longer=LONGER), curves),
        "shuffled events": Way(guided("trained", shuffled), shuffled),
        "without the cosine": Way(guided("trained", none), curves, many=True),
        "ridge, MAMSM": Way(ridge("trained"), curves),
        "ridge, weights as published": Way(ridge("trained, weights"), curves),
        "ridge, without stage 1": Way(ridge("drawn"), curves),
        "ridge, voxels": Way(ridge("voxels"), curves),
        "ridge, voxels, smoothed": Way(ridge("smoothed"), curves),
        "timing": Way(lambda chosen: methods.timing(chosen, curves, runs), curves),
        "ICA": Way(components("ica"), curves, many=True),
        "dictionary learning": Way(components("dictionary"), curves, many=True),
    }
    for name in features.keys() & {"published size", "published size, faithful"}:
        ways[f"MAMSM, {name}"] = Way(guided(name), curves)
    return ways


def judged(way: Way, chosen: Any, runs: Any, labels: Any) -> dict[str, float]:
    """One fold: r in the fitted volumes, in the others, and there beyond the timing; pictures told apart."""
    made = way.make(chosen)
    found = methods.best(made, way.curves, chosen) if way.many else made
    decoded = accuracy(lambda i: made, [chosen], runs, labels) if made.shape[1] > 2 * way.curves.shape[1] else None
    return {
        "r_fitted": methods.r_of(found, way.curves, chosen),
        "r_held_out": methods.r_of(found, way.curves, ~chosen),
        "r_beyond_timing": methods.r_beyond_timing(found, way.curves, ~chosen),
        "decoded": decoded,
    }


def time_courses(ways: dict[str, Way], runs: Any, labels: Any, journal: Journal) -> dict[str, Any]:
    """Means over the folds; and the first fold alone, whose held-out runs decided nothing."""
    rows: dict[str, list[dict[str, Any]]] = {name: [] for name in ways}
    for number, chosen in enumerate(folds(runs)):
        for name, way in ways.items():
            found = journal(f"fold {number}, {name}", lambda w=way, c=chosen: judged(w, c, runs, labels))
            rows[name].append(found)
    table = {}
    for name, mine in rows.items():
        table[name] = {
            key: None if mine[0][key] is None else methods.mean([row[key] for row in mine]) for key in mine[0]
        }
        table[name]["r_first_fold"] = round(mine[0]["r_held_out"], 4)
    return table


def decoding(data: Data, runs: Any, labels: Any, features: dict[str, Any]) -> dict[str, Any]:
    """8-class accuracy with one run left out at a time, and with two."""
    one, two = [runs != run for run in np.unique(runs)], list(folds(runs))
    found: dict[str, Any] = {}
    for name, made in features.items():
        rows = made.flatten(0, 1).numpy().T
        found[name] = {
            "one": accuracy(lambda i, rows=rows: rows, one, runs, labels),
            "two": accuracy(lambda i, rows=rows: rows, two, runs, labels),
        }
    return found


def accuracy(rows: Callable[[int], Any], parts: list[Any], runs: Any, labels: Any) -> float:
    """The share of blocks whose kind is found, over all parts; a block is the mean of its volumes."""
    right = total = 0
    starts = np.flatnonzero((labels[1:] != labels[:-1]) | (runs[1:] != runs[:-1])) + 1
    spans = [s for s in np.split(np.arange(len(labels)), starts) if labels[s[0]] != "rest"]
    kinds = np.array([labels[s[0]] for s in spans])
    for number, chosen in enumerate(parts):
        numbers = rows(number)
        blocks = np.stack([numbers[s].mean(0) for s in spans])
        train = np.array([chosen[s[0]] for s in spans])
        scaler = StandardScaler().fit(blocks[train])
        model = RidgeClassifier(alpha=1.0).fit(scaler.transform(blocks[train]), kinds[train])
        right += int((model.predict(scaler.transform(blocks[~train])) == kinds[~train]).sum())
        total += int((~train).sum())
    return round(right / total, 4)


def networks(task: str, seed: int, steps: int, epochs: int) -> dict[str, Any]:
    """Of a simulated task the overlap of recovered with known networks, and r in the fitted volumes."""
    volumes, conditions = TASKS[task]
    made = simulate(volumes, conditions, seed)
    data = Data(made.values, [volumes], made.curves, TR)
    every = np.ones(volumes, bool)
    trained = methods.attention(data, *methods.stage_1(data, steps, 16)[:2])
    untrained = methods.attention(data, *methods.stage_1(data, 0, 16)[:2])
    curves, none = made.curves, made.curves[:, :0]
    free = methods.stage_2(data, trained, every, none, epochs)
    ways = {
        "MAMSM": methods.stage_2(data, trained, every, curves, epochs)[:, :conditions],
        "without stage 1": methods.stage_2(data, untrained, every, curves, epochs)[:, :conditions],
        "without the cosine": methods.best(free, curves, every),
        "ICA": methods.best(methods.components(data.values, every, "ica"), curves, every),
        "dictionary learning": methods.best(methods.components(data.values, every, "dictionary"), curves, every),
        "the design's curves": curves,
    }
    rows = {name: scored(made, maps.spatial(made.values, found), found) for name, found in ways.items()}
    rows["GLM"] = scored(made, bold.glm(as_bold(made), curves), curves)
    return rows


def scored(made: Simulation, weights: Any, found: Any) -> dict[str, float]:
    """The overlap (IoU), the correlation of maps, and r of time courses, means over conditions."""
    strong = maps.network(weights)
    overlaps = [maps.overlap(strong[:, i], made.truth[:, i]) for i in range(strong.shape[1])]
    return {
        "iou": methods.mean(overlaps),
        "map_r": methods.mean(correlation(weights, made.truth)),
        "r": methods.mean(correlation(found, made.curves)),
    }


def slice_of_haxby(sizes: Sizes, journal: Journal, work: Path) -> dict[str, Any]:
    """Hidden values, where [CLS] looks, time courses and decoding of the real data."""
    data, shuffled, runs, labels = haxby()
    trained = methods.stage_1(data, sizes.steps, 64, work / "small")
    fitted = trained[2]
    assert fitted is not None
    drawn = methods.stage_1(data, 0, 64)
    features = {
        "trained": methods.attention(data, *trained[:2]),
        "trained, weights": methods.attention(data, *trained[:2], published=True),
        "drawn": methods.attention(data, *drawn[:2]),
        "drawn, weights": methods.attention(data, *drawn[:2], published=True),
        "smoothed": methods.smoothed(data),
        "voxels": torch.from_numpy(data.values)[:, None],
    }
    seen = {}
    for name, (model, scale, _) in (("trained", trained), ("drawn", drawn)):
        mine = {key: features[full] for key, full in (("log", name), ("weights", f"{name}, weights"))}
        seen[name] = journal(f"looks, {name}", lambda m=model, s=scale, f=mine: looks(data, m, s, f))
    both = {name: features[name] for name in ("trained", "trained, weights")}
    epochs = [sizes.epochs // 3, sizes.epochs, 3 * sizes.epochs]
    decided = {"epochs": epochs, "r": journal("decision", lambda: methods.decision(data, runs, both, epochs))}
    decoded = journal("decoding", lambda: decoding(data, runs, labels, features))
    ways = every_way(data, shuffled, runs, features, sizes.epochs)
    table = time_courses(ways, runs, labels, journal)
    hidden = {name: score(found) for name, found in {"model": fitted.scores, **fitted.baselines}.items()}
    for name, faithful in (("published size", False), ("published size, faithful", True)):
        model, scale, found = methods.stage_1(data, sizes.published, 64, work / name, "published", faithful)
        assert found is not None
        hidden[name] = score(found.scores)
        mine = {name: methods.attention(data, model, scale)}
        seen[name] = journal(f"looks, {name}", lambda m=model, s=scale, f=mine: looks(data, m, s, f))
        ways = every_way(data, shuffled, runs, features | mine, sizes.epochs)
        key = f"MAMSM, {name}"
        table |= time_courses({key: ways[key]}, runs, labels, journal)
    passes = {"steps": sizes.steps, "published_steps": sizes.published, "epochs": sizes.epochs, "longer": LONGER}
    return {
        **passes,
        "hidden_values": hidden,
        "looks": seen,
        "decision": decided,
        "time_courses": table,
        "decoding": decoded,
    }


def score(found: Scores) -> dict[str, float]:
    """Of hidden values."""
    return {"near": round(found.near.value, 4), "rms": round(found.rms, 4)}


def main() -> None:
    """Print the figures, and write them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="where the figures go")
    parser.add_argument("--work", type=Path, help="folder of what is found so far: a run that was stopped goes on")
    parser.add_argument("--quick", action="store_true", help="a few steps of everything: to see that it runs")
    options = parser.parse_args()
    torch.set_num_threads(1)
    sizes = Sizes(4, 2, 3, 2) if options.quick else Sizes()
    with contextlib.ExitStack() as stack:
        work = options.work or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        work.mkdir(parents=True, exist_ok=True)
        journal = Journal(work / "journal.jsonl", asdict(sizes))
        found: dict[str, Any] = {"haxby": slice_of_haxby(sizes, journal, work)}
        simulated = {
            task: journal(f"simulated {task}", lambda t=task, n=seed: networks(t, n, sizes.simulated, sizes.epochs))
            for seed, task in enumerate(TASKS, 1)
        }
        found["simulation"] = {"steps": sizes.simulated, "epochs": sizes.epochs, "tasks": simulated}
        found["processor_minutes"] = round(journal.seconds() / 60)
        if options.json:
            checkpoint.write(options.json, (json.dumps(found, indent=1) + "\n").encode())
        if options.work:
            shutil.rmtree(work)


if __name__ == "__main__":
    main()
