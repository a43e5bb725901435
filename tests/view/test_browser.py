"""The page in headless Chromium: by pointer and keyboard, in light and dark, on a narrow screen, with hostile texts."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch

from mmha.view import gather, page

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = pytest.mark.slow
EVIL = "</script><script>window.hit=1</script><img src=x onerror=window.hit=1> I saw"
TIMEOUT = 120_000  # ms


@pytest.fixture(scope="module")
def data() -> dict[str, Any]:
    sound = torch.randn(16000, generator=torch.Generator().manual_seed(5)) * 0.1
    return gather.gather(gather.Models(), gather.Texts(), sound)


@pytest.fixture(scope="module")
def file(data: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("view") / "page.html"
    path.write_text(page.build(data), "utf-8")
    return path


def opened(browser: Browser, file: Path, width: int = 1200, **how: Any) -> Page:
    """The page; an error in it, a word on its console or a request fails the test."""
    said: list[str] = []
    shown = browser.new_page(viewport={"width": width, "height": 900}, **how)
    shown.set_default_timeout(TIMEOUT)
    shown.on("console", lambda message: said.append(message.text))
    shown.on("pageerror", lambda error: said.append(str(error)))
    shown.on("request", lambda request: said.append(request.url) if not request.url.startswith("data:") else None)
    shown.goto(file.as_uri(), timeout=TIMEOUT)
    shown.wait_for_selector("#generation")
    assert said == [file.as_uri()]
    return shown


def test_a_mask_is_drawn_as_it_is_typed(browser: Browser, file: Path) -> None:
    shown = opened(browser, file)
    field = shown.locator("#mask input[type=text]")
    field.fill("causal & window(1)")
    shown.locator("#mask input[type=number]").first.fill("4")
    shown.locator("#mask input[type=number]").nth(1).fill("4")
    assert "7 of 16 visible" in shown.locator("#mask dl").inner_text()
    assert "0 full, 1 mixed, 0 empty" in shown.locator("#mask dl").inner_text()
    before = shown.locator("#mask canvas").screenshot()
    field.fill("casual")
    assert "did you mean 'causal'" in shown.locator("#mask .wrong").inner_text()
    assert field.get_attribute("aria-invalid") == "true"
    assert shown.locator("#mask canvas").screenshot() == before  # the last mask that could be read stays
    field.fill("per_head(causal, full)")
    shown.locator("#mask select").nth(1).select_option("1")
    assert "16 of 16 visible" in shown.locator("#mask dl").inner_text()
    shown.locator("#mask canvas").focus()
    shown.keyboard.press("ArrowDown")
    shown.keyboard.press("ArrowDown")
    assert "Query 1 at position 1 sees keys 0–3" in shown.locator("#mask .said").inner_text()


def test_words_say_where_they_look_by_pointer_and_by_keyboard(
    browser: Browser, file: Path, data: dict[str, Any]
) -> None:
    shown = opened(browser, file)
    look = data["looks"][0]
    shown.locator("#tagger .head").nth(6).focus()  # layer 0, head 5
    words = shown.locator("#tagger .word")
    words.nth(2).hover()
    row = look["weights"][0][5][2]
    most = max(range(len(row)), key=row.__getitem__)
    said = shown.locator("#tagger .said").inner_text()
    assert said.startswith(f"“{look['rows'][2]}” looks at “{look['rows'][most]}” {round(row[most] / 10)} %")
    words.nth(2).focus()
    shown.keyboard.press("ArrowRight")
    assert shown.locator("#tagger .said").inner_text().startswith(f"“{look['rows'][3]}” looks at")
    shown.keyboard.press("Enter")
    words.nth(0).hover()
    assert shown.locator("#tagger .said").inner_text().startswith(f"“{look['rows'][3]}” looks at")  # it is held
    shown.locator("#translation input[type=checkbox]").check()
    assert "is looked at by" in shown.locator("#translation .said").inner_text()


def test_step_n_shows_n_tokens(browser: Browser, file: Path, data: dict[str, Any]) -> None:
    shown = opened(browser, file)
    slider = shown.locator("#generation input[type=range]")
    for key, n in (("Home", 1), ("ArrowRight", 2), ("End", len(data["generation"]["tokens"]))):
        slider.press(key)
        assert f"sees {n} token" in shown.locator("#generation [role=status]").first.inner_text()
        assert shown.locator("#generation .word:not(.later)").count() == n
    shown.get_by_role("button", name="Back").click()
    assert shown.locator("#generation .word.later").count() == 1


def test_a_recording_says_where_a_frame_looked(browser: Browser, file: Path, data: dict[str, Any]) -> None:
    shown = opened(browser, file)
    shown.locator("#recording canvas").first.focus()
    shown.keyboard.press("Home")
    assert "The frame at 0.00 s looked most at 0.00 s (100 %)" in shown.locator("#recording .said").inner_text()
    shown.keyboard.press("End")
    last = data["recording"]["frames"] - 1
    assert f"The frame at {last * 0.016:.2f} s" in shown.locator("#recording .said").inner_text()
    players = shown.locator("#recording audio")
    for number, name in enumerate(("before", "after")):
        player = players.nth(number)
        assert player.get_attribute("aria-label") == f"The recording {name} it was enhanced"
        shown.wait_for_function("one => one.readyState >= 2", arg=player.element_handle())
        assert player.evaluate("one => one.duration") == pytest.approx(1.0)  # and the policy let it in
    players.nth(1).focus()
    shown.keyboard.press("Space")
    shown.wait_for_function("one => one.currentTime > 0.2", arg=players.nth(1).element_handle())
    assert "The frame at 0.00 s" not in shown.locator("#recording .said").inner_text()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [400, 1200])
def test_it_fits_in_light_and_dark(browser: Browser, file: Path, scheme: str, width: int, tmp_path: Path) -> None:
    shown = opened(browser, file, width, color_scheme=scheme, reduced_motion="reduce")
    assert shown.evaluate("document.documentElement.scrollWidth") == width  # nothing sticks out at the side
    ink, paper = (shown.evaluate(f"getComputedStyle(document.body).{name}") for name in ("color", "backgroundColor"))
    assert (
        (sum(map(int, ink[4:-1].split(","))) > 384)
        == (sum(map(int, paper[4:-1].split(","))) < 384)
        == (scheme == "dark")
    )
    assert shown.evaluate("getComputedStyle(document.querySelector('.word')).transitionDuration") == "0s"
    assert len(shown.screenshot(full_page=True)) > 50_000


def test_hostile_texts_are_inert(browser: Browser, tmp_path: Path) -> None:
    models = gather.Models()
    texts = replace(gather.Texts(), sentence=EVIL, prompt=EVIL[:60], source="Open <b>the file</b>.")
    file = tmp_path / "page.html"
    built = gather.gather(models, texts) | {"form": {"texts": {"sentence": EVIL}, "wrong": EVIL}}
    file.write_text(page.build(built), "utf-8")
    shown = opened(browser, file)
    shown.locator("#tagger .word").first.hover()
    assert shown.evaluate("window.hit") is None
    assert shown.locator("img").count() == 0
    assert shown.locator("script").count() == 2
    assert shown.locator("form .wrong").inner_text() == EVIL
