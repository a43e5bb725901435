"""`mmha generate`: continue texts, or see step by step how a causal language model does it."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mmha.cli.printing import examples

if TYPE_CHECKING:
    from mmha.models.causal_lm import CausalLM, Tokenizer
    from mmha.models.causal_lm.generation import Completion, Limits, Piece

EXAMPLES = examples(
    'mmha generate "ROMEO."',
    'mmha generate "To be" --temperature 0 --max-new-tokens 40',
    'mmha generate "HAMLET." "OPHELIA." --seed 7 --stop "\\n\\n" --json',
    'mmha generate "Once" --max-new-tokens 2000 --window 128 --sinks 4',
    'mmha generate --explain "I have a dream"',
)
DTYPES = ("float32", "bfloat16", "float16", "int8")
LENGTH, TEMPERATURE, SINKS, BEAM_PENALTY = 128, 0.8, 4, 1.0

Prompts = Annotated[
    list[str] | None,
    typer.Argument(metavar="PROMPT", help="Texts to continue, each in quotes; else --file or standard input."),
]
File = Annotated[
    Path | None, typer.Option(metavar="FILE", help="One more prompt: the text of FILE, without its last line break.")
]
Model = Annotated[str | None, typer.Option(metavar="NAME|FOLDER", help="A model from `mmha train lm`.")]
Length = Annotated[int | None, typer.Option(help=f"The most tokens to write. Default {LENGTH}.")]
Temperature = Annotated[float | None, typer.Option(help=f"0: always the most probable token. Default {TEMPERATURE}.")]
TopK = Annotated[int | None, typer.Option(help="Draw among so many of the most probable tokens.")]
TopP = Annotated[float | None, typer.Option(help="Draw among the fewest tokens that share this probability.")]
MinP = Annotated[float | None, typer.Option(help="Draw among tokens with this share of the best one's probability.")]
Penalty = Annotated[float | None, typer.Option(help="Above 1: what stands in the text gets less probable.")]
Width = Annotated[int | None, typer.Option(help="Search for the most probable text with so many beams; draw nothing.")]
Power = Annotated[float | None, typer.Option(help="With --beams: texts compare by Σ log p / length^this. Default 1.")]
Seed = Annotated[int | None, typer.Option(help="The same seed, the same text. Default: a new one each time.")]
Stop = Annotated[list[str] | None, typer.Option(help="End before this text (\\n: a line break); may be repeated.")]
Window = Annotated[
    int | None,
    typer.Option(help="See only so many last tokens; 0: all. Default: the training context, if the text outgrows it."),
]
Sinks = Annotated[int | None, typer.Option(help=f"First tokens that a window keeps in sight. Default {SINKS}.")]
CacheDtype = Annotated[str, typer.Option(help=f"What the caches store: {', '.join(DTYPES)}.")]
Explain = Annotated[bool, typer.Option("--explain", help="Show what is visible, scores, weights and candidates.")]
Layer = Annotated[int | None, typer.Option(help="With --explain: the layer, from 0; -1 is the last.")]
Head = Annotated[int | None, typer.Option(help="With --explain: the head, from 0.")]
Plot = Annotated[Path | None, typer.Option(metavar="FILE", help="With --explain: draw it to FILE (png, svg, pdf).")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]


def generate(
    prompts: Prompts = None,
    file: File = None,
    model: Model = None,
    max_new_tokens: Length = None,
    temperature: Temperature = None,
    top_k: TopK = None,
    top_p: TopP = None,
    min_p: MinP = None,
    repetition_penalty: Penalty = None,
    beams: Width = None,
    length_penalty: Power = None,
    seed: Seed = None,
    stop: Stop = None,
    window: Window = None,
    sinks: Sinks = None,
    cache_dtype: CacheDtype = DTYPES[0],
    explain: Explain = False,
    layer: Layer = None,
    head: Head = None,
    plot: Plot = None,
    json: Json = False,
) -> None:
    """Continue texts with a causal language model. One prompt is shown as it grows; several are one batch."""
    from mmha.checks import one_of

    drawing: dict[str, Any] = {"temperature": temperature, "top_k": top_k, "top_p": top_p, "min_p": min_p}
    drawing |= {"repetition_penalty": repetition_penalty}
    ending: dict[str, Any] = {"max_new_tokens": max_new_tokens, "stop": stop, "window": window, "sinks": sinks}
    search, picture = {"length_penalty": length_penalty}, {"layer": layer, "head": head, "plot": plot}
    _refuse("without --beams", beams is not None, drawing | {"seed": seed})
    _refuse("without --explain", explain, drawing | search | ending | {"seed": seed, "beams": beams})
    _refuse("with --beams", beams is None, search)
    _refuse("with --explain", not explain, picture)
    one_of("cache_dtype", cache_dtype, DTYPES)
    texts = _texts(prompts or [], file)
    if explain:
        from mmha.cli.explain import explain as show

        show(model, texts, layer, head, plot, json)
    elif beams is not None:
        _search(model, texts, {"width": beams} | _given(search), ending | {"dtype": cache_dtype}, json)
    else:
        _draw(model, texts, {"temperature": TEMPERATURE} | _given(drawing), ending | {"dtype": cache_dtype}, seed, json)


def _given(options: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}


def _refuse(expected: str, wrong: bool, options: dict[str, Any]) -> None:
    """Options that would be ignored may not be given."""
    for name in _given(options) if wrong else ():
        other = "got both" if expected.startswith("without") else "got it alone"
        raise ValueError(f"--{name.replace('_', '-')}: expected it {expected}, {other}")


def _texts(prompts: Sequence[str], file: Path | None) -> list[str]:
    """The prompts in order, the file's last; standard input when there are none."""
    from mmha.data import text

    found = list(prompts)
    if file is not None:
        found.append(text.read(file).removesuffix("\n"))
    if not found:
        if sys.stdin.isatty():
            raise ValueError('prompt: expected a text, a file or standard input, got none: try mmha generate "ROMEO."')
        found.append(text.decode(sys.stdin.buffer.read(), "standard input").removesuffix("\n"))
    return found


def _draw(
    name: str | None, texts: list[str], drawing: dict[str, Any], ending: dict[str, Any], seed: int | None, json: bool
) -> None:
    """Draw a continuation of each text and print it."""
    import secrets

    from mmha.models.causal_lm.generation import stream
    from mmha.models.causal_lm.sampling import Sampling

    sampling = Sampling(**drawing)
    seed = secrets.randbelow(2**31) if seed is None else seed
    model, tokenizer = _load(name)
    limits = _limits(model, tokenizer, texts, **ending)
    pieces = stream(model, tokenizer, texts, sampling, limits, seed)
    if json:
        done = sorted((p.row, p.completion) for p in pieces if p.completion)
        _print_json([completion for _, completion in done], drawing | {"seed": seed}, limits)
    else:
        _print(texts, pieces)


def _search(name: str | None, texts: list[str], search: dict[str, Any], ending: dict[str, Any], json: bool) -> None:
    """Search for the most probable continuation of each text and print it."""
    from mmha.models.causal_lm.beam import Beams, beam_search
    from mmha.models.causal_lm.generation import Piece

    beams = Beams(**search)
    model, tokenizer = _load(name)
    limits = _limits(model, tokenizer, texts, **ending)
    best = [found[0] for found in beam_search(model, tokenizer, texts, beams, limits)]
    if json:
        _print_json(best, {"beams": beams.width, "length_penalty": beams.length_penalty}, limits)
    else:
        _print(texts, (Piece(row, completion.text, completion) for row, completion in enumerate(best)))


def _load(name: str | None) -> tuple[CausalLM, Tokenizer]:
    from mmha.models.causal_lm import load

    return load() if name is None else load(name)


def _limits(
    model: CausalLM, tokenizer: Tokenizer, texts: Sequence[str], *, max_new_tokens: int | None,
    stop: Sequence[str] | None, window: int | None, sinks: int | None, dtype: str,
) -> Limits:  # fmt: skip
    """What ends the texts and what the caches keep: beyond the training context, by default, a window of that size."""
    import torch

    from mmha.models.causal_lm.generation import Limits

    length = LENGTH if max_new_tokens is None else max_new_tokens
    stops = [text.replace("\\n", "\n").replace("\\t", "\t") for text in stop or ()]
    if window is None:
        longest = max(len(tokenizer.encode(text)) for text in texts) + length
        window = model.config.context if longest > model.config.context else 0
    kept = (SINKS if window else 0) if sinks is None else sinks
    return Limits(length, tuple(stops), window or None, kept, getattr(torch, dtype))


def _print(texts: Sequence[str], pieces: Iterable[Piece]) -> None:
    """Each text with its continuation, in order, a blank line between two; the one whose turn it is grows in sight."""
    waiting, done, current = [""] * len(texts), [False] * len(texts), 0
    _write(texts[0], dim=True)
    for piece in pieces:
        waiting[piece.row] += piece.text
        done[piece.row] = piece.completion is not None
        while current < len(texts):
            _write(waiting[current])
            waiting[current] = ""
            if not done[current]:
                break
            current += 1
            sys.stdout.write("\n")
            if current < len(texts):
                sys.stdout.write("\n")
                _write(texts[current], dim=True)


def _write(text: str, dim: bool = False) -> None:
    """Show a piece at once; on a terminal the prompt is dim, and control characters, which a model may write, are not
    obeyed."""
    if sys.stdout.isatty():
        from rich.text import Text

        from mmha.cli.printing import console, harmless

        console().print(Text(harmless(text), "dim" if dim else ""), end="")
    else:
        sys.stdout.write(text)
    sys.stdout.flush()


def _print_json(completions: Sequence[Completion], choice: dict[str, Any], limits: Limits) -> None:
    from dataclasses import asdict

    from mmha.cli.printing import print_json

    cache = {"window": limits.window, "sinks": limits.sinks, "cache_dtype": str(limits.dtype).removeprefix("torch.")}
    found = [
        asdict(c) | {"new_tokens": len(c.tokens), "log_probability": sum(c.log_probabilities)} for c in completions
    ]
    print_json({"settings": choice | cache, "completions": found})
