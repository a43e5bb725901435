"""The figures of a fit, each as the bytes of a PNG."""

from __future__ import annotations

import io
from typing import Any

import numpy as np

SLICES = 6  # of a map at most, those with most voxels
INK, CURVE, FOUND = "#333333", "#9aa0a6", "#c2410c"


def time_course(curve: Any, found: Any, runs: Any, tr: float) -> bytes:
    """A time course over the curve that it was held to, both with mean 0 and deviation 1; a tick where a run begins."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 1.7), layout="constrained")
    axes = figure.subplots()
    minutes = np.arange(len(curve)) * tr / 60
    axes.fill_between(minutes, 0, _standard(curve), color=CURVE, alpha=0.5, linewidth=0, label="design")
    axes.plot(minutes, _standard(found), color=FOUND, linewidth=0.8, label="found")
    for start in np.flatnonzero(np.diff(runs)) + 1:
        axes.axvline(minutes[start], color=INK, linewidth=0.4)
    axes.set_xlim(0, minutes[-1] if len(minutes) > 1 else 1)
    axes.set_yticks([])
    axes.set_xlabel("minutes", fontsize=8)
    axes.tick_params(labelsize=8)
    axes.legend(loc="upper right", fontsize=7, frameon=False, ncols=2)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    return _png(figure)


def _standard(x: Any) -> Any:
    scale = x.std()
    return (x - x.mean()) / (scale if scale > 0 else 1.0)


def maps(found: Any, index: int, share: float) -> bytes:
    """A condition's map and the GLM's z on axial slices: strong voxels in colour, the mask in grey; left is left."""
    from matplotlib.figure import Figure

    volumes = [_slices(found, values[:, index]) for values in (found.maps, found.z)]
    mask, ratio = _slices(found, np.ones(len(found.maps)))
    chosen = sorted(np.argsort(mask.sum((0, 1)))[::-1][:SLICES].tolist())
    wide, tall = mask.shape[0], mask.shape[1] * ratio
    height = min(3.0, 2.2 * tall / wide) + 0.5
    figure = Figure(figsize=(2.3 * 2 * len(chosen), height), layout="constrained")
    grid = figure.subplots(1, 2 * len(chosen), squeeze=False)[0]
    for side, (name, (volume, _)) in enumerate(zip(("map", "GLM, z"), volumes, strict=True)):
        most = max(float(volume.max()), 1e-12)
        strong = np.ma.masked_less_equal(volume, share * most)
        for place, number in enumerate(chosen):
            axes = grid[side * len(chosen) + place]
            shown = {"origin": "lower", "vmin": 0, "aspect": ratio}
            axes.imshow(mask[:, :, number].T, cmap="Greys", vmax=4, **shown)
            drawn = axes.imshow(strong[:, :, number].T, cmap="autumn", vmax=most, **shown)
            axes.set_axis_off()
            axes.set_title(name if place == 0 else "", fontsize=9, loc="left")
        figure.colorbar(drawn, ax=grid[side * len(chosen) + len(chosen) - 1], shrink=0.8).ax.tick_params(labelsize=7)
    return _png(figure)


def _slices(found: Any, values: Any) -> tuple[Any, float]:
    """A volume with x to the right of the head, y to its front, z up; and a voxel's height over its width."""
    from mmha.data.bold.tables import needs

    nibabel = needs("nibabel")
    whole = np.zeros(found.mask.shape, np.float32)
    whole[found.mask] = values
    image = nibabel.as_closest_canonical(nibabel.Nifti1Image(whole, found.affine))
    size = image.header.get_zooms()
    return np.asarray(image.dataobj), float(size[1] / size[0])


def _png(figure: Any) -> bytes:
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=110, metadata={"Software": None})
    return stream.getvalue()
