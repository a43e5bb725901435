"""What the row of attention of [CLS] depends on: where a value stands, what it is, or what stands around it."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from fmri_methods import Data

from mmha.models import mamsm
from mmha.models.mamsm.attended import standardise

BINS = 60  # into which values are put, to tell what share of the variance they explain


def looks(data: Data, model: mamsm.MAMSM, scale: mamsm.Scale, features: dict[str, torch.Tensor]) -> dict[str, Any]:
    """Of runs that are all of one length.

    effective: the number of volumes that [CLS] looks at, exp of the entropy of its weights, of so many. place, value:
    the shares of the variance of log w, head by head, that the volume's number in its run and then its value explain.
    kept: R² of a voxel's own smoothed signal from its heads' features, less what is theirs for the place in all voxels
    and runs, with weights that all voxels share.
    """
    length = data.lengths[0]
    tokens = scale.encode(data.values).reshape(-1, length)
    rows = torch.cat([model.attention_of_cls(part) for part in torch.split(tokens, 128)])
    p = (rows / rows.sum(-1, keepdim=True)).double().clamp(min=1e-30)
    logs = p.log() - p.log().mean(-1, keepdim=True)
    place = logs.mean(0)
    left = logs - place
    bins = (tokens - scale.first) * BINS // scale.vocabulary
    counts = torch.bincount(bins.flatten(), minlength=BINS).clamp(min=1)
    shares = []
    for head in range(left.shape[1]):
        sums = torch.zeros(BINS, dtype=torch.float64).index_add_(0, bins.flatten(), left[:, head].flatten())
        shares.append(float((sums / counts)[bins].var() / logs[:, head].var()))
    return {
        "volumes": length,
        "effective": round(float((-(p * p.log()).sum(-1)).exp().mean()), 1),
        "place": round(float((place.var(-1) / logs.var((0, 2))).mean()), 3),
        "value": round(float(np.mean(shares)), 3),
        "kept": {name: round(kept(data, made), 3) for name, made in features.items()},
    }


def kept(data: Data, features: torch.Tensor) -> float:
    """R² of the voxels' own signals, smoothed as features are, from the features of their heads."""
    smooth = mamsm.moving_average(torch.from_numpy(data.values), mamsm.window(data.tr), data.lengths)
    y = standardise(smooth, data.lengths).double().flatten().numpy()
    by_run = features.double().unflatten(-1, (len(data.lengths), -1))
    by_run = by_run - by_run.mean((0, 2), keepdim=True)
    x = by_run.flatten(-2).permute(0, 2, 1).flatten(0, 1).numpy()
    rest = y - x @ np.linalg.lstsq(x, y, rcond=None)[0]
    return 1 - float(np.square(rest).sum() / np.square(y).sum())
