"""The loop: it learns, and a run that was stopped and resumed gives the same bits as one that was not."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from mmha.data.sentence import Sentence
from mmha.models.tagger import Lexicon, Tagger, small
from mmha.train import tagging
from mmha.train.interrupt import Interrupt
from mmha.train.loop import Progress, Run, Settings

TAGS = ("DET", "NOUN", "VERB")
SENTENCES = [
    Sentence(("the", name, "runs"), TAGS)
    if i % 3
    else Sentence((name, "runs", "the", "log"), ("NOUN", "VERB", *TAGS[:2]))
    for i, name in enumerate(f"w{i}" for i in range(53))
]
SETTINGS = Settings(epochs=3, rate=0.01, seed=7, save_every=1e9)


def new_run(
    folder: Path, settings: Settings = SETTINGS, about: dict[str, object] | None = None
) -> tuple[Run, tagging.Shuffled]:
    lexicon = Lexicon.count([s.words for s in SENTENCES], TAGS)
    torch.manual_seed(settings.seed)
    config = replace(small(lexicon), dropout=0.3)  # dropout, so that a wrong generator state would show
    model = Tagger(config, lexicon)
    return Run(model, settings, folder, about), tagging.Shuffled(SENTENCES, model.encode, TAGS, 31, settings.seed)


def score(model: nn.Module) -> float:
    return tagging.accuracy(model, SENTENCES).value


def fit(run: Run, data: tagging.Shuffled, show: Callable[[Progress], None] = lambda progress: None) -> None:
    run.fit(data, tagging.loss, score, show)


def same(a: Run, b: Run) -> bool:
    pairs = [(a.model.state_dict(), b.model.state_dict()), (a.average, b.average), (a.best, b.best)]
    return all(x.keys() == y.keys() and all(torch.equal(x[k], y[k]) for k in x) for x, y in pairs)


def test_it_learns(tmp_path: Path) -> None:
    run, data = new_run(tmp_path, replace(SETTINGS, epochs=8))
    fit(run, data)
    assert run.progress.best > 0.99
    assert [row["epoch"] for row in run.progress.history] == list(range(1, 9))
    assert run.progress.step == run.progress.steps == 8 * len(data(0))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run that nobody stopped."""
    run, data = new_run(tmp_path_factory.mktemp("whole"))
    fit(run, data)
    return run


@pytest.mark.parametrize("step", [1, 5, 9])
def test_stopped_and_resumed_equals_uninterrupted(tmp_path: Path, whole: Run, step: int) -> None:
    def stop(progress: Progress) -> None:
        if progress.step == step:
            os.kill(os.getpid(), signal.SIGINT)

    first, data = new_run(tmp_path / "parts")
    with pytest.raises(KeyboardInterrupt):
        fit(first, data, stop)
    assert first.progress.step == step
    assert not same(first, whole)
    second, data = new_run(tmp_path / "parts")
    second.resume()
    assert same(first, second)
    fit(second, data)
    assert same(second, whole)
    assert second.progress.history[-1]["score"] == whole.progress.history[-1]["score"]


def test_the_seed_decides(tmp_path: Path) -> None:
    runs = [new_run(tmp_path / str(i), replace(SETTINGS, epochs=1, seed=seed)) for i, seed in enumerate((7, 7, 8))]
    for run, data in runs:
        fit(run, data)
    assert same(runs[0][0], runs[1][0])
    assert not same(runs[0][0], runs[2][0])


def test_another_run_is_not_continued(tmp_path: Path) -> None:
    run, _ = new_run(tmp_path, about={"data": "brown"})
    run.save()
    other, _ = new_run(tmp_path, replace(SETTINGS, rate=0.5), {"data": "brown"})
    with pytest.raises(ValueError, match=r"expected a run with rate = 0\.5, got one with 0\.01"):
        other.resume()
    other, _ = new_run(tmp_path, about={"data": "mine.conllu"})
    with pytest.raises(ValueError, match=r"expected a run with data = mine\.conllu, got one with brown"):
        other.resume()
    other, _ = new_run(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError):
        other.resume()


def test_a_second_ctrl_c_stops_at_once_and_the_old_handler_comes_back() -> None:
    before = signal.getsignal(signal.SIGINT)
    with Interrupt() as stop:
        os.kill(os.getpid(), signal.SIGINT)
        assert stop.asked
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before


def test_every_word_is_seen_once_an_epoch_in_another_order() -> None:
    _, data = new_run(Path())
    first, second = data(0), data(1)
    assert len(first) == len(second)
    assert all(sum(batch.lengths) == len(batch.words) == len(batch.tags) <= 31 for batch in first)
    assert [b.lengths for b in first] != [b.lengths for b in second]
    assert all(torch.equal(a.words, b.words) for a, b in zip(first, data(0), strict=True))


def test_the_loss_is_the_mean_of_minus_log_p() -> None:
    run, data = new_run(Path())
    run.model.eval()
    batch = data(0)[0]
    scores = run.model(batch.words, batch.pieces, batch.lengths).double()
    by_hand = sum(-scores[i].log_softmax(0)[tag] for i, tag in enumerate(batch.tags)) / len(batch.tags)
    torch.testing.assert_close(tagging.loss(run.model, batch).double(), by_hand, rtol=1e-5, atol=1e-6)


def test_a_factor_gives_parameters_a_rate_of_their_own(tmp_path: Path) -> None:
    model = nn.ModuleDict({"body": nn.Linear(3, 5), "head": nn.Linear(5, 2), "heading": nn.Linear(2, 1)})
    before = {k: v.clone() for k, v in model.state_dict().items()}
    settings = Settings(epochs=1, rate=0.01, warmup=1e-9, weight_decay=0.0)
    run = Run(model, settings, tmp_path, factors={"head.": 4.0})
    run.progress.steps = 7

    def loss(model: nn.Module, batch: object) -> torch.Tensor:
        return torch.stack([parameter.sum() for parameter in model.parameters()]).sum()

    run.step(None, loss)
    for name, value in model.state_dict().items():  # Adam's first step has the size of the rate
        moved = 0.04 if name.startswith("head.") else 0.01
        torch.testing.assert_close(before[name] - value, torch.full_like(value, moved), rtol=1e-4, atol=0)
    run.save()
    again = Run(model, settings, tmp_path, factors={"head.": 4.0})
    again.resume()
    assert [group["factor"] for group in again.optimizer.param_groups] == [1.0, 1.0, 4.0, 4.0]
