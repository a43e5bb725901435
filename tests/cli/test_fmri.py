"""`mmha fmri`: from images and events to tables, maps and a page, and what is said when something is wrong."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import nibabel
import numpy as np
import pandas
import pytest

from mmha.cli import app
from mmha.data.bold import design
from mmha.models.mamsm.maps import network, overlap

KINDS = ["face", "house & <b>"]
AFFINE = np.diag([-3.0, 3.0, 4.0, 1.0])


def write_runs(folder: Path) -> list[str]:
    """Three runs of 29 volumes, two networks that follow a kind of event each; the arguments of a fit."""
    generator, arguments = np.random.default_rng(1), []
    mask = np.zeros((7, 5, 2), np.uint8)
    mask[1:6, 1:4] = 1
    nibabel.Nifti1Image(mask, AFFINE).to_filename(folder / "mask.nii.gz")
    for number in range(3):
        table = pandas.DataFrame({"onset": [2.0, 20.0, 38.0], "duration": 8.0, "trial_type": [*KINDS, "face"]})
        _, curves = design(table, 2.0, 29)
        values = 100 + generator.normal(size=(7, 5, 2, 29))
        values[1:3] += 3 * curves[:, 0] / curves.std()
        values[4:6] += 3 * curves[:, 1] / curves.std()
        image = nibabel.Nifti1Image(values.astype(np.float32), AFFINE)
        image.header.set_zooms((3, 3, 4, 2.0))
        image.header.set_xyzt_units("mm", "sec")
        image.to_filename(folder / f"run-{number}.nii.gz")
        table.to_csv(folder / f"events-{number}.tsv", sep="\t", index=False)
        arguments += [str(folder / f"run-{number}.nii.gz"), "--events", str(folder / f"events-{number}.tsv")]
    return [*arguments, "--mask", str(folder / "mask.nii.gz"), "--steps", "2", "--epochs", "40", "--threads", "1"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    return write_runs(tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="module")
def fitted(runs: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("fit") / "out"
    assert app.run(["fmri", "fit", *runs, "--out", str(out), "--json"]) == 0
    return out


def failing(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert app.run(["fmri", *arguments]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.count("\n") == 1
    return said.err


def test_figures_are_those_of_the_tables_and_maps(fitted: Path) -> None:
    result = json.loads((fitted / "result.json").read_text("utf-8"))
    assert [result[key] for key in ("voxels", "volumes", "runs", "held_out_runs", "tr")] == [30, 87, 3, 1, 2.0]
    assert set(result["hidden_values"]) == {"model", "commonest", "last", "neighbours"}
    table = pandas.read_csv(fitted / "time_courses.tsv", sep="\t")
    assert table["run"].tolist() == sorted([1, 2, 3] * 29)
    assert table["seconds"].tolist() == [2.0 * t for t in range(29)] * 3
    maps, z, mask = (nibabel.load(fitted / f"{name}.nii.gz") for name in ("maps", "glm", "mask"))
    np.testing.assert_array_equal(maps.affine, AFFINE)
    assert maps.shape == z.shape == (7, 5, 2, 2)
    inside = mask.get_fdata() > 0
    for i, row in enumerate(result["conditions"]):
        assert row["name"] == KINDS[i]
        r = np.corrcoef(table[f"design: {KINDS[i]}"], table[f"found: {KINDS[i]}"])[0, 1]
        assert abs(row["r"] - r) < 1e-3
        ours, theirs = (network(image.get_fdata()[inside][:, i]) for image in (maps, z))
        assert abs(row["iou"] - overlap(ours, theirs)) < 1e-3
        assert row["voxels"] == ours.sum()
        assert -1 <= row["r_held_out"] <= 1


def test_the_glm_finds_the_networks(fitted: Path) -> None:
    z = nibabel.load(fitted / "glm.nii.gz").get_fdata()
    for i, rows in enumerate((slice(1, 3), slice(4, 6))):
        truth = np.zeros((7, 5, 2), bool)
        truth[rows, 1:4] = True
        assert overlap(network(z[..., i].ravel()), truth.ravel()) > 0.9


def test_the_page_needs_nothing_beside_it(fitted: Path) -> None:
    text = (fitted / "report.html").read_text("utf-8")
    assert re.findall(r'src="(?!data:image/png;base64,)', text) == []
    assert re.findall(r"https?://|<script|<link", text) == []
    assert text.count("<img ") == 4
    assert "house &amp; &lt;b&gt;" in text
    curves = pandas.read_csv(fitted / "time_courses.tsv", sep="\t")[[f"design: {kind}" for kind in KINDS]]
    r = [np.corrcoef(curves.mean(axis=1), curves[name])[0, 1] for name in curves]
    assert f"not of which kind, has r {np.mean(r):.2f}." in text
    assert "<b>" not in text.replace("<b>r, ", "")


def test_report_makes_the_same_page_again(fitted: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = (fitted / "report.html").read_bytes()
    (fitted / "report.html").unlink()
    assert app.run(["fmri", "report", str(fitted)]) == 0
    assert capsys.readouterr().out == f"{fitted / 'report.html'}\n"
    again = (fitted / "report.html").read_bytes()
    shown = [re.sub(rb"base64,[^\"]+", b"", page) for page in (first, again)]
    assert shown[0] == shown[1]


def test_a_fit_that_was_stopped_goes_on_to_the_same(runs: list[str], fitted: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    shutil.copytree(fitted, out)
    for path in [*out.glob("*.*")]:
        path.unlink()
    shutil.rmtree(out / "time_courses")
    assert app.run(["fmri", "fit", *runs, "--out", str(out), "--resume"]) == 0
    for name in ("result.json", "time_courses.tsv", "maps.nii.gz", "glm.nii.gz"):
        assert (out / name).read_bytes() == (fitted / name).read_bytes()


def test_options_reach_the_data_the_network_and_the_masks(runs: list[str], tmp_path: Path) -> None:
    whole = nibabel.concat_images(runs[:9:3], axis=3)
    whole.header.set_zooms((3, 3, 4, 2.0))
    whole.header.set_xyzt_units("mm", "sec")
    whole.to_filename(tmp_path / "all.nii.gz")
    anatomy = np.arange(4 * 3 * 5, dtype=np.float32).reshape(4, 3, 5)
    nibabel.Nifti1Image(anatomy, AFFINE * 2).to_filename(tmp_path / "anatomy.nii.gz")
    options = [
        "--faithful",
        "--blocks",
        "--window",
        "3",
        "--hrf",
        "glover",
        "--background",
        str(tmp_path / "anatomy.nii.gz"),
    ]
    arguments = [option for n in range(3) for option in runs[3 * n + 1 : 3 * n + 3]] + runs[9:]
    out = tmp_path / "out"
    assert (
        app.run(["fmri", "fit", str(tmp_path / "all.nii.gz"), "--runs", "29", *arguments, *options, "--out", str(out)])
        == 0
    )
    result = json.loads((out / "result.json").read_text("utf-8"))
    assert [result[key] for key in ("runs", "volumes", "faithful", "blocks", "window")] == [3, 87, True, True, 3]
    page = (out / "report.html").read_text("utf-8")
    assert "seed 1, as the released code, blocks of the task hidden whole." in page
    config = json.loads((out / "mamsm.json").read_text("utf-8"))["config"]
    assert (config["faithful"], config["window"]) == (True, 3)
    state = json.loads((out / "hidden_values" / "state.json").read_text("utf-8"))["run"]
    assert (state["faithful"], state["blocks"]) == (True, True)
    table = pandas.read_csv(out / "time_courses.tsv", sep="\t")
    curves = design(runs[2:9:3], 2.0, [29] * 3, "glover")[1]
    np.testing.assert_allclose(table[[f"design: {kind}" for kind in KINDS]], curves, atol=1e-5)
    np.testing.assert_array_equal(nibabel.load(out / "background.nii.gz").get_fdata(), anatomy)


def test_maps_are_drawn_on_the_mean_volume(runs: list[str], fitted: Path) -> None:
    found = nibabel.load(fitted / "background.nii.gz").get_fdata()
    wanted = np.mean([nibabel.load(path).get_fdata().mean(-1) for path in runs[:9:3]], 0)
    np.testing.assert_allclose(found, wanted, rtol=1e-5)


def test_a_finished_fit_is_not_overwritten(runs: list[str], fitted: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "holds a run already" in failing(capsys, "fit", *runs, "--out", str(fitted))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "`BOLD`: expected 4-D images, or --data haxby, got none"),
        (["a.nii"], "`--events`: expected a file with the task of each run, got none"),
        (["a.nii", "--data", "haxby"], "--data: expected it without bold, which it brings, got both"),
        (["--data", "haxbi"], "`--data`: expected 'haxby', got 'haxbi'; did you mean 'haxby'?"),
        (["--data", "haxby", "--size", "smal"], "`--size`: expected 'published' or 'small', got 'smal'"),
        (["--data", "haxby", "--smooth", "0"], "`--smooth`: expected seconds > 0, got 0"),
        (["--data", "haxby", "--hrf", "spn"], "`--hrf`: expected 'spm' or 'glover', got 'spn'; did you mean 'spm'?"),
        (["--data", "haxby", "--runs", "121"], "--data: expected it without runs, which it brings, got both"),
        (["--data", "haxby", "--resume"], "--resume: expected a stopped run"),
        (["nowhere.nii", "--events", "e.tsv"], "nowhere.nii: no such file"),
    ],
)
def test_options_that_do_not_fit(
    arguments: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert said in failing(capsys, "fit", *arguments, "--out", str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_bad_images_and_events_leave_nothing_behind(
    runs: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    late = tmp_path / "late.tsv"
    late.write_text("onset\tduration\ttrial_type\n900\t5\tface\n")
    out = tmp_path / "out"
    assert "900" in failing(capsys, "fit", runs[0], "--events", str(late), "--out", str(out), "--mask", runs[10])
    told = failing(capsys, "fit", *runs[:3], "--runs", "13,17", "--out", str(out))
    assert "`--runs`: expected 29 volumes in all, those of the images, got 30" in told
    told = failing(capsys, "fit", *runs[:3], "--runs", "29,x", "--out", str(out))
    assert "`--runs`: expected volumes of each run, as 121,121,119, or one number for all, got 29,x" in told
    assert "expected a 3-D image" in failing(capsys, "fit", *runs[:3], "--mask", runs[0], "--out", str(out))
    assert not out.exists()


def test_a_file_in_the_place_of_the_folder_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place = tmp_path / "out"
    place.write_text("mine")
    for out in (place, place / "inside"):
        assert failing(capsys, "fit", "--data", "haxby", "--out", str(out)) == (
            f"mmha: --out: expected a folder, got the file {place}\n"
        )
    assert place.read_text() == "mine"


def test_report_of_no_fit_or_a_damaged_one(fitted: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "got no result.json: fit first, or --resume" in failing(capsys, "report", str(tmp_path))
    out = tmp_path / "out"
    shutil.copytree(fitted, out)
    shutil.copy(out / "mask.nii.gz", out / "maps.nii.gz")
    assert "maps.nii.gz: expected a 4-D image, got (7, 5, 2)" in failing(capsys, "report", str(out)).replace("`", "")
    (out / "maps.nii.gz").write_bytes(b"nothing")
    assert "maps.nii.gz: expected a NIfTI image" in failing(capsys, "report", str(out))
    (out / "time_courses.tsv").write_text("run\tvolume\n1\t0\n")
    assert "expected the columns of result.json" in failing(capsys, "report", str(out))
    (out / "result.json").write_text('{"conditions": 3}')
    assert "result.json: expected what `mmha fmri fit` wrote, got a damaged document" in failing(
        capsys, "report", str(out)
    )
