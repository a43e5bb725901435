"""A whole brain passes through data, stage 1 and what stage 2 reads in a memory that is stated."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

nibabel = pytest.importorskip("nibabel")
np = pytest.importorskip("numpy")
pytest.importorskip("nilearn")
pytest.importorskip("lightning")

SHAPE, VOLUMES = (40, 48, 34), 300
FIT = """
import resource, sys
import numpy as np
import torch
from mmha.data import bold
from mmha.models import mamsm
from mmha.train.series import sums
from mmha.train.series_fit import Stage
from mmha.train.settings import Settings
import lightning, nilearn.signal

torch.set_num_threads(1)
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
begun = peak()
found = bold.load(sys.argv[1], sys.argv[2])
loaded = peak()
scale = mamsm.Scale.of(found.values)
model = mamsm.MAMSM(mamsm.small(scale.vocabulary, positions=found.values.shape[1] + 2))
stage = Stage(model, scale, found.values, found.lengths, Settings(steps=2, rate=1e-3, rounds=1), sys.argv[3])
stage.batches
stage.run.fit(stage.batches, sums)
fitted = peak()
few = found.values[:128]
mamsm.features(model, scale, few, found.lengths, 3)
print(len(found.values), found.values.nbytes / 2**20, loaded - begun, fitted - begun, peak() - begun)
"""


@pytest.mark.slow
def test_peak_memory_of_a_whole_brain(tmp_path: Path) -> None:
    generator = np.random.default_rng(1)
    inside = np.indices(SHAPE).transpose(1, 2, 3, 0)
    inside = (((inside - np.array(SHAPE) / 2) / (np.array(SHAPE) / 2)) ** 2).sum(-1) < 1
    image = nibabel.Nifti1Image(generator.normal(100, 5, (*SHAPE, VOLUMES)).astype(np.float32), np.eye(4))
    image.header.set_zooms((4, 4, 4, 2.0))
    image.header.set_xyzt_units("mm", "sec")
    image.to_filename(tmp_path / "bold.nii.gz")
    nibabel.Nifti1Image(inside.astype(np.uint8), np.eye(4)).to_filename(tmp_path / "mask.nii.gz")
    arguments = [str(tmp_path / name) for name in ("bold.nii.gz", "mask.nii.gz", "run")]
    run = subprocess.run([sys.executable, "-c", FIT, *arguments], capture_output=True, text=True, check=True)
    voxels, values, loaded, fitted, looked = map(float, run.stdout.split())
    assert voxels == inside.sum()
    # Beside the voxels' values: slabs of volumes and what unpacks them; then their tokens, two bytes each, and a step.
    assert loaded < values + 100
    assert max(fitted, looked) < 1.5 * values + 380
