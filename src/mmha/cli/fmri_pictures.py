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
    """A condition's map and the GLM's z on axial slices of the background: strong voxels in colour; left is left."""
    from matplotlib.figure import Figure

    from mmha.data.bold.tables import needs

    nibabel, plotting = needs("nibabel"), needs("nilearn.plotting")
    heights, shape = _slices(found)
    each = 2.9 if len(heights) == 1 else 1.9
    figure = Figure(figsize=(2 * (each * len(heights) + 1.1), max(1.0, each * min(shape, 1.6)) + 0.45))
    background = nibabel.Nifti1Image(found.background, found.background_affine)
    for side, (name, values) in enumerate((("map", found.maps[:, index]), ("GLM, z", found.z[:, index]))):
        whole = np.zeros(found.mask.shape, np.float32)
        whole[found.mask] = values
        most = max(float(values.max(initial=0.0)), 1e-6)
        drawn = {"cmap": "autumn", "vmin": 0.0, "vmax": most, "threshold": share * most, "symmetric_cbar": False}
        whole = np.maximum(whole, 0.0)  # a network is what is positive
        plotting.plot_stat_map(
            nibabel.Nifti1Image(whole, found.affine),
            bg_img=background,
            display_mode="z",
            cut_coords=heights,
            figure=figure,
            axes=(side / 2, 0.0, 0.49, 0.88),
            black_bg=False,
            resampling_interpolation="nearest",
            **drawn,
        )
        figure.text(side / 2 + 0.005, 0.92, name, fontsize=9)
    return _png(figure)


def _slices(found: Any) -> tuple[list[float], float]:
    """The heights, in mm, of the axial slices with most voxels in the mask; and how long a slice is over how wide."""
    from mmha.data.bold.tables import needs

    nibabel = needs("nibabel")
    image = nibabel.as_closest_canonical(nibabel.Nifti1Image(found.mask.astype(np.uint8), found.affine))
    mask = np.asarray(image.dataobj) > 0
    chosen = np.argsort(mask.sum((0, 1)), kind="stable")[::-1][:SLICES]
    places = {int(k): np.argwhere(mask[:, :, k]) for k in chosen}
    found_at = [
        float(np.mean(nibabel.affines.apply_affine(image.affine, np.c_[at, np.full(len(at), k)])[:, 2]))
        for k, at in places.items()
        if len(at)
    ]
    size = image.header.get_zooms()
    return sorted(found_at), float(mask.shape[1] * size[1] / (mask.shape[0] * size[0]))


def _png(figure: Any) -> bytes:
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=110, metadata={"Software": None})
    return stream.getvalue()
