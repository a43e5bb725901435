"""What a fit leaves in its folder: result.json, time_courses.tsv and the images; written whole, read with care.

maps.nii.gz (X, Y, Z, n) has the weights of the spatial maps, glm.nii.gz the z of the general linear model,
mask.nii.gz the voxels, background.nii.gz, on a grid of its own, what maps are drawn on. time_courses.tsv has a line a
volume: run, volume, seconds, then for each condition i its curve in the design and the time course that was found.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mmha import checks

RESULT, COURSES, MAPS, GLM, MASK = "result.json", "time_courses.tsv", "maps.nii.gz", "glm.nii.gz", "mask.nii.gz"
BACKGROUND = "background.nii.gz"


@dataclass(frozen=True)
class Found:
    """A fit: result, as `--json` prints it; curves and courses float64 (T, n); runs int (T,); maps, z (voxels, n); the
    mask and its affine are those of `Bold`; background float32 (X', Y', Z'), to draw on, and its affine."""

    result: dict[str, Any]
    runs: Any
    curves: Any
    courses: Any
    maps: Any
    z: Any
    mask: Any
    affine: Any
    background: Any
    background_affine: Any


def write(folder: Path, found: Found) -> None:
    """All files, each whole or not at all, result.json last. Raises: OSError when the folder cannot be written."""
    from mmha import checkpoint

    checkpoint.write(folder / COURSES, _table(found).encode())
    for name, values in ((MAPS, found.maps), (GLM, found.z)):
        checkpoint.write(folder / name, _image(found, values))
    checkpoint.write(folder / MASK, _image(found, np.ones(len(found.maps))))
    checkpoint.write(folder / BACKGROUND, _packed(found.background, found.background_affine))
    text = json.dumps(found.result, indent=1, ensure_ascii=False) + "\n"
    checkpoint.write(folder / RESULT, text.encode())


def _table(found: Found) -> str:
    text = io.StringIO()
    lines = csv.writer(text, delimiter="\t", lineterminator="\n")
    names = [row["name"] for row in found.result["conditions"]]
    lines.writerow(["run", "volume", "seconds", *(f"{kind}: {name}" for name in names for kind in ("design", "found"))])
    tr, volume, before = found.result["tr"], 0, -1
    for at, run in enumerate(found.runs.tolist()):
        volume, before = (0 if run != before else volume + 1), run
        pairs = np.stack([found.curves[at], found.courses[at]], 1).ravel()
        lines.writerow([run + 1, volume, f"{volume * tr:g}", *(f"{x:.6g}" for x in pairs)])
    return text.getvalue()


def _image(found: Found, values: Any) -> bytes:
    whole = np.zeros((*found.mask.shape, *values.shape[1:]), np.float32)
    whole[found.mask] = values
    return _packed(whole, found.affine)


def _packed(whole: Any, affine: Any) -> bytes:
    from mmha.data.bold.tables import needs

    image = needs("nibabel").Nifti1Image(whole, affine)
    image.header.set_xyzt_units("mm", "sec")
    return gzip.compress(image.to_bytes(), mtime=0)


def read(folder: Path) -> Found:
    """What `write` wrote.

    Raises: ValueError naming the file when there is no fit in the folder, or files do not go together.
    """
    from mmha.data.bold import tables

    path = folder / RESULT
    if not path.is_file():
        raise ValueError(f"{folder}: expected what `mmha fmri fit` wrote, got no {RESULT}: fit first, or --resume")
    try:
        result = json.loads(path.read_text("utf-8"))
        names = [str(row["name"]) for row in result["conditions"]]
        [float(row[key]) for row in result["conditions"] for key in ("r", "iou", "chance", "z", "voxels")]
        float(result["tr"])
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path}: expected what `mmha fmri fit` wrote, got a damaged document ({error})") from None
    cells = tables.cells(folder / COURSES)
    wanted = ["run", "volume", "seconds", *(f"{kind}: {name}" for name in names for kind in ("design", "found"))]
    if list(cells) != wanted:
        raise ValueError(f"{folder / COURSES}: expected the columns of {RESULT}, {len(wanted)}, got others")
    table = np.stack([tables.column(folder / COURSES, name, cells[name]) for name in wanted], 1)
    mask, affine = _volume(folder / MASK, 3)
    inside = mask > 0
    maps, z = (_volume(folder / name, 4)[0] for name in (MAPS, GLM))
    for name, image in ((MAPS, maps), (GLM, z)):
        checks.require(
            image.shape == (*mask.shape, len(names)),
            str(folder / name),
            f"{len(names)} maps on the mask's grid",
            checks.shape_text(image.shape),
        )
    runs, curves, courses = table[:, 0].astype(int) - 1, table[:, 3::2], table[:, 4::2]
    background = _volume(folder / BACKGROUND, 3)
    return Found(result, runs, curves, courses, maps[inside], z[inside], inside, affine, *background)


def _volume(path: Path, dimensions: int) -> tuple[Any, Any]:
    from mmha.data.bold.tables import needs

    nibabel = needs("nibabel")
    if not path.is_file():
        raise FileNotFoundError(2, "no such file", str(path))
    try:
        image = nibabel.load(path)
        values = np.asarray(image.dataobj, np.float32)
    except (nibabel.filebasedimages.ImageFileError, ValueError, EOFError, OSError) as error:
        raise ValueError(f"{path}: expected a NIfTI image, got another or a damaged file ({error})") from None
    checks.require(values.ndim == dimensions, str(path), f"a {dimensions}-D image", checks.shape_text(values.shape))
    return values, np.asarray(image.affine, np.float64)
