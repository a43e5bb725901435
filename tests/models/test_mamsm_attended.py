"""What goes into stage 2: attention of [CLS], smoothed and standardised run by run."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mmha.models.mamsm import MAMSM, Config, Scale, features, moving_average, window
from mmha.models.mamsm.attended import standardise


def brute(x: np.ndarray, width: int, passes: int) -> np.ndarray:
    for _ in range(passes):
        rows = [x[max(0, t - width // 2) : t + (width - 1) // 2 + 1].mean() for t in range(len(x))]
        x = np.array(rows)
    return x


@pytest.mark.parametrize(("width", "passes"), [(1, 3), (2, 1), (3, 3), (10, 3), (29, 2)])
def test_moving_average_is_the_mean_around_each_value_of_its_run(width: int, passes: int) -> None:
    x = torch.randn(3, 19, generator=torch.Generator().manual_seed(1))
    found = moving_average(x, width, [11, 7, 1], passes)
    wanted = [np.concatenate([brute(p, width, passes) for p in np.split(row, [11, 18])]) for row in x.double().numpy()]
    torch.testing.assert_close(found, torch.tensor(np.array(wanted)).float())


def test_moving_average_of_a_constant_is_the_constant_up_to_the_ends() -> None:
    assert moving_average(torch.full((2, 13), 3.0), 10, [13]).eq(3.0).all()


def test_moving_average_of_nothing() -> None:
    assert moving_average(torch.zeros(0, 5), 3, [5]).shape == (0, 5)
    assert moving_average(torch.zeros(2, 0), 3, []).shape == (2, 0)


def test_moving_average_names_what_does_not_fit() -> None:
    with pytest.raises(ValueError, match="`lengths`: expected lengths of sum T = 5, got sum 7"):
        moving_average(torch.zeros(5), 3, [7])
    with pytest.raises(ValueError, match="`width`: expected an integer >= 1, got 0"):
        moving_average(torch.zeros(5), 0, [5])


def test_window_is_ten_volumes_at_the_published_tr() -> None:
    assert window(0.72) == 10


def test_standardise_run_by_run() -> None:
    x = torch.randn(2, 3, 12, generator=torch.Generator().manual_seed(2)) * 5 + 7
    x[1, 2, :5] = 4.0
    found = standardise(x, [5, 7])
    assert found[1, 2, :5].eq(0).all()
    for part in (found[0, :, :5], found[..., 5:]):
        torch.testing.assert_close(part.mean(-1), torch.zeros(part.shape[:-1]), atol=1e-6, rtol=0)
        torch.testing.assert_close(part.square().mean(-1), torch.ones(part.shape[:-1]))


@pytest.fixture
def model() -> MAMSM:
    torch.manual_seed(3)
    return MAMSM(Config(vocabulary=25, width=14, layers=2, heads=3, head_dim=5, hidden=11, positions=20))


@pytest.mark.parametrize("published", [False, True])
def test_features_are_the_attention_of_each_run_alone(
    model: MAMSM, monkeypatch: pytest.MonkeyPatch, published: bool
) -> None:
    values = np.random.default_rng(4).normal(size=(7, 16)).astype(np.float32)
    scale = Scale.of(values, 0.05)
    model.train()
    done: list[int] = []
    found = features(model, scale, values, [11, 5], width=3, show=done.append, published=published)
    assert model.training
    assert done == [7]
    model.eval()
    parts = [model.attention_of_cls(scale.encode(values[:, at])) for at in (slice(0, 11), slice(11, 16))]
    for part, at in zip(parts, (slice(0, 11), slice(11, 16)), strict=True):
        length = part.shape[-1]
        if not published:
            part = part.log()
        wanted = moving_average(part, 3, [length])
        wanted = (wanted - wanted.mean(-1, keepdim=True)) / wanted.std(-1, keepdim=True, correction=0)
        torch.testing.assert_close(found[..., at], wanted, atol=1e-4, rtol=1e-4)
    monkeypatch.setattr("mmha.models.mamsm.attended.CHUNK", 32)  # two voxels at a time
    again = features(model, scale, values, [11, 5], width=3, published=published)
    torch.testing.assert_close(again, found, atol=1e-4, rtol=0)


def test_a_faithful_model_gives_the_weights() -> None:
    torch.manual_seed(3)
    faithful = MAMSM(Config(25, width=14, layers=1, heads=3, head_dim=5, hidden=11, positions=20, faithful=True))
    values = np.random.default_rng(4).normal(size=(3, 7)).astype(np.float32)
    scale = Scale.of(values, 0.05)
    found = features(faithful, scale, values, [7], 1)
    torch.testing.assert_close(found, features(faithful, scale, values, [7], 1, published=True))
    assert not torch.allclose(found, features(faithful, scale, values, [7], 1, published=False))


def test_features_of_no_voxels(model: MAMSM) -> None:
    assert features(model, Scale(0.0, 1.0, 0.05), np.zeros((0, 5), np.float32), [5], width=3).shape == (0, 3, 5)


def test_features_name_lengths_that_do_not_fit(model: MAMSM) -> None:
    with pytest.raises(ValueError, match="`lengths`: expected lengths of sum T = 5, got sum 6"):
        features(model, Scale(0.0, 1.0, 0.05), np.zeros((2, 5), np.float32), [6], width=3)
