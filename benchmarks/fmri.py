"""What MAMSM finds in Haxby's slice and in simulated tasks, beside what is simpler and beside itself in parts.

    python benchmarks/fmri.py [--json FILE] [--quick]

Time courses: Pearson's r with the curves of the design, in the volumes that were fitted and in two runs of twelve that
were not, six times. A held-out run has part in stage 1, which knows no events, and in nothing else. Where a method has
no time course for a curve, the most similar one in the fitted volumes is taken. Decoding: 8 kinds of pictures from the
means of blocks, ridge classifier, runs held out. Simulation: `fmri_simulation.py`. About 8 minutes of one core.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fmri_methods as methods
import numpy as np
import torch
from fmri_methods import Data
from fmri_simulation import TASKS, TR, Simulation, as_bold, simulate
from sklearn.linear_model import RidgeClassifier
from sklearn.preprocessing import StandardScaler

from mmha import checkpoint
from mmha.data import bold
from mmha.metrics.series import correlation
from mmha.models.mamsm import maps
from mmha.train import courses

STEPS, EPOCHS, LONGER, FOLDS = 300, courses.EPOCHS, 100, 6
SIMULATED = 40  # steps, of stage 1


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


def time_courses(
    data: Data, shuffled: Any, runs: Any, features: dict[str, Any], epochs: int, longer: int
) -> tuple[Any, Any]:
    """r in fitted volumes and in others, for each method; and the guided time courses of each fold."""
    curves, none = data.curves, data.curves[:, :0]
    trained, untrained, voxels = (features[name] for name in ("trained", "untrained", "voxels"))
    flat = trained.flatten(0, 1).numpy()

    def guided(rows: Any, to: Any, epochs: int = epochs) -> Callable[[Any], Any]:
        return lambda chosen: methods.stage_2(data, rows, chosen, to, epochs)

    # A way gives time courses; `True`: of many, and those that are most like the curves are taken.
    ways: dict[str, tuple[Callable[[Any], Any], Any, bool]] = {
        "MAMSM": (guided(trained, curves), curves, False),
        "without stage 1 (random weights)": (guided(untrained, curves), curves, False),
        "stage 2 on the voxels themselves": (guided(voxels, curves), curves, False),
        "shuffled events": (guided(trained, shuffled), shuffled, False),
        "MAMSM, more epochs": (guided(trained, curves, longer), curves, False),
        "without stage 1, more epochs": (guided(untrained, curves, longer), curves, False),
        "shuffled events, more epochs": (guided(trained, shuffled, longer), shuffled, False),
        "without the cosine": (guided(trained, none), curves, True),
        "ridge on its features": (lambda c: methods.regression(flat, c, curves), curves, False),
        "ridge on voxels": (lambda c: methods.regression(data.values, c, curves), curves, False),
        "ICA": (lambda c: methods.components(data.values, c, "ica"), curves, True),
        "dictionary learning": (lambda c: methods.components(data.values, c, "dictionary"), curves, True),
    }
    table, kept = {}, {}
    for name, (way, to, many) in ways.items():
        begun, inside, outside = time.process_time(), [], []
        for number, chosen in enumerate(folds(runs)):
            made = kept[name, number] = way(chosen)
            found = methods.best(made, to, chosen) if many else made
            inside.append(methods.r_of(found, to, chosen))
            outside.append(methods.r_of(found, to, ~chosen))
        table[name] = {"r_fitted": methods.mean(inside), "r_held_out": methods.mean(outside)}
        print(f"{name:<36}{table[name]}  {time.process_time() - begun:.0f} s", flush=True)
    return table, kept


def decoding(data: Data, runs: Any, labels: Any, features: dict[str, Any], kept: Any) -> dict[str, Any]:
    """8-class accuracy with one run left out at a time, and with two, where time courses were fitted to the others."""
    one, two = [runs != run for run in np.unique(runs)], list(folds(runs))
    fixed = {
        "voxels": data.values.T,
        "attention of [CLS]": features["trained"].flatten(0, 1).numpy().T,
        "attention of [CLS], random weights": features["untrained"].flatten(0, 1).numpy().T,
    }
    found: dict[str, Any] = {}
    for name, rows in fixed.items():
        found[name] = {
            "one": accuracy(lambda i, rows=rows: rows, one, runs, labels),
            "two": accuracy(lambda i, rows=rows: rows, two, runs, labels),
        }
    for name in ("MAMSM", "without stage 1 (random weights)", "without the cosine"):
        fitted = accuracy(lambda i, name=name: kept[name, i], two, runs, labels)
        found[f"hidden time courses, {name}"] = {"two": fitted}
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


def networks(steps: int, epochs: int) -> dict[str, Any]:
    """Of each simulated task the overlap of recovered with known networks, and r in the fitted volumes."""
    table = {}
    for seed, (task, (volumes, conditions)) in enumerate(TASKS.items(), 1):
        made = simulate(volumes, conditions, seed)
        data = Data(made.values, [volumes], made.curves, TR)
        every = np.ones(volumes, bool)
        trained = methods.attention(data, *methods.stage_1(data, steps, 16)[:2])
        untrained = methods.attention(data, *methods.stage_1(data, 0, 16)[:2])
        curves, none = made.curves, made.curves[:, :0]
        free = methods.stage_2(data, trained, every, none, epochs)
        ways = {
            "MAMSM": methods.stage_2(data, trained, every, curves, epochs)[:, :conditions],
            "without stage 1 (random weights)": methods.stage_2(data, untrained, every, curves, epochs)[:, :conditions],
            "without the cosine": methods.best(free, curves, every),
            "ICA": methods.best(methods.components(data.values, every, "ica"), curves, every),
            "dictionary learning": methods.best(methods.components(data.values, every, "dictionary"), curves, every),
            "the design's curves": curves,
        }
        rows = {name: scored(made, maps.spatial(made.values, found), found) for name, found in ways.items()}
        rows["GLM"] = scored(made, bold.glm(as_bold(made), curves), curves)
        table[task] = rows
        print(task, json.dumps(rows), flush=True)
    return table


def scored(made: Simulation, weights: Any, found: Any) -> dict[str, float]:
    """The overlap (IoU), the correlation of maps, and r of time courses, means over conditions."""
    strong = maps.network(weights)
    overlaps = [maps.overlap(strong[:, i], made.truth[:, i]) for i in range(strong.shape[1])]
    return {
        "iou": methods.mean(overlaps),
        "map_r": methods.mean(correlation(weights, made.truth)),
        "r": methods.mean(correlation(found, made.curves)),
    }


def slice_of_haxby(steps: int, epochs: int, longer: int) -> dict[str, Any]:
    """Hidden values, time courses and decoding of the real data."""
    data, shuffled, runs, labels = haxby()
    model, scale, fitted = methods.stage_1(data, steps, 64)
    assert fitted is not None
    features = {
        "trained": methods.attention(data, model, scale),
        "untrained": methods.attention(data, *methods.stage_1(data, 0, 64)[:2]),
        "voxels": torch.from_numpy(data.values)[:, None],
    }
    scores = {"model": fitted.scores, **fitted.baselines}
    hidden = {name: {"near": round(s.near.value, 4), "rms": round(s.rms, 4)} for name, s in scores.items()}
    print(f"hidden values: {hidden}  {time.process_time():.0f} s", flush=True)
    found, kept = time_courses(data, shuffled, runs, features, epochs, longer)
    decoded = decoding(data, runs, labels, features, kept)
    print(f"decoding: {decoded}", flush=True)
    return {
        "steps": steps,
        "epochs": epochs,
        "more_epochs": longer,
        "hidden_values": hidden,
        "time_courses": found,
        "decoding": decoded,
    }


def main() -> None:
    """Print the figures, and write them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="where the figures go; those of another part that are there stay")
    parser.add_argument("--part", choices=("haxby", "simulation"), help="one of the two only")
    parser.add_argument("--quick", action="store_true", help="a few steps of everything: to see that it runs")
    options = parser.parse_args()
    torch.set_num_threads(1)
    steps, epochs, longer, small = (4, 3, 4, 2) if options.quick else (STEPS, EPOCHS, LONGER, SIMULATED)
    record = json.loads(options.json.read_text("utf-8")) if options.json and options.json.exists() else {}
    if options.part != "simulation":
        record["haxby"] = slice_of_haxby(steps, epochs, longer)
    if options.part != "haxby":
        record["simulation"] = {"steps": small, "epochs": longer, "tasks": networks(small, longer)}
    if options.json:
        checkpoint.write(options.json, (json.dumps(record, indent=1) + "\n").encode())


if __name__ == "__main__":
    main()
