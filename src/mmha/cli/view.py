"""`mmha view`: a page to look at what masks and attention do, as one HTML file or from a small server."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mmha.cli.printing import examples

if TYPE_CHECKING:
    from torch import Tensor

    from mmha.view.gather import Models, Texts

EXAMPLES = examples(
    "mmha view",
    'mmha view --mask "causal & window(7)" --sentence "I saw a saw." --out saw.html',
    'mmha view --prompt "I have a dream" --no-open',
    "mmha view --recording noisy.wav",
    "mmha view --serve --port 8000",
)
LARGEST = 1024  # queries and keys that a page draws
ASKED = ("sentence", "prompt", "source")  # what a served page may ask for, each a text of its own

Mask = Annotated[str | None, typer.Option(metavar="EXPRESSION", help="The mask to begin with (see mmha mask --help).")]
Size = Annotated[int | None, typer.Option(help="Its queries and keys.")]
Sentence = Annotated[str | None, typer.Option(metavar="TEXT", help="Through the tagger and BERT; may hold a [MASK].")]
Prompt = Annotated[str | None, typer.Option(metavar="TEXT", help="What the language model goes on with.")]
Source = Annotated[str | None, typer.Option(metavar="TEXT", help="What is translated.")]
Recording = Annotated[Path | None, typer.Option(metavar="FILE", help="A sound file, whose beginning is enhanced.")]
Model = Annotated[
    list[Path] | None,
    typer.Option(metavar="FILE|FOLDER", help="A model of yours instead of the shipped one of its kind; repeatable."),
]
Out = Annotated[Path, typer.Option("--out", "--output", metavar="FILE", help="The page, written whole or not at all.")]
Serve = Annotated[bool, typer.Option("--serve", help="Serve it on this machine; the page then takes other texts.")]
Port = Annotated[int | None, typer.Option(help="With --serve: the port (default: a free one).")]
Open = Annotated[
    bool | None, typer.Option("--open/--no-open", help="Open it in a browser (default: where there is a screen).")
]


def view(
    mask: Mask = None,
    size: Size = None,
    sentence: Sentence = None,
    prompt: Prompt = None,
    source: Source = None,
    recording: Recording = None,
    model: Model = None,
    out: Out = Path("mmha-view.html"),
    serve: Serve = False,
    port: Port = None,
    open: Open = None,
) -> None:
    """Make a page that shows what masks and attention do: one HTML file, which needs no server and no network."""
    from mmha import checks
    from mmha.cli.files import writable
    from mmha.view.gather import Models, Texts, placed

    checks.require(serve or port is None, "--port", "it with --serve", "it alone")
    checks.integer("--port", port or 0, 0, 65535)
    checks.integer("--size", 1 if size is None else size, 1, LARGEST)
    given: dict[str, Any] = {"mask": mask, "size": size, "sentence": sentence, "prompt": prompt, "source": source}
    texts = replace(Texts(), **{name: value for name, value in given.items() if value is not None})
    models = Models(placed(model or []))
    if not serve:
        writable("--out", out)
    sound = None if recording is None else _heard(recording)
    if serve:
        _serve(models, texts, sound, port or 0, open)
        return
    _write(models, texts, sound, out)
    if _wanted(open):
        _show(out.resolve().as_uri())


def _heard(recording: Path) -> Tensor:
    """The beginning of the first channel at 16 kHz. Raises: as `sound.Reader`."""
    from mmha.cli.enhance_plot import beginning

    return beginning(recording)


def _write(models: Models, texts: Texts, sound: Tensor | None, out: Path) -> None:
    from mmha import checkpoint
    from mmha.view.gather import gather
    from mmha.view.page import build

    page = build(gather(models, texts, sound)).encode()
    checkpoint.write(out, page)
    print(f"wrote {out}: {len(page) / 1e3:.0f} kB, opens in any browser")


def _serve(models: Models, texts: Texts, sound: Tensor | None, port: int, open: bool | None) -> None:
    """Answer until Ctrl-C. What is wrong with a text that the page sends is said in the page."""
    from mmha.view.gather import gather
    from mmha.view.page import build
    from mmha.view.server import HOST, serve

    first = gather(models, texts, sound)

    def make(asked: Mapping[str, str]) -> str:
        chosen: dict[str, Any] = {name: asked[name] for name in ASKED if asked.get(name)}
        wanted = replace(texts, **chosen)
        form = {"texts": {name: asdict(wanted)[name] for name in ASKED}, "wrong": ""}
        if wanted == texts:
            return build(first | {"form": form}, served=True)
        try:
            return build(first | gather(models, wanted) | {"form": form}, served=True)
        except (ValueError, TypeError) as error:
            return build(first | {"form": form | {"wrong": str(error)}}, served=True)

    with serve(make, port) as server:
        address = f"http://{HOST}:{server.server_port}/"
        print(f"serving {address} on this machine alone; Ctrl-C ends it", flush=True)
        if _wanted(open):
            _show(address)
        # A shell's background jobs begin with SIGINT ignored, and `kill` sends SIGTERM: both end it as Ctrl-C does.
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.default_int_handler)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            print("ended")


def _wanted(open: bool | None) -> bool:
    """Whether to open a browser: as told, else where somebody sits in front of a screen."""
    if open is not None:
        return open
    screen = sys.platform != "linux" or "DISPLAY" in os.environ or "WAYLAND_DISPLAY" in os.environ
    return screen and sys.stdout.isatty()


def _show(address: str) -> None:
    import webbrowser

    if not webbrowser.open(address):
        print(f"mmha: no browser found; open {address}", file=sys.stderr)
