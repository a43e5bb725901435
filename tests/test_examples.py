"""Every example runs as a script and prints what its page says; the code on a page is that of its script."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SCRIPTS = sorted((ROOT / "examples").glob("*.py"))
PNG = b"\x89PNG\r\n"


def run(name: str, folder: Path, *arguments: str) -> str:
    """What the script prints; it runs in a folder of its own, on one thread, and a warning ends it."""
    command = [sys.executable, "-W", "error", str(ROOT / "examples" / f"{name}.py"), *arguments]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_hugging_face_model_says_the_same_on_every_attention(tmp_path: Path) -> None:
    lines = run("speed_up_huggingface", tmp_path).splitlines()
    assert lines[0] == "8 x 512 tokens, 43% of them real"
    found = [re.fullmatch(r"(\w+) +[\d.]+ ms, differs from eager by (\S+) at most", line) for line in lines[1:]]
    assert [x and x[1] for x in found] == ["eager", "sdpa", "mmha"]
    assert all(x and float(x[2]) < 1e-5 for x in found)


def test_a_task_is_learned_under_the_mask_that_shows_its_answer(tmp_path: Path) -> None:
    text = run("train_with_your_own_mask", tmp_path)
    assert re.search(r"^ 7 ██(· )+·$", text, re.MULTILINE)
    assert "the function and the algebra give the same bits: True" in text
    causal, function, algebra = (float(x) for x in re.findall(r"([\d.]+)% right", text))
    assert causal < 20
    assert function == algebra > 95


def test_packed_sequences_are_trained_to_the_losses_of_padded_ones(tmp_path: Path) -> None:
    text = run("packed_finetuning", tmp_path)
    padded, packed = ([float(x) for x in found.split(", ")] for found in re.findall(r"losses \[(.*)\]", text))
    assert padded == pytest.approx(packed, abs=3e-5)
    assert padded[0] > padded[1] > padded[2]
    assert re.findall(r": (.* tokens) a step", text) == ["12 x 203 = 2436 tokens", "1 x 848 = 848 tokens"]


def test_replaced_modules_give_the_same_and_no_nan(tmp_path: Path) -> None:
    text = run("replace_multiheadattention", tmp_path)
    assert text.startswith("2 modules replaced\n")
    assert float(re.search(r"differ by (\S+) at most", text)[1]) < 1e-5  # type: ignore[index]
    assert "mmha.nn: 0 of the 70 numbers of the row without a word are NaN" in text


def test_a_live_stream_is_enhanced_as_it_comes_in(tmp_path: Path) -> None:
    text = run("enhance_a_live_stream", tmp_path)
    assert text.startswith("300 pieces of 10 ms in; latency 32 ms\n")
    assert float(re.search(r"by (\S+) at most", text)[1]) < 1e-5  # type: ignore[index]


def test_heads_are_plotted_and_named(tmp_path: Path) -> None:
    text = run("plot_heads", tmp_path, "found.png", "To be, or not to be, that is the question")
    assert (tmp_path / "found.png").read_bytes().startswith(PNG)
    assert len(re.findall(r"^  layer \d, head \d: ", text, re.MULTILINE)) == 12
    shares = {key: int(share) for key, share in re.findall(r"layer (\d, head \d):.* (\d+)% on the token before", text)}
    assert max(shares, key=lambda key: shares[key]) == "5, head 0"


def test_a_sentence_is_translated_and_its_words_are_aligned(tmp_path: Path) -> None:
    text = run("translate_with_attention", tmp_path, "found.png")
    assert (tmp_path / "found.png").read_bytes().startswith(PNG)
    ranked = re.findall(r"^ +(-\d+\.\d+)  (.+)$", text, re.MULTILINE)
    assert len(ranked) == 4
    assert [float(score) for score, _ in ranked] == sorted((float(score) for score, _ in ranked), reverse=True)
    assert ranked[0][1] == "Klicken Sie auf die Schaltfläche, um die Änderungen zu speichern."
    looked = dict(re.findall(r"^ +(\S+) looked at '(.+)' with", text, re.MULTILINE))
    pairs = {"Klicken": "Click", "Schaltfläche": "button", "Änderungen": "changes", "speichern": "save"}
    assert {word: looked[word] for word in pairs} == pairs


def test_a_tree_of_guesses_gives_the_greedy_text_in_fewer_passes(tmp_path: Path) -> None:
    found = re.search(
        r"^96 tokens in (\d+) passes; .* the same: True$", run("speculative_decoding", tmp_path), re.MULTILINE
    )
    assert found
    assert int(found[1]) < 80


def test_questions_that_come_together_are_answered_together(tmp_path: Path) -> None:
    found = re.fullmatch(
        r"20 questions in passes of \[(.*)\] texts; .* differ by (\S+)\n", run("serve_embeddings", tmp_path)
    )
    assert found
    counts = [int(count) for count in found[1].split(", ")]
    assert sum(counts) == 20
    assert len(counts) < 20
    assert float(found[2]) < 1e-5


@pytest.mark.slow
def test_two_processes_train_to_the_loss_of_one(tmp_path: Path) -> None:
    losses = [float(run("train_on_two_processes", tmp_path, n).split()[2]) for n in ("1", "2")]
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)
    assert losses[0] < 0.1


def test_every_example_has_a_page_in_the_index_and_is_tested() -> None:
    names = [script.stem for script in SCRIPTS]
    assert names == sorted(page.stem for page in (ROOT / "docs" / "examples").glob("*.md"))
    index, here = ((ROOT / page).read_text(encoding="utf-8") for page in ("docs/README.md", "tests/test_examples.py"))
    assert [name for name in names if f"](examples/{name}.md)" not in index or f'run("{name}"' not in here] == []


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_code_on_a_page_is_that_of_its_script(script: Path) -> None:
    source = script.read_text(encoding="utf-8")
    page = (ROOT / "docs" / "examples" / f"{script.stem}.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    assert blocks
    assert [block for block in blocks if block not in source] == []


@pytest.mark.parametrize("page", [page.relative_to(ROOT) for page in (ROOT / "docs").rglob("*.md")], ids=str)
def test_links_in_the_docs_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\((?!https?:)([^)#]+)\)", (ROOT / page).read_text(encoding="utf-8"))
    assert [link for link in links if not (ROOT / page.parent / link).exists()] == []
