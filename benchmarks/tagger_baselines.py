"""Test the tagger that ships beside two usual ones, trained here on the same split, and print one table.

    python benchmarks/tagger_baselines.py [--only mmha|perceptron|crf] [--folder FOLDER] [--json FILE]

CRF: sklearn-crfsuite, L-BFGS with elastic net, the word, its affixes and shape and the words around it.
Perceptron: nltk's averaged perceptron, its own features, 5 passes. Neither has a setting chosen on the test files.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from mmha.data import brown
from mmha.data.sentence import Sentence
from mmha.metrics import Accuracy, tag_accuracy

CRF_SETTINGS = {
    "algorithm": "lbfgs",
    "c1": 0.1,
    "c2": 0.1,
    "max_iterations": 100,
    "all_possible_transitions": True,
}


def shape(word: str) -> str:
    """The word with runs of one kind of character made one: X upper, x lower, d digit; others stay."""
    kinds = ("X" if c.isupper() else "x" if c.islower() else "d" if c.isdigit() else c for c in word)
    run: list[str] = []
    for kind in kinds:
        if not run or run[-1] != kind:
            run.append(kind)
    return "".join(run)


def crf_features(words: tuple[str, ...], i: int) -> list[str]:
    """What the CRF sees at word i."""
    word, low = words[i], words[i].lower()
    near = {o: words[i + o].lower() if 0 <= i + o < len(words) else "<edge>" for o in (-2, -1, 1, 2)}
    found = ["bias", f"w={word}", f"l={low}", f"shape={shape(word)}"]
    found += [f"suf={low[-n:]}" for n in range(1, 6) if len(low) >= n]
    found += [f"pre={low[:n]}" for n in range(1, 5) if len(low) >= n]
    found += [f"w{o:+d}={near[o]}" for o in near]
    found += [f"s{o:+d}={near[o][-3:]}" for o in (-1, 1)]
    found += [f"shape{o:+d}={shape(words[i + o])}" for o in (-1, 1) if 0 <= i + o < len(words)]
    found += [f"w-1w={near[-1]}|{low}", f"ww+1={low}|{near[1]}", f"w-2w-1={near[-2]}|{near[-1]}"]
    return found


def crf(train: list[Sentence]) -> Callable[[list[Sentence]], list[list[str]]]:
    """Train the CRF, give the function that tags."""
    import sklearn_crfsuite

    def rows(sentences: list[Sentence]) -> Iterator[list[list[str]]]:
        return ([crf_features(s.words, i) for i in range(len(s))] for s in sentences)

    model = sklearn_crfsuite.CRF(**CRF_SETTINGS)
    model.fit(rows(train), (list(s.tags or ()) for s in train))
    return lambda sentences: [model.predict_single(row) for row in rows(sentences)]


def perceptron(train: list[Sentence]) -> Callable[[list[Sentence]], list[list[str]]]:
    """Train nltk's averaged perceptron, give the function that tags."""
    from nltk.tag.perceptron import PerceptronTagger

    random.seed(1)  # nltk shuffles with the global generator
    model = PerceptronTagger(load=False)
    model.train([list(zip(s.words, s.tags or (), strict=True)) for s in train], nr_iter=5)
    return lambda sentences: [[tag for _, tag in model.tag(list(s.words))] for s in sentences]


def shipped(train: list[Sentence]) -> Callable[[list[Sentence]], list[list[str]]]:
    """The tagger that ships; `mmha train tagger --threads 1` trained it, so there is nothing to train here."""
    from mmha.models.tagger import load

    model = load()
    return lambda sentences: model.tag([s.words for s in sentences])


def shipped_seconds() -> float:
    """How long the tagger that ships was trained, by its own account (`--threads 1`, on a machine with other work)."""
    from mmha.models.tagger import SHIPPED

    return float(json.loads(SHIPPED.read_text("utf-8"))["about"]["seconds"])


TAGGERS = {"mmha": shipped, "perceptron": perceptron, "crf": crf}


def score(tag: Callable[[list[Sentence]], list[list[str]]], sentences: list[Sentence]) -> Accuracy:
    return tag_accuracy([s.tags or () for s in sentences], tag(sentences))


def folder_of_brown() -> Path:
    from mmha.data import registry

    return registry.get("brown")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", choices=sorted(TAGGERS))
    parser.add_argument("--folder", type=Path, help="the Brown corpus, default: fetched by `mmha data get brown`")
    parser.add_argument("--json", type=Path, help="write the figures here as well")
    args = parser.parse_args()
    train, dev, test = (brown.read(part) for part in brown.split(brown.files(args.folder or folder_of_brown())))
    results = {}
    print(f"{'tagger':<12} {'dev':>8} {'test':>8} {'training':>10}", flush=True)
    for name in [args.only] if args.only else TAGGERS:
        start = time.perf_counter()
        tag = TAGGERS[name](train)
        seconds = time.perf_counter() - start if name != "mmha" else shipped_seconds()
        on_dev, on_test = score(tag, dev), score(tag, test)
        results[name] = {"dev": on_dev.value, "test": on_test.value, "seconds": round(seconds)}
        print(f"{name:<12} {on_dev.value:>8.2%} {on_test.value:>8.2%} {seconds:>8.0f} s", flush=True)
        if args.json:
            args.json.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
