"""The page's evaluator of masks says what mmha.masks says: the same pairs, the same refusals, the same tiles."""

from __future__ import annotations

import pytest

from mask_notations import Case, cases
from mmha.masks import parse
from page_engine import Engine

COUNT = 300


@pytest.fixture(scope="module")
def engine() -> Engine:
    return Engine()


def expected(case: Case) -> dict[str, object]:
    try:
        dense = parse(case.notation).dense(case.batch, case.heads, case.q_len, case.k_len, case.q_start)
    except (ValueError, TypeError) as error:
        return {"refused": str(error)}
    return {"seen": dense.int().flatten().tolist()}


def without_hint(answer: dict[str, object]) -> dict[str, object]:
    """Which near name is suggested is a matter of taste; everything before it is not."""
    return {key: value.split("; did you mean")[0] if isinstance(value, str) else value for key, value in answer.items()}


def test_random_expressions_mean_the_same(engine: Engine) -> None:
    refused = 0
    for case in cases(COUNT):
        want = expected(case)
        assert without_hint(engine.evaluate(case)) == without_hint(want), case
        refused += "refused" in want
    assert COUNT / 20 < refused < COUNT / 2  # both kinds were met


@pytest.mark.parametrize(
    "notation",
    [
        "", "casual", "causal &", "causal causal", "(causal", "window()", "window(1, 2, 3)", "window(left=1, left=2)",
        "window(-1)", "window(true)", "window([1])", "dilated(0)", "chunked(-3)", "prefix(-1)", "prefix([1, -1])",
        "keys(2)", "keys([[1], [0]])", "queries([none])", "documents(3)", "documents([0, 0.5])",
        "documents([[1], [1, 2]])", "documents.from_lengths([[1, 2], [4]])", "documents(true, 3)",
        "global(-1)", "global([[1]])", "blocks([1], 2)",
        "blocks([[1]], 2)", "tree(0)", "tree(-1, 1)", "tree(-1, -1, -1, -1, -1, -1, -1, -1)",
        "per_head([])", "per_head([1, none])", "dense([1, 0])", "dense([[[[[1]]]]])", "spans([1, 1, 2], [0], [])",
        "spans([1, 1, 1, 7], [0, 2], [[0, 2], [2, 3]])", "spans([1, 1, 1, 7], [0, 1], [[3, 9]])", "predicate(3)",
        "causal $1", "window($1)", "a'b", "~", "window(1,)", "window(left=)", "window(left=1, 2)", "(" * 101,
        "key_padding(3, 4, 5)", "window(2)&window", "é", "causal.left", "full(1)", "documents()", "prefix(1, 2)",
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_in_the_same_words(engine: Engine, notation: str) -> None:
    case = Case(notation, 1, 1, 5, 7, None)
    assert without_hint(engine.evaluate(case)) == without_hint(expected(case))


def test_a_mask_that_is_no_list_of_masks_is_refused(engine: Engine) -> None:
    for notation in ("per_head(causal)", "per_head(causal, 3)", "window(causal)", "keys(causal)"):
        case = Case(notation, 1, 1, 5, 7, None)
        assert "refused" in engine.evaluate(case)
        assert "refused" in expected(case)


def test_a_near_name_is_suggested(engine: Engine) -> None:
    assert engine.evaluate(Case("casual", 1, 1, 1, 1, None))["refused"].endswith("; did you mean 'causal'?")
    assert "did you mean" not in engine.evaluate(Case("qqqqqqqq", 1, 1, 1, 1, None))["refused"]


@pytest.mark.parametrize("sizes", [(7, 13, None), (11, 7, 2), (5, 5, -2), (1, 1, 0)])
@pytest.mark.parametrize(
    "notation", ["full", "causal", "~causal", "window(3, 2)", "prefix(4) | dilated(3)", "chunked(5)"]
)
def test_tiles_and_counts_are_those_of_the_plan(
    engine: Engine, notation: str, sizes: tuple[int, int, int | None]
) -> None:
    q_len, k_len, q_start = sizes
    plan = parse(notation).plan(1, 1, q_len, k_len, q_start)
    tiles = plan.tiles(3, 5)[0, 0]
    assert engine.ask("measure", vars(Case(notation, 1, 1, *sizes))) == {
        "visible": plan.visible,
        "runs": sum(len(plan.row(i)) for i in range(q_len)),
        "rows": tiles.shape[0],
        "columns": tiles.shape[1],
        "codes": tiles.flatten().tolist(),
    }


def test_a_mask_says_how_many_rows_of_a_batch_and_heads_it_is_for(engine: Engine) -> None:
    assert engine.ask("wanted", "causal & window(3)") == {"batch": 1, "heads": 1}
    assert engine.ask("wanted", "~(causal | per_head(full, key_padding([1, 2, 3])))") == {"batch": 3, "heads": 2}
    assert engine.ask("wanted", "dense([[[[1]], [[0]]]])") == {"batch": 1, "heads": 2}


def test_no_expression_takes_the_page_down(engine: Engine) -> None:
    case = Case("documents(1000000000, 1)", 1, 1, 5, 7, None)
    assert "at most 1048576 in a page" in engine.evaluate(case)["refused"]
