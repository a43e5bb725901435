"""fMRI runs: what is read equals numpy's own detrending and scaling, and each kind of bad input is one clear line."""

from __future__ import annotations

import gzip
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

nibabel = pytest.importorskip("nibabel")
pytest.importorskip("nilearn")

from mmha.data import bold  # noqa: E402
from mmha.data.bold import clean, images  # noqa: E402

SHAPE, T = (5, 3, 2), 13
AFFINE = np.diag([3.0, 3.0, 4.0, 1.0])


def volumes(seed: int = 1, length: int = T, shape: tuple[int, ...] = SHAPE) -> Any:
    draw = np.random.default_rng(seed)
    return (1000 + 50 * draw.normal(size=(*shape, length)) + 9 * np.arange(length)).astype(np.float32)


def write(path: Path, data: Any, *, tr: float = 2.5, units: str = "sec", affine: Any = AFFINE, **kind: Any) -> Path:
    image = nibabel.Nifti1Image(data, affine, **kind)
    if data.ndim == 4:
        image.header.set_zooms((3, 3, 4, tr))
        image.header.set_xyzt_units("mm", units)
    nibabel.save(image, path)
    return path


def mask_of(path: Path, shape: tuple[int, ...] = SHAPE, without: tuple[int, ...] = (2, 1, 0)) -> Path:
    inside = np.ones(shape, np.uint8)
    inside[without] = 0
    return write(path, inside)


def cleaned(rows: Any) -> Any:
    """A straight line taken out, mean 0 and sample deviation 1, in float64."""
    line = np.stack([np.ones(rows.shape[1]), np.arange(rows.shape[1])], 1)
    rest = rows.T - line @ np.linalg.lstsq(line, rows.T.astype(float), rcond=None)[0]
    return (rest / rest.std(0, ddof=1)).T


def test_voxels_by_time_cleaned_run_by_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "SLAB", 70)  # two volumes at a time
    first, second = volumes(1), volumes(2, 11)
    paths = [write(tmp_path / "a.nii.gz", first), write(tmp_path / "b.nii", second)]
    found = bold.load(paths, mask_of(tmp_path / "mask.nii.gz"))
    inside = np.ones(SHAPE, bool)
    inside[2, 1, 0] = False
    wanted = np.concatenate([cleaned(first[inside]), cleaned(second[inside])], 1)
    np.testing.assert_allclose(found.values, wanted, atol=2e-5)
    assert found.values.dtype == np.float32
    assert (found.tr, found.lengths, found.runs.tolist()) == (2.5, [13, 11], [0] * 13 + [1] * 11)
    np.testing.assert_array_equal(found.mask, inside)
    np.testing.assert_array_equal(found.affine, AFFINE)
    raw = bold.load(paths, tmp_path / "mask.nii.gz", detrend=False, standardize=False)
    np.testing.assert_array_equal(raw.values, np.concatenate([first[inside], second[inside]], 1))
    one = write(tmp_path / "one.nii.gz", np.concatenate([first, second], 3))
    runs = bold.load(one, tmp_path / "mask.nii.gz", runs=[4] * 13 + [2] * 11)
    np.testing.assert_array_equal(runs.values, found.values)


def test_integers_with_a_scale_in_the_header_and_milliseconds(tmp_path: Path) -> None:
    data = volumes().round().astype(np.int16)
    image = nibabel.Nifti1Image(data, AFFINE)
    image.header.set_slope_inter(0.5, -3)
    image.header.set_zooms((3, 3, 4, 720))
    image.header.set_xyzt_units("mm", "msec")
    nibabel.save(image, tmp_path / "a.nii.gz")
    found = bold.load(tmp_path / "a.nii.gz", mask_of(tmp_path / "m.nii"), detrend=False, standardize=False)
    want = nibabel.load(tmp_path / "a.nii.gz").get_fdata()[found.mask]
    np.testing.assert_allclose(found.values, want, rtol=1e-6)
    assert found.tr == 0.72


def test_no_copy_of_the_whole_image_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "SLAB", 1 << 15)
    monkeypatch.setattr(clean, "CHUNK", 1 << 13)
    shape, length = (31, 29, 7), 97  # 610,421 numbers: 1.2 MB in the file, 4.9 MB in float64
    path = write(tmp_path / "a.nii.gz", volumes(1, length, shape).astype(np.int16))
    inside = np.zeros(shape, np.uint8)
    inside[::7, ::7] = 1
    bold.load(path, write(tmp_path / "m.nii", inside))  # what is imported at first use does not count
    tracemalloc.start()
    try:
        found = bold.load(path, tmp_path / "m.nii")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert found.values.shape == (175, length)
    assert peak < 1_000_000


def test_confounds_are_regressed_out(tmp_path: Path) -> None:
    draw = np.random.default_rng(5)
    moved, data = draw.normal(size=(2, T)), volumes()
    data += 300 * moved[0] - 200 * moved[1]
    path, table = write(tmp_path / "a.nii", data), tmp_path / "confounds.tsv"
    table.write_text("x\ty\n" + "\n".join(f"{a}\t{b}" for a, b in moved.T))
    found = bold.load(path, mask_of(tmp_path / "m.nii"), confounds=table)
    left = found.values @ cleaned(moved).T / T
    assert abs(left).max() < 1e-5
    plain = bold.load(path, tmp_path / "m.nii")
    assert abs(plain.values @ cleaned(moved).T / T).max() > 0.5


def test_a_mask_is_found_and_an_image_written_on_the_same_grid(tmp_path: Path) -> None:
    data = volumes(shape=(11, 11, 1))
    data[:3] *= 0.01
    found = bold.load(write(tmp_path / "a.nii", data))
    assert found.mask[3:].all()
    assert not found.mask[:3].any()
    numbers = np.arange(2.0 * found.mask.sum()).reshape(-1, 2)
    nibabel.save(bold.image(numbers, found), tmp_path / "map.nii.gz")
    back = nibabel.load(tmp_path / "map.nii.gz")
    np.testing.assert_array_equal(back.get_fdata()[found.mask], numbers)
    assert back.get_fdata()[~found.mask].max() == 0
    np.testing.assert_array_equal(back.affine, AFFINE)
    with pytest.raises(ValueError, match=r"^`values`: expected \(88,\) or \(88, n\), a row a voxel, got \(3,\)$"):
        bold.image(np.zeros(3), found)


Make = Callable[[Path], dict[str, Any]]


def _three(folder: Path) -> dict[str, Any]:
    return {"bold": write(folder / "a.nii", volumes()[..., 0])}


def _cut_off(folder: Path) -> dict[str, Any]:
    whole = write(folder / "whole.nii.gz", volumes(length=401)).read_bytes()
    (folder / "a.nii.gz").write_bytes(whole[: len(whole) // 2])
    return {"bold": folder / "a.nii.gz"}


def _cut_off_inside(folder: Path) -> dict[str, Any]:
    content = gzip.decompress(write(folder / "whole.nii.gz", volumes()).read_bytes())
    (folder / "a.nii").write_bytes(content[:-7])
    return {"bold": folder / "a.nii"}


def _text(folder: Path) -> dict[str, Any]:
    (folder / "a.nii.gz").write_text("not an image")
    return {"bold": folder / "a.nii.gz"}


def _claims_much(folder: Path) -> dict[str, Any]:
    content = bytearray(write(folder / "whole.nii", volumes()).read_bytes())
    content[42:50] = np.array([30000, 30000, 30000, 1000], "<i2").tobytes()  # X, Y, Z and T
    with gzip.open(folder / "a.nii.gz", "wb") as out:
        out.write(content)
    return {"bold": folder / "a.nii.gz", "mask": None}


def _spoilt(number: float, at: Any = (1, 2, 1)) -> Make:
    def make(folder: Path) -> dict[str, Any]:
        data = volumes()
        data[at] = number
        return {"bold": write(folder / "a.nii", data)}

    return make


def _with(**more: Any) -> Make:
    def make(folder: Path) -> dict[str, Any]:
        return {"bold": write(folder / "a.nii", volumes())} | more

    return make


def _header(**more: Any) -> Make:
    return lambda folder: {"bold": write(folder / "a.nii", **({"data": volumes()} | more))}


def _two(second: Any, **more: Any) -> Make:
    def make(folder: Path) -> dict[str, Any]:
        return {"bold": [write(folder / "a.nii", volumes()), write(folder / "b.nii", second, **more)]}

    return make


def _masked(shape: tuple[int, ...], fill: int = 1, affine: Any = AFFINE) -> Make:
    def make(folder: Path) -> dict[str, Any]:
        inside = write(folder / "other.nii", np.full(shape, fill, np.uint8), affine=affine)
        return {"bold": write(folder / "a.nii", volumes()), "mask": inside}

    return make


def _confounds(content: str) -> Make:
    def make(folder: Path) -> dict[str, Any]:
        (folder / "c.tsv").write_text(content)
        return {"bold": write(folder / "a.nii", volumes()), "confounds": folder / "c.tsv"}

    return make


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (_three, r"a\.nii: expected a 4-D image \(X, Y, Z, T\), got shape \(5, 3, 2\)$"),
        (_cut_off, r"a\.nii\.gz: expected a whole image, got a file that ends early or is damaged$"),
        (_cut_off_inside, r"a\.nii: expected a whole image, got a file that ends early or is damaged$"),
        (_claims_much, r"a\.nii\.gz: expected a whole image, got a file that ends early or is damaged$"),
        (_header(data=volumes().astype(np.complex64)), r"a\.nii: expected an image of real numbers, got complex64$"),
        (_masked((*SHAPE, 2)), r"other\.nii: expected a 3-D image \(X, Y, Z\), got shape \(5, 3, 2, 2\)$"),
        (_text, r"a\.nii\.gz: expected a NIfTI image, got another or a damaged file \("),
        (
            _spoilt(np.nan),
            r"finite numbers in each of 29 voxels, got 1 with NaN or Inf, the first at \(1, 2, 1\): leave",
        ),
        (
            _spoilt(7.0),
            r"a signal that varies in each of 29 voxels, got 1 constant over a run, the first at \(1, 2, 1\)",
        ),
        (_header(tr=0), r"expected a TR in the header, seconds between volumes, 0\.05 to 30, got 0 sec: give tr$"),
        (_header(tr=720), r"expected a TR in the header, .*, got 720 sec: give tr$"),
        (_with(tr=0), r"^`tr`: expected seconds between volumes, 0\.05 to 30, got 0\.0$"),
        (_with(tr=float("nan")), r"^`tr`: expected a finite number, got nan$"),
        (_masked((5, 3, 4)), r"other\.nii: expected the grid of the data, \(5, 3, 2\), got \(5, 3, 4\)$"),
        (_masked(SHAPE, affine=np.eye(4)), r"other\.nii: expected the affine of the data, got another: resample"),
        (_masked(SHAPE, 0), r"other\.nii: expected a mask with voxels > 0, got none$"),
        (_two(volumes(shape=(5, 2, 3))), r"b\.nii: expected the grid of .*a\.nii, \(5, 3, 2\), got \(5, 2, 3\)$"),
        (_two(volumes(), tr=2.0), r"^`bold`: expected one TR in all runs, got 2 to 2\.5 s$"),
        (_two(volumes(length=2)), r"^`runs`: expected runs of at least 3 volumes, got 2$"),
        (_with(bold=[]), r"^`bold`: expected at least one image, got none$"),
        (_with(runs=[0, 0, 0]), r"^`runs`: expected integers \(13,\), the run of each volume, got \(3,\)$"),
        (_with(runs=[0] * 4 + [1] * 4 + [0] * 5), r"^`runs`: expected volumes of one run side by side, got a run that"),
        (_confounds("x\ty\n" + "1\t2\n" * 12 + "3\tn/a\n"), r"c\.tsv: line 14: expected a number for y, got 'n/a'$"),
        (_confounds("x\n" + "1\n" * 7), r"c\.tsv: expected 13 lines, one for each volume, got 7$"),
    ],
)
def test_bad_images_are_one_line(tmp_path: Path, make: Make, said: str) -> None:
    given = {"mask": mask_of(tmp_path / "mask.nii")} | make(tmp_path)
    with pytest.raises(ValueError, match=said) as caught:
        bold.load(**given)
    assert "\n" not in str(caught.value)


def test_dead_voxels_may_be_left_out(tmp_path: Path) -> None:
    data = volumes()
    data[1, 2, 1], data[4, 0, 0, 3] = 7.0, np.inf
    path = write(tmp_path / "a.nii", data)
    found = bold.load(path, mask_of(tmp_path / "mask.nii"), drop=True)
    assert len(found.values) == found.mask.sum() == 27
    assert found.mask[[1, 4], [2, 0], [1, 0]].tolist() == [False, False]
    np.testing.assert_allclose(found.values, cleaned(data[found.mask]), atol=2e-5)
    with pytest.raises(ValueError, match=r"expected a voxel that is finite and varies, got none of 29$"):
        bold.load(write(tmp_path / "b.nii", np.ones((*SHAPE, T), np.float32)), tmp_path / "mask.nii", drop=True)


def test_runs_are_integers_and_files_exist(tmp_path: Path) -> None:
    path = write(tmp_path / "a.nii", volumes())
    with pytest.raises(TypeError, match=r"^`runs`: expected integers \(13,\), the run of each volume, got list"):
        bold.load(path, mask_of(tmp_path / "m.nii"), runs=[0.5] * T)  # type: ignore[list-item]
    with pytest.raises(FileNotFoundError, match=r"none\.nii: no such file$"):
        bold.load(path, tmp_path / "none.nii")


@pytest.mark.network
def test_haxby_is_what_was_published(fetched: Callable[[str], Path]) -> None:
    folder = fetched("haxby")
    found, events, labels = bold.haxby(folder)
    assert (found.values.shape, found.tr, found.lengths) == ((530, 1452), 2.5, [121] * 12)
    assert len(set(labels.tolist())) == 9
    onsets = (
        folder / "haxby2001" / "sub001" / "model" / "model001" / "onsets"
    )  # the same experiment, as files of onsets
    lines = (folder / "haxby2001/models/model001/condition_key.txt").read_text().splitlines()
    kinds = dict(line.split()[1:] for line in lines)
    for run, table in enumerate(events):
        blocks = dict(zip(table["trial_type"], zip(table["onset"], table["duration"], strict=True), strict=True))
        for key, kind in kinds.items():
            file = onsets / f"task001_run{run + 1:03}" / f"{key}.txt"
            if file.exists():
                onset, duration, _ = map(float, file.read_text().split())
                assert blocks[kind] == (onset, duration)
    names, curves = bold.design(events, found.tr, found.lengths)
    assert (len(names), curves.shape) == (8, (1452, 8))
