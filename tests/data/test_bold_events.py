"""Events and design curves: against a convolution by hand, run by run, and bad tables as one line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

pandas = pytest.importorskip("pandas")
pytest.importorskip("nilearn")

from mmha.data import bold  # noqa: E402

TR = 0.5


def table(*rows: tuple[float, float, str]) -> Any:
    return pandas.DataFrame(rows, columns=["onset", "duration", "trial_type"])


def spm(seconds: Any) -> Any:
    """SPM's response: a gamma density of shape 6 less a sixth of one of shape 16, scale 1 s."""
    from scipy.stats import gamma

    return gamma.pdf(seconds, 6) - gamma.pdf(seconds, 16) / 6


def test_a_curve_is_boxes_convolved_with_the_response() -> None:
    _, curves = bold.design(table((7.0, 10.0, "a"), (40.0, 3.0, "a"), (20.0, 5.0, "b")), TR, 131)
    fine = 100  # samples a second
    box = np.zeros(131 * fine // 2)
    box[700:1700] = box[4000:4300] = 1
    response = spm(np.arange(32 * fine) / fine)
    wanted = np.convolve(box, response / response.sum())[: len(box) : fine // 2]
    assert np.corrcoef(curves[:, 0], wanted)[0, 1] > 0.9995
    np.testing.assert_allclose(curves[:, 0], wanted, atol=0.05)
    glover = bold.design(table((7.0, 10.0, "a")), TR, 131, hrf="glover")[1]
    assert 0.9 < np.corrcoef(glover[:60, 0], curves[:60, 0])[0, 1] < 0.9999


def test_runs_do_not_reach_into_each_other() -> None:
    runs = [table((3.0, 5.0, "b"), (1.0, 30.0, "a")), table((2.0, 2.0, "c"))]
    names, curves = bold.design(runs, TR, [47, 23])
    assert names == ("a", "b", "c")
    np.testing.assert_array_equal(curves[:47, 0], bold.design(table((1.0, 30.0, "a")), TR, 47)[1][:, 0])
    assert not curves[47:, :2].any()
    assert not curves[:47, 2].any()
    one = pandas.concat([runs[0], runs[1].assign(onset=2.0 + 47 * TR)])
    np.testing.assert_allclose(bold.design(one, TR, [47, 23])[1], curves, atol=1e-12)


def test_a_file_of_events_and_a_design_matrix(tmp_path: Path) -> None:
    path = tmp_path / "events.tsv"
    path.write_text("duration\tonset\tresponse\ttrial_type\n2.5\t9\tn/a\tface\n1\t3e0\tx\thouse\n\n")
    found = bold.events(path)
    assert found.to_dict("list") == {"onset": [3.0, 9.0], "duration": [1.0, 2.5], "trial_type": ["house", "face"]}
    np.testing.assert_array_equal(bold.design(path, TR, 59)[1], bold.design(found, TR, 59)[1])
    path.write_text("onset\tduration\n4\t1\n")
    assert bold.events(path)["trial_type"].tolist() == ["task"]
    matrix = tmp_path / "design.csv"
    matrix.write_text("face,house\n" + "".join(f"{i},{-i / 2}\n" for i in range(7)))
    names, curves = bold.design(matrix, TR, 7)
    assert names == ("face", "house")
    np.testing.assert_array_equal(curves, np.stack([np.arange(7), -np.arange(7) / 2], 1))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", r"events\.tsv: expected a table with names of columns in its first line, got an empty file$"),
        ("onset\tduration\ttrial_type\n", r"events\.tsv: expected at least one event, got none$"),
        ("onset\tkind\n1\ta\n", r"events\.tsv: expected columns onset and duration, got onset, kind$"),
        ("onset duration\n1 2\n", r"events\.tsv: expected columns onset and duration, got onset duration$"),
        ("onset\tduration\nx\t2\n", r"events\.tsv: line 2: expected seconds for onset, got 'x'$"),
        ("onset\tduration\n1\t2\n2\tn/a\n", r"events\.tsv: line 3: expected seconds for duration, got 'n/a'$"),
        ("onset\tduration\n1\tinf\n", r"events\.tsv: line 2: expected seconds for duration, got 'inf'$"),
        ("onset\tduration\n1\t-2\n", r"events\.tsv: line 2: expected a duration >= 0, got -2$"),
        ("onset\tduration\ttrial_type\n1\t2\t\n", r"events\.tsv: line 2: expected a trial_type, got an empty cell$"),
        ("onset\tduration\n1\n", r"events\.tsv: line 2: expected 2 columns, got 1$"),
        ("onset\tonset\n1\t1\n", r"events\.tsv: line 1: expected a name of its own for each column, got \['onset'"),
        ("onset\0", r"events\.tsv: expected UTF-8 text, got a binary file"),
    ],
)
def test_bad_events_are_one_line(tmp_path: Path, content: str, said: str) -> None:
    path = tmp_path / "events.tsv"
    path.write_text(content)
    with pytest.raises(ValueError, match=said) as caught:
        bold.events(path)
    assert "\n" not in str(caught.value)


def test_designs_that_do_not_fit() -> None:
    one = table((1.0, 2.0, "a"))
    with pytest.raises(ValueError, match=r"^`events`: expected onsets within the run, before 11\.5 s, got 'b' at 12 s"):
        bold.design(table((1.0, 2.0, "a"), (12.0, 2.0, "b")), TR, 23)
    with pytest.raises(ValueError, match=r"before 23 s, got 'a' at 23\.5 s"):
        bold.design(table((23.5, 2.0, "a")), TR, [23, 23])
    with pytest.raises(ValueError, match=r"^`events`: expected 3 tables, one for each run, got 2$"):
        bold.design([one, one], TR, [23, 23, 23])
    with pytest.raises(ValueError, match=r"^`events`: expected at least one event, got none$"):
        bold.design(one[:0], TR, 23)
    with pytest.raises(
        TypeError, match=r"^`events`: expected a table of onset, duration, trial_type, or a path, got 3$"
    ):
        bold.design([3], TR, 23)
    with pytest.raises(ValueError, match=r"^`tr`: expected seconds > 0, got 0\.0$"):
        bold.design(one, 0, 23)
    with pytest.raises(ValueError, match=r"^`hrf`: expected 'spm' or 'glover', got 'spn'; did you mean 'spm'\?$"):
        bold.design(one, TR, 23, "spn")  # type: ignore[arg-type]


def test_a_design_matrix_of_another_length(tmp_path: Path) -> None:
    path = tmp_path / "design.tsv"
    path.write_text("a\n1\n2\n")
    with pytest.raises(ValueError, match=r"design\.tsv: expected 3 lines, one for each volume, got 2$"):
        bold.design(path, TR, 3)
    path.write_text("a\tb\n1\tlow\n")
    with pytest.raises(ValueError, match=r"design\.tsv: line 2: expected a number for b, got 'low'$"):
        bold.design(path, TR, 1)


def test_blocks_are_the_events_over_the_middle_of_each_volume_in_each_run() -> None:
    generator = np.random.default_rng(3)
    rows = [
        (float(t), float(d), "a") for t, d in zip(np.arange(0, 50, 5.0), generator.uniform(0.6, 4, 10), strict=True)
    ]
    found = bold.blocks([table(*rows[:4]), table(*rows[4:])], TR, [131, 113])
    wanted = np.full(131 + 113, -1)
    for number, (onset, duration, _) in enumerate(rows):
        shift = 0 if number < 4 else 131
        middles = (np.arange(131 if number < 4 else 113) + 0.5) * TR
        wanted[np.flatnonzero((middles >= onset) & (middles < onset + duration)) + shift] = number
    np.testing.assert_array_equal(found, wanted)


def test_blocks_of_a_moment_before_the_run_and_of_none(tmp_path: Path) -> None:
    assert bold.blocks(table((1.7, 0.0, "a")), TR, 5).tolist() == [-1, -1, -1, 0, -1]
    assert bold.blocks(table((-3.0, 0.0, "a"), (-1.0, 1.6, "b"), (2.0, 99.0, "c")), TR, 5).tolist() == [
        1,
        -1,
        -1,
        -1,
        2,
    ]
    (tmp_path / "d.tsv").write_text("a\n1\n2\n")
    with pytest.raises(
        ValueError, match="`events`: expected onsets and durations, to hide blocks of the task, got the m"
    ):
        bold.blocks(tmp_path / "d.tsv", TR, 2)
