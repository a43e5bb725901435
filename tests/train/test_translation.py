"""Training a translator: batches, the smoothed loss against its closed form, the score, and the command."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from mmha import metrics
from mmha.models.seq2seq import Seq2Seq, tiny
from mmha.train import translation
from mmha.train.settings import Settings, noam_rate, rate_at

SOURCES = [[i % 7 + 1] * (i % 5 + 1) for i in range(23)]
TARGETS = [[i % 11 + 1] * (i % 3 + 1) for i in range(23)]


def pairs(one: translation.Batch) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    source, following = one.source.split(one.source_lengths), one.following.split(one.target_lengths)
    return [(tuple(s.tolist()), tuple(t.tolist())) for s, t in zip(source, following, strict=True)]


def test_an_epoch_holds_every_pair_once_within_the_tokens() -> None:
    batches = translation.Batches(SOURCES, TARGETS, end=30, tokens=41, seed=3)
    wanted = sorted(((*s, 30), (*t, 30)) for s, t in zip(SOURCES, TARGETS, strict=True))
    first = batches(0, 0, 1)
    steps = len(batches.steps)
    for epoch in range(2):
        whole = [batches(step, 0, 1) for step in range(epoch * steps, (epoch + 1) * steps)]
        assert sorted(pair for one in whole for pair in pairs(one)) == wanted
        assert all(len(one.source) + len(one.target) <= 41 for one in whole)
    again = translation.Batches(SOURCES, TARGETS, end=30, tokens=41, seed=3)
    assert pairs(again(steps + 1, 0, 1)) == pairs(batches(steps + 1, 0, 1))  # whatever was asked for before
    assert torch.equal(first.target[1:][: first.target_lengths[0] - 1], first.following[: first.target_lengths[0] - 1])
    orders = [[pairs(batches(step + epoch * steps, 0, 1)) for step in range(steps)] for epoch in range(2)]
    assert orders[0] != orders[1]


def test_the_parts_of_a_step_are_its_batch() -> None:
    batches = translation.Batches(SOURCES, TARGETS, end=30, tokens=41, seed=3)
    whole = pairs(batches(2, 0, 1))
    assert sorted(pair for part in range(3) for pair in pairs(batches(2, part, 3))) == sorted(whole)


def test_the_loss_is_its_closed_form_and_the_score_leaves_the_smoothing_out() -> None:
    torch.manual_seed(1)
    model = Seq2Seq(tiny(31)).eval().requires_grad_(False)
    one = translation.batch([[5, 6], [7]], [[8], [9, 10, 11]], end=30)
    log_p = model(*one[:4]).double().log_softmax(-1)
    chosen = log_p.gather(1, one.following[:, None])[:, 0]
    wanted = -(0.9 * chosen + 0.1 * log_p.mean(1)).sum()
    assert float(translation.loss(model, one)) == pytest.approx(float(wanted), rel=1e-5)
    assert translation.counts(one) == [6.0]
    found = translation.score(model, [[5, 6], [7]], [[8], [9, 10, 11]], 30, tokens=7)
    assert found == pytest.approx(float(chosen.mean()), rel=1e-5)
    assert translation.score(model, [], [], 30) == 0.0


def test_the_rate_is_that_of_the_paper() -> None:
    settings = Settings(steps=9000, rate=noam_rate(512, 4000), warmup=4000, schedule="noam")
    for step in (1, 7, 3999, 4000, 8999):
        wanted = 512**-0.5 * min(step**-0.5, step * 4000**-1.5)
        assert rate_at(step - 1, settings) == pytest.approx(wanted, rel=1e-9)


def test_chrf_and_bleu_of_a_text_with_one_word_wrong() -> None:
    found = metrics.translation(["the cat sat on the mat"], ["the cat sat on a mat"])
    precisions = (5 / 6) * (3 / 5) * (2 / 4) * (1 / 3)
    assert found["BLEU"][0] == pytest.approx(100 * precisions**0.25)
    assert 0 < found["chrF"][0] < 100
    assert "tok:13a" in found["BLEU"][1]
    assert "tok:zh" in metrics.translation(["猫"], ["猫"])["BLEU"][1]
    with pytest.raises(ValueError, match="`found`: expected 2 translations, one a reference, got 1"):
        metrics.translation(["a"], ["a", "b"])


@pytest.mark.slow
def test_a_reversal_is_learnt_from_a_file_of_two_columns(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(1)
    letters = [torch.randint(97, 105, (int(n),), generator=generator).tolist() for n in torch.randint(3, 7, (3000,))]
    lines = [f"{''.join(map(chr, row))}\t{''.join(map(chr, row[::-1]))}" for row in letters]
    path = tmp_path / "pairs.tsv"
    path.write_text("\n".join(lines))
    out = tmp_path / "run"
    command = [sys.executable, "-m", "mmha", "train", "translate", str(path), "--out", str(out), "--size", "tiny",
               "--vocabulary", "257", "--steps", "600", "--tokens", "1500", "--rate", "0.01", "--json"]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    result = json.loads(done.stdout)
    assert result["dev_nats_per_token"] < 0.5 < math.log(8)
    assert result["test"]["chrF"][0] > 60
