"""Stage 1: what is hidden, by statistics; batches, loss and scores against loops; a run that learns and resumes."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mmha.models.mamsm import CLS, MAMSM, MASK, PAD, SEP, SPECIAL, Config, Scale, frame
from mmha.train import series
from mmha.train.series import Batch, Batches, Hiding
from mmha.train.series_fit import Options, Stage
from mmha.train.series_scores import NEAR, baselines, evaluate
from mmha.train.settings import Settings

SCALE = Scale(0.0, 1.0, 0.001)


def sentences(voxels: int, length: int, seed: int = 1) -> Any:
    return frame(SCALE.encode(np.random.default_rng(seed).random((voxels, length)))).numpy()


@pytest.mark.parametrize(("faithful", "shares"), [(False, (0.8, 0.1, 0.1)), (True, (0.8, 0.02, 0.18))])
def test_values_are_hidden_in_these_shares(faithful: bool, shares: tuple[float, ...]) -> None:
    hiding, draw = Hiding(SCALE, faithful), np.random.default_rng(3)
    rows = sentences(397, 113)
    fates, places = np.zeros(3), np.zeros(115)
    for row in rows:
        found = hiding(row, draw)
        assert len(found.places) == (16 if faithful else 17)
        np.testing.assert_array_equal(found.labels, row[found.places])
        others = np.delete(np.arange(115), found.places)
        np.testing.assert_array_equal(found.tokens[others], row[others])
        now = found.tokens[found.places]
        kept = now == found.labels
        fates += (now == MASK).sum(), ((now != MASK) & ~kept).sum(), kept.sum()
        assert (now >= MASK).all()
        places[found.places] += 1
    total = fates.sum()
    for have, share in zip(fates / total, shares, strict=True):
        assert abs(have - share) < 4 * (share * (1 - share) / total) ** 0.5 + 0.001  # any value may be the old one
    assert places[0] == places[-1] == 0
    assert places[1:-1].min() > 397 * 0.15 * 0.5  # anywhere alike


def test_blocks_of_the_task_are_hidden_whole() -> None:
    blocks = np.repeat([-1, 0, -1, 1, 2, -1], [7, 9, 5, 9, 9, 61])
    row, draw = sentences(1, 100)[0], np.random.default_rng(5)
    seen = set()
    for _ in range(50):
        found = Hiding(SCALE, all_hidden=True)(row, draw, blocks)
        at = found.places - 1
        assert len(at) == 15
        assert (blocks[at] >= 0).all()
        counts = sorted(np.bincount(blocks[at], minlength=3).tolist())
        assert counts == [0, 6, 9]
        partial = at[blocks[at] == np.argmax(np.bincount(blocks[at], minlength=3) == 6)]
        assert (np.diff(partial) == 1).all()
        seen.add(tuple(np.bincount(blocks[at], minlength=3)))
    assert len(seen) == 6
    few = Hiding(SCALE)(row, draw, np.repeat([4, -1], [3, 97]))
    assert few.places.tolist() == [1, 2, 3]
    assert len(Hiding(SCALE)(row, draw, np.full(100, -1)).places) == 0


def make(faithful: bool = False, rows: int = 5, seed: int = 3) -> Batches:
    return Batches([sentences(7, 19), sentences(7, 11, 2)], Hiding(SCALE, faithful), rows, seed)


def unhidden(batch: Batch) -> list[tuple[int, ...]]:
    tokens = batch.tokens.clone()
    real = batch.labels != PAD
    tokens[batch.places[real]] = batch.labels[real]
    return [tuple(part.tolist()) for part in tokens.split(batch.lengths)]


def same(a: Batch, b: Batch) -> bool:
    return all(torch.equal(torch.as_tensor(x), torch.as_tensor(y)) for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize("faithful", [False, True])
def test_a_pass_holds_every_sentence_once(faithful: bool) -> None:
    wanted = sorted(tuple(row) for part in make().parts for row in part.tolist())
    found = [sentence for batch in make(faithful).once() for sentence in unhidden(batch)]
    assert sorted(found) == wanted
    assert all(s[0] == CLS and s[-1] == SEP for s in found)
    passes = [[unhidden(make(rows=7)(step + 2 * n)) for step in range(2)] for n in range(3)]
    assert all(sorted(itertools.chain(*one)) == wanted for one in passes)
    assert passes[0] != passes[1]


def test_batches_are_functions_of_seed_and_step_and_parts_make_a_step() -> None:
    one = make()
    assert all(same(one(step), make()(step)) for step in (9, 2, 5, 0))
    assert not same(make(seed=4)(0), one(0))
    whole = unhidden(one(4))
    assert sorted(itertools.chain(*(unhidden(one(4, part, 3)) for part in range(3)))) == sorted(whole)
    with pytest.raises(ValueError, match=r"^`values`: expected series to train on, got none$"):
        Batches([], Hiding(SCALE), 5, 1)


def test_masks_are_drawn_anew_or_once() -> None:
    def hidden(batches: Batches, whole: int) -> dict[tuple[int, ...], tuple[int, ...]]:
        found = {}
        for step in range(2 * whole, 2 * whole + 2):
            batch = batches(step)
            for seen, sentence in zip(batch.tokens.split(batch.lengths), unhidden(batch), strict=True):
                found[sentence] = tuple(seen.tolist())
        return found

    anew, once = make(rows=7), make(True, rows=7)
    assert hidden(once, 0) == hidden(once, 3)
    assert sum(hidden(anew, 0)[s] != hidden(anew, 3)[s] for s in hidden(anew, 0)) > 10


def test_empty_slots_ask_for_padding_at_the_first_token() -> None:
    batch = make(True)(0)
    starts = np.cumsum([0, *batch.lengths[:-1]])
    assert len(batch.labels) == 30 * len(batch.lengths)
    for start, length, places, labels in zip(
        starts, batch.lengths, batch.places.view(-1, 30), batch.labels.view(-1, 30), strict=True
    ):
        count = int(0.15 * (length - 2))
        assert (labels[:count] >= SPECIAL).all()
        assert labels[count:].tolist() == [PAD] * (30 - count)
        assert places[count:].tolist() == [start] * (30 - count)
    assert series.counts(batch) == [150.0]


CONFIG = Config(SCALE.vocabulary, width=14, layers=1, heads=2, head_dim=5, hidden=11, positions=31)


def test_the_loss_is_that_of_the_chosen_values() -> None:
    torch.manual_seed(1)
    model, batch = MAMSM(CONFIG).eval(), make()(0)
    at, total = 0, 0.0
    for length in batch.lengths:
        hidden = model(batch.tokens[at : at + length], [length]).detach()
        for place, label in zip(batch.places.tolist(), batch.labels.tolist(), strict=True):
            if at <= place < at + length:
                total -= float(model.values(hidden[place - at][None]).detach().log_softmax(-1)[0, label])
        at += length
    lost = [float(series.sums(model, one).detach()) for one in (batch, make()(1))]
    assert lost[0] == pytest.approx(total, rel=1e-5)
    assert series.counts(batch) == [len(batch.labels)]
    found = evaluate(model, SCALE, [batch, make()(1)])
    assert found.loss == pytest.approx(sum(lost) / found.exact.total, rel=1e-5)


class Known:
    """Says of every token what a table of logits says: what scores are judged by."""

    def __init__(self, logits: torch.Tensor) -> None:
        self.logits = logits

    def __call__(self, tokens: torch.Tensor, lengths: list[int]) -> torch.Tensor:
        return torch.arange(len(tokens))

    def values(self, places: torch.Tensor) -> torch.Tensor:
        return self.logits[: len(places)]


def test_scores_against_a_loop() -> None:
    batch = make()(0)
    torch.manual_seed(2)
    logits = torch.randn(len(batch.labels), SCALE.vocabulary)
    logits[::2, batch.labels[::2]] += 30
    logits[1] = -9.0
    logits[1, 200:230], logits[1, 900] = 0.0, 1.0  # the likeliest token is not where most probability is
    labels = batch.labels.clone()
    labels[1] = 214
    p = logits.double()[:, SPECIAL:].softmax(-1).numpy()
    exact = near = 0
    squares = 0.0
    for row, label in zip(p, (labels - SPECIAL).tolist(), strict=True):
        sums = [row[max(0, i - NEAR) : i + NEAR + 1].sum() for i in range(len(row))]
        exact += int(row.argmax()) == label
        near += abs(int(np.argmax(sums)) - label) <= NEAR
        squares += (np.arange(len(row)) @ row - label) ** 2
    found = evaluate(Known(logits), SCALE, [batch._replace(labels=labels)])
    assert (found.exact.correct, found.exact.total) == (exact, len(labels))
    assert abs(found.near.correct - near) <= 1  # equal sums at the edges of a window
    assert found.rms == pytest.approx(0.001 * (squares / len(labels)) ** 0.5, rel=1e-4)


def test_baselines_against_a_loop() -> None:
    parts = [sentences(13, 19), sentences(13, 11, 2)]
    held = Batches([sentences(5, 19, 3), sentences(5, 11, 4)], Hiding(SCALE, all_hidden=True), 4, 0).once()
    seen = np.concatenate([part[:, 1:-1].ravel() for part in parts])
    found = baselines(SCALE, parts, held)
    right = {"last": [0, 0, 0.0], "neighbours": [0, 0, 0.0]}
    total = 0
    for batch in held:
        rows = batch.tokens.split(batch.lengths)
        for n, (row, start) in enumerate(zip(rows, np.cumsum([0, *batch.lengths[:-1]]), strict=True)):
            places = [p - start for p in batch.places.tolist() if start <= p < start + batch.lengths[n]]
            for place in places:
                label = int(batch.labels[batch.places.tolist().index(place + start)])
                before = [int(t) for t in row[:place] if t >= SPECIAL]
                after = [int(t) for t in row[place + 1 :] if t >= SPECIAL]
                left = before[-1] if before else after[0]
                other = after[0] if after else before[-1]
                total += 1
                for name, guess in (("last", float(left)), ("neighbours", (left + other) / 2)):
                    right[name][0] += np.rint(guess) == label
                    right[name][1] += abs(np.rint(guess) - label) <= NEAR
                    right[name][2] += (guess - label) ** 2
    for name, (exact, near, squares) in right.items():
        assert (found[name].exact.correct, found[name].near.correct) == (exact, near)
        assert found[name].rms == pytest.approx(0.001 * (squares / total) ** 0.5)
    labels = np.concatenate([batch.labels.numpy() for batch in held])
    assert found["commonest"].exact.correct == (labels == np.bincount(seen).argmax()).sum()
    assert found["commonest"].rms == pytest.approx(0.001 * np.sqrt(((labels - seen.mean()) ** 2).mean()))


def flat() -> Any:
    """Every voxel keeps one of two values, which any value that is seen tells."""
    return np.repeat(np.where(np.arange(23) % 2 == 0, 1.0, -1.0)[:, None], 34, 1).astype(np.float32)


def stage(folder: Path, steps: int = 71, **options: Any) -> Stage:
    torch.manual_seed(1)
    values = flat()
    scale = Scale.of(values, 0.05)
    config = Config(scale.vocabulary, width=22, layers=1, heads=2, head_dim=11, hidden=23, positions=36)
    settings = Settings(steps=steps, rate=0.005, warmup=3, rounds=3)
    return Stage(MAMSM(config), scale, values, [17, 17], settings, folder, Options(rows=11, **options))


def test_a_run_learns_what_follows_from_the_rest(tmp_path: Path, one_thread: None) -> None:
    found = stage(tmp_path).fit()
    assert found.scores.exact.value > 0.95
    assert found.baselines["commonest"].exact.value < 0.8
    assert found.scores.exact.total == 2 * 3  # one voxel of 23 is held, two runs, 15 % of 17 values
    whole = stage(tmp_path / "whole", 2, whole=True).fit()
    assert whole.scores.exact.total == 5


def test_a_stopped_run_goes_on_to_the_same_weights(tmp_path: Path, one_thread: None) -> None:
    straight, stopped = stage(tmp_path / "a", 11), stage(tmp_path / "b", 11)
    straight.fit()

    def stop(progress: Any) -> None:
        if progress.step == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stopped.fit(show=stop)
    again = stage(tmp_path / "b", 11)
    again.fit(resume=True)
    wanted = straight.model.state_dict()
    assert all(torch.equal(tensor, wanted[name]) for name, tensor in again.model.state_dict().items())
    other = stage(tmp_path / "b", 11, held=0.2)
    with pytest.raises(ValueError, match=r"expected a run with held = 0\.2, got one with 0\.05$"):
        other.fit(resume=True)


def test_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    model = MAMSM(CONFIG)
    settings = Settings(steps=1, rate=0.1)
    for values, lengths, said in (
        (np.zeros((1, 4)), [4], r"^`values`: expected \(voxels, T\), voxels > 1, got \(1, 4\)$"),
        (np.zeros((3, 4)), [3], r"^`lengths`: expected lengths of sum T = 4, got sum 3$"),
        (
            np.zeros((3, 40)),
            [40],
            r"^`lengths`: expected at most 29 volumes, what the model has positions for, got 40$",
        ),
    ):
        with pytest.raises(ValueError, match=said):
            Stage(model, SCALE, values, lengths, settings, tmp_path)
    with pytest.raises(ValueError, match=r"^`held`: expected a share > 0 and < 1, got 1$"):
        Options(held=1)
