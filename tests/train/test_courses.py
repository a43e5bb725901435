"""Stage 2: the loss from its formula, the least error that a linear autoencoder can have, kill and resume."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mmha.models.mamsm import Autoencoder
from mmha.train.courses import Guided, Sample, loss, settings

VOXELS, HEADS, TIME, HIDDEN = 7, 2, 29, 5


def data(seed: int = 1) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(VOXELS, HEADS, TIME, generator=generator)
    features -= features.mean(-1, keepdim=True)
    values = torch.randn(VOXELS, TIME, generator=generator)
    return features, values, features[2, 1, :, None] * torch.tensor([1.0, -2.0]) + torch.tensor([3.0, 0.0])


def stage(folder: Path, epochs: int = 13, chosen: Any = None, values: Any = None, **other: Any) -> Guided:
    features, own, curves = data()
    torch.manual_seed(2)
    model = Autoencoder(VOXELS * HEADS, VOXELS, HIDDEN)
    values = own if values is None else values
    return Guided(model, features, values, other.get("curves", curves), settings(epochs, 0.01), folder, chosen)


def test_loss_is_the_squared_error_and_one_less_the_correlation() -> None:
    features, values, curves = data()
    torch.manual_seed(2)
    model = Autoencoder(VOXELS * HEADS, VOXELS, HIDDEN)
    x = features.reshape(-1, TIME).T.numpy().astype(float)
    z = x @ model.encoder.weight.detach().numpy().T.astype(float)
    y = z @ model.decoder.weight.detach().numpy().T.astype(float)
    error = np.mean((y - values.numpy().T) ** 2)
    r = [np.corrcoef(z[:, i], curves[:, i].numpy())[0, 1] for i in range(2)]
    sample = Sample(features.reshape(-1, TIME).T, values.T, curves)
    np.testing.assert_allclose(loss(model, sample).item(), error + 1 - np.mean(r), rtol=1e-5)
    without = Sample(sample.inputs, sample.values, curves[:, :0])
    np.testing.assert_allclose(loss(model, without).item(), error, rtol=1e-5)


def test_without_curves_it_comes_down_to_the_least_error_of_its_rank(tmp_path: Path) -> None:
    features, _, curves = data()
    values = features[:, 0]
    model = Autoencoder(VOXELS * HEADS, VOXELS, 3)
    made = Guided(model, features, values, curves[:, :0], settings(700, 0.02), tmp_path)
    found = made.fit()
    with torch.no_grad():
        error = loss(model, made.sample).item()
    least = np.linalg.svd(values.numpy(), compute_uv=False)[3:] ** 2  # Eckart and Young
    assert least.sum() / values.numel() <= error * (1 + 1e-4)
    assert error < 1.05 * least.sum() / values.numel()
    assert found.r.shape == (0,)


def test_time_courses_follow_the_curves_and_r_is_pearsons(tmp_path: Path) -> None:
    made = stage(tmp_path, 400)
    found = made.fit()
    r = [np.corrcoef(found.hidden[:, i], made.curves[:, i].numpy())[0, 1] for i in range(2)]
    np.testing.assert_allclose(found.r, r, atol=1e-6)
    assert min(r) > 0.95


def test_volumes_that_are_not_chosen_have_no_influence(tmp_path: Path) -> None:
    chosen = np.arange(TIME) < 19
    _, values, curves = data()
    other, others = values.clone(), curves.clone()
    other[:, 19:], others[19:] = 9.0, -9.0
    first, second = stage(tmp_path / "a", chosen=chosen), stage(tmp_path / "b", 13, chosen, other, curves=others)
    a, b = first.fit(), second.fit()
    np.testing.assert_array_equal(a.hidden, b.hidden)
    assert a.hidden.shape == (TIME, HIDDEN)
    np.testing.assert_array_equal(a.r, first.r(a.hidden, chosen))


def test_killed_and_resumed_is_the_same(tmp_path: Path) -> None:
    whole = stage(tmp_path / "whole").fit()

    def kill(progress: Any) -> None:
        if progress.step == 7:
            raise RuntimeError("killed")

    cut = stage(tmp_path / "cut")
    with pytest.raises(RuntimeError, match="killed"):
        cut.fit(show=kill)
    assert (tmp_path / "cut" / "state.json").exists()
    again = stage(tmp_path / "cut").fit(resume=True)
    np.testing.assert_array_equal(again.hidden, whole.hidden)
    assert again.progress.step == 13


def test_a_run_on_other_data_is_not_gone_on_with(tmp_path: Path) -> None:
    stage(tmp_path).fit()
    with pytest.raises(ValueError, match="expected a run with data = "):
        stage(tmp_path, values=torch.zeros(VOXELS, TIME)).fit(resume=True)


def test_guided_names_what_does_not_fit(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"`curves`: expected at most 5, a hidden time course for each, got 6"):
        stage(tmp_path, curves=torch.zeros(TIME, 6))
    with pytest.raises(ValueError, match=r"`values`: expected shape \(voxels, T\) = \(7, 29\), got \(7, 28\)"):
        stage(tmp_path, values=torch.zeros(VOXELS, 28))
    with pytest.raises(ValueError, match=r"`chosen`: expected shape \(T,\) = \(29,\), got \(3,\)"):
        stage(tmp_path, chosen=[True] * 3)
