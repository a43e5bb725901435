"""NIfTI images of runs, read a slab of volumes at a time, as one row of numbers a voxel."""

from __future__ import annotations

import math
import warnings
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mmha import checks
from mmha.data.bold import clean
from mmha.data.bold.tables import needs

Floats = np.ndarray[Any, np.dtype[np.float32]]
Flags = np.ndarray[Any, np.dtype[np.bool_]]
Paths = str | Path | Sequence[str | Path]

SLAB = 1 << 23  # numbers that are unpacked at a time: 64 MB where a header's scale makes them float64
SHORTEST, LONGEST = 0.05, 30.0  # seconds between volumes; beyond these a header counts in milliseconds, or in nothing
DENSEST = 1032  # bytes that one byte of a .gz can become
ENDS_EARLY = "expected a whole image, got a file that ends early or is damaged"
UNITS = {"sec": 1.0, "msec": 1e-3, "usec": 1e-6, "unknown": 1.0}


@dataclass(frozen=True)
class Bold:
    """The signal of each voxel of a mask, over all runs, one after the other.

    values: float32 (voxels, T), in the order of `numpy.nonzero(mask)`. tr: seconds between volumes. mask: bool (X, Y,
    Z). affine: float64 (4, 4), from indices of voxels to millimetres. runs: int64 (T,), the run of each volume: 0, 1, …
    mean: float32 (X, Y, Z), the mean of all volumes as they were read, to draw on; None for data that were not read.
    """

    values: Floats
    tr: float
    mask: Flags
    affine: np.ndarray[Any, np.dtype[np.float64]]
    runs: np.ndarray[Any, np.dtype[np.int64]]
    mean: Floats | None = None

    @property
    def lengths(self) -> list[int]:
        """How many volumes each run has."""
        return [int(n) for n in np.bincount(self.runs)]


def load(
    bold: Paths,
    mask: str | Path | None = None,
    tr: float | None = None,
    runs: Sequence[int] | None = None,
    confounds: Paths | None = None,
    *,
    detrend: bool = True,
    standardize: bool = True,
    drop: bool = False,
) -> Bold:
    """The signals of the voxels in a mask, cleaned run by run.

    Args:
        bold: a 4-D NIfTI image (X, Y, Z, T), or several, one a run. Volumes are read a slab at a time: no copy of the
            whole image is made.
        mask: a 3-D image on the same grid, voxels > 0 are in; None = found by nilearn from the mean volume.
        tr: seconds between volumes; None = as the header says.
        runs: the run of each volume, int (T,), for runs that stand in one file; None = every file is a run.
        confounds: tables with a line a volume (.tsv, .csv), as many as there are images: taken out by regression.
        detrend: take out a straight line; standardize: mean 0, deviation 1 (of the sample); both in each run.
        drop: leave voxels that are constant, or not finite, out of the mask, where they else are an error.

    Returns: `Bold`.
    Raises: ValueError or TypeError naming the file or argument, what was expected and what came: images that are no
        NIfTI, not 4-D, cut off, of several sizes, affines or TR; a TR that is missing, 0 or implausible; a mask of
        another shape or without voxels; NaN or constant voxels; confounds that are no numbers. OSError for a file that
        cannot be read; ImportError without nibabel or nilearn.

    >>> load("nowhere.nii.gz")
    Traceback (most recent call last):
    ...
    FileNotFoundError: nowhere.nii.gz: no such file
    """
    images = [_open(path) for path in _listed(bold)]
    first, name = images[0], _listed(bold)[0]
    for path, other in zip(_listed(bold)[1:], images[1:], strict=True):
        _same_grid(path, other, name, first)
    seconds = [_tr(path, one, tr) for path, one in zip(_listed(bold), images, strict=True)]
    same = max(seconds) - min(seconds) < 1e-3
    checks.require(same, "bold", "one TR in all runs", f"{min(seconds):g} to {max(seconds):g} s")
    lengths = _volumes(images)
    numbers = clean.run_numbers(runs, lengths)
    table = None if confounds is None else clean.confounds(_listed(confounds), lengths)
    inside = _automatic(images) if mask is None else _mask(mask, first)
    values, mean = _extract(images, inside)
    inside, values = _usable(inside, values, numbers, drop)
    clean.clean(values, numbers, table, detrend=detrend, standardize=standardize)
    return Bold(values, seconds[0], inside, np.asarray(first.affine, np.float64), numbers, mean)


def volumes(bold: Paths) -> list[int]:
    """How many volumes each image has. Raises: as `load`, of images that are none."""
    return _volumes([_open(path) for path in _listed(bold)])


def volume(path: str | Path) -> tuple[Floats, np.ndarray[Any, np.dtype[np.float64]]]:
    """The numbers of a 3-D image, float32 (X, Y, Z), and its affine, float64 (4, 4). Raises: as `load`, of an image."""
    found = _open(Path(path), 3)
    values = np.asarray(_read(Path(path), found.dataobj, slice(None)), np.float32)
    return values.reshape(found.shape[:3]), np.asarray(found.affine, np.float64)


def image(values: Any, bold: Bold) -> Any:
    """An image of numbers of voxels, 0 outside the mask, to be written by `nibabel.save`.

    Args: values (voxels,) → a 3-D image, or (voxels, n) → a 4-D one of n volumes.
    Returns: a nibabel Nifti1Image, float32, on the grid of the data.
    Raises: ValueError for another number of voxels.
    """
    nibabel = needs("nibabel")
    given = np.asarray(values, np.float32)
    count = int(bold.mask.sum())
    fits = given.ndim in (1, 2) and given.shape[0] == count
    checks.require(fits, "values", f"({count},) or ({count}, n), a row a voxel", checks.shape_text(given.shape))
    whole = np.zeros(bold.mask.shape + given.shape[1:], np.float32)
    whole[bold.mask] = given
    made = nibabel.Nifti1Image(whole, bold.affine)
    made.header.set_xyzt_units("mm", "sec")
    return made


def _listed(paths: Paths) -> list[Path]:
    listed = [Path(paths)] if isinstance(paths, (str, Path)) else [Path(path) for path in paths]
    checks.require(len(listed) > 0, "bold", "at least one image", "none")
    return listed


def _open(path: Path, dimensions: int = 4) -> Any:
    """The image with its numbers still in the file."""
    nibabel = needs("nibabel")
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    try:
        found = nibabel.load(path, keep_file_open=True)  # else each slab would unpack the file from its beginning
        shape, kind = tuple(getattr(found, "shape", ())), np.dtype(found.get_data_dtype())
        affine = np.asarray(found.affine, np.float64)
    except (  # HeaderDataError is no ValueError, and a code that nibabel does not know is a KeyError
        nibabel.filebasedimages.ImageFileError, nibabel.spatialimages.HeaderDataError, AttributeError, KeyError,
        ValueError, OverflowError, EOFError, OSError, zlib.error,
    ) as error:  # fmt: skip
        raise ValueError(f"{path}: expected a NIfTI image, got another or a damaged file ({_line(error)})") from None
    if dimensions == 3 and len(shape) > 3 and set(shape[3:]) == {1}:
        shape = shape[:3]
    if len(shape) != dimensions or min(shape) < 1:
        letters = "(X, Y, Z, T)" if dimensions == 4 else "(X, Y, Z)"
        raise ValueError(f"{path}: expected a {dimensions}-D image {letters}, got shape {checks.shape_text(shape)}")
    if kind.kind not in "iuf":
        raise ValueError(f"{path}: expected an image of real numbers, got {kind}")
    if not np.isfinite(affine).all():
        raise ValueError(f"{path}: expected an affine of finite numbers, got NaN or infinity")
    if np.linalg.matrix_rank(affine[:3, :3] / np.abs(affine[:3, :3]).max(0).clip(1e-30)) < 3:
        raise ValueError(f"{path}: expected an affine with voxels of some extent, got one that makes them flat")
    # What a header claims takes memory: no more of it than the file can hold.
    most = path.stat().st_size * {".nii": 1, ".gz": DENSEST}.get(path.suffix, DENSEST)
    if math.prod(shape) * kind.itemsize > most:
        raise ValueError(f"{path}: {ENDS_EARLY}")
    return found


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:160] or type(error).__name__


def _same_grid(path: Path, other: Any, name: object, first: Any) -> None:
    """Raise unless both images have voxels at the same places."""
    want, have = tuple(first.shape[:3]), tuple(other.shape[:3])
    if want != have:
        raise ValueError(f"{path}: expected the grid of {name}, {checks.shape_text(want)}, got {have}")
    if not np.allclose(first.affine, other.affine, atol=1e-3):
        raise ValueError(f"{path}: expected the affine of {name}, got another: resample one of them")


def _tr(path: Path, found: Any, given: float | None) -> float:
    """Seconds between volumes, as given or as the header says."""
    wanted = f"seconds between volumes, {SHORTEST:g} to {LONGEST:g}"
    if given is not None:
        fits = SHORTEST <= checks.number("tr", given) <= LONGEST
        checks.require(fits, "tr", wanted, float(given))
        return float(given)
    zooms = found.header.get_zooms()
    try:
        units = found.header.get_xyzt_units()[1] if hasattr(found.header, "get_xyzt_units") else "unknown"
    except KeyError:
        units = "of an unknown unit"
    said = float(zooms[3]) if len(zooms) > 3 else 0.0
    seconds = said * UNITS.get(units, 0.0)
    if not SHORTEST <= seconds <= LONGEST:
        raise ValueError(f"{path}: expected a TR in the header, {wanted}, got {said:g} {units}: give tr")
    return round(seconds, 6)


def _mask(path: str | Path, first: Any) -> Flags:
    _same_grid(Path(path), _open(Path(path), 3), "the data", first)
    inside = volume(path)[0] > 0
    if not inside.any():
        raise ValueError(f"{path}: expected a mask with voxels > 0, got none")
    return np.asarray(inside)


def _read(path: Path, proxy: Any, part: Any) -> Any:
    """Some of the numbers of a file, which may end too early."""
    try:
        return proxy[part]
    except (EOFError, OSError, ValueError, OverflowError, zlib.error) as error:
        raise ValueError(f"{path}: {ENDS_EARLY}") from error


def _slabs(found: Any) -> Iterator[tuple[int, Any]]:
    """The volumes, a few at a time, and the number of the first of them."""
    step = max(1, SLAB // int(np.prod(found.shape[:3])))
    for start in range(0, found.shape[3], step):
        yield start, _read(Path(found.get_filename()), found.dataobj, (..., slice(start, start + step)))


def _automatic(images: Sequence[Any]) -> Flags:
    """The mask that nilearn finds in the mean volume."""
    nibabel, masking = needs("nibabel"), needs("nilearn.masking")
    total = np.zeros(images[0].shape[:3])
    for one in images:
        for _, slab in _slabs(one):
            total += slab.sum(-1, dtype=np.float64)
    mean = nibabel.Nifti1Image(total / sum(one.shape[3] for one in images), images[0].affine)
    inside = np.zeros(total.shape, bool)
    for opening in (2, 1, False):  # opening takes so many voxels off all sides first: of a few slices nothing is left
        if not inside.any():
            with warnings.catch_warnings():  # of an empty mask
                warnings.simplefilter("ignore")
                inside = np.asarray(masking.compute_epi_mask(mean, opening=opening).dataobj) > 0
    checks.require(bool(inside.any()), "mask", "voxels to be found in the mean volume", "none: give a mask")
    return inside


def _volumes(images: Sequence[Any]) -> list[int]:
    return [int(one.shape[3]) for one in images]


def _extract(images: Sequence[Any], inside: Flags) -> tuple[Floats, Floats]:
    """The signals of the voxels in the mask, and the mean volume."""
    count = sum(_volumes(images))
    values = np.empty((int(inside.sum()), count), np.float32)
    total = np.zeros(inside.shape)
    at = 0
    for one in images:
        for start, slab in _slabs(one):
            values[:, at + start : at + start + slab.shape[3]] = slab[inside]
            total += slab.sum(-1, dtype=np.float64)
        at += one.shape[3]
    return values, (total / count).astype(np.float32)


def _usable(inside: Flags, values: Floats, runs: Any, drop: bool) -> tuple[Flags, Floats]:
    """The voxels that are finite and vary in every run, which have to be all of them unless some may be dropped."""
    finite, varying = clean.finite(values), clean.varying(values, runs)
    places = np.argwhere(inside)
    if not drop:
        for good, kind, expected in (
            (finite, "with NaN or Inf", "finite numbers"),
            (varying, "constant over a run", "a signal that varies"),
        ):
            if not good.all():
                where = tuple(int(n) for n in places[~good][0])
                got = f"{int((~good).sum())} {kind}, the first at {where}: leave them out of the mask (drop=True)"
                raise checks.value_error("bold", f"{expected} in each of {len(good)} voxels", got)
    kept = finite & varying
    checks.require(bool(kept.any()), "bold", "a voxel that is finite and varies", f"none of {len(kept)}")
    if kept.all():
        return inside, values
    rest = np.zeros_like(inside)
    rest[tuple(places[kept].T)] = True
    return rest, values[kept]
