"""The `mmha` program: which commands there are, and the one place where an error becomes a line and an exit code.

Exit codes: 0 it worked · 1 a bug of ours · 2 bad input or a missing file, said in one line · 130 interrupted.
`MMHA_TRACEBACK=1` shows where an error came from.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from mmha.cli import (
    bench,
    data,
    demo,
    embed,
    enhance,
    fill_mask,
    fmri,
    generate,
    info,
    mask,
    tag,
    train,
    translate,
    view,
)
from mmha.cli.printing import examples, worded

# typer keeps its own copy of click's classes or not, depending on its version: this names the base of either.
UsageError: type[Exception] = typer.BadParameter.__bases__[0]
CliError: type[Exception] = UsageError.__bases__[0]
USER_ERRORS = (ValueError, TypeError, OSError, NotImplementedError, ImportError, MemoryError)

# Plain help: rich's panels cost another 0.2 s before the first word is read.
app = typer.Typer(
    name="mmha",
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog=examples("mmha demo", 'mmha tag "I saw a saw"', 'mmha mask "causal & window(4)" --size 12', "mmha bench"),
)


@app.callback(invoke_without_command=True)
def root(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version and leave.")] = False,
) -> None:
    """Masked multi-head attention for PyTorch on CPUs: see masks, time them, and put them to work."""
    if version:
        import mmha

        print(f"mmha {mmha.__version__}")
    elif context.invoked_subcommand is None:
        print(context.get_help())


app.command("demo", epilog=demo.EXAMPLES)(demo.demo)
app.command("tag", short_help="Tag each word with its part of speech.", epilog=tag.EXAMPLES)(tag.tag)
app.command("generate", short_help="Continue a text, or see how it is done.", epilog=generate.EXAMPLES)(
    generate.generate
)
app.command("embed", short_help="Turn texts into vectors; search by meaning.", epilog=embed.EXAMPLES)(embed.embed)
app.command("fill-mask", short_help="Show what may stand behind a [MASK].", epilog=fill_mask.EXAMPLES)(
    fill_mask.fill_mask
)
app.command("translate", short_help="Translate from English.", epilog=translate.EXAMPLES)(translate.translate)
app.command("enhance", short_help="Take the noise out of speech.", epilog=enhance.EXAMPLES)(enhance.enhance)
app.command("mask", epilog=mask.EXAMPLES)(mask.mask)
app.command("view", short_help="Make a page to look at attention.", epilog=view.EXAMPLES)(view.view)
app.command("bench", short_help="Time attention beside torch, here.", epilog=bench.EXAMPLES)(bench.bench)
app.command("info", epilog=info.EXAMPLES)(info.info)
app.add_typer(data.app, name="data")
app.add_typer(train.app, name="train", short_help="Train a model, or go on with a run.")
app.add_typer(fmri.app, name="fmri", short_help="Time courses and networks from task fMRI.")


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point of the `mmha` script; leaves through SystemExit."""
    sys.exit(run(arguments))


def run(arguments: Sequence[str] | None = None) -> int:
    """Run one command line and return the exit code; an error is one line on stderr."""
    open_closed_streams()
    for stream in (sys.stdout, sys.stderr):
        # A terminal or pipe in an old encoding shows "?" for a glyph it lacks; it does not end the program.
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
    try:
        try:
            code = int(app(arguments, prog_name="mmha", standalone_mode=False) or 0)
        except CliError as error:
            if type(error).__name__ != "NoArgsIsHelpError":  # `mmha data` alone: its message is the help
                raise
            print(error.format_message())  # type: ignore[attr-defined]
            code = 0
        sys.stdout.flush()
        return code
    except SystemExit as left:  # click's own answer to a broken pipe is to leave with 1
        if isinstance(left.__context__, BrokenPipeError):
            return report(left.__context__)
        raise
    except Exception as error:
        if os.environ.get("MMHA_TRACEBACK"):
            raise
        return report(error)


def open_closed_streams() -> None:
    """Nothing comes from a stream that was closed (`mmha ... <&-`), and what is written to it goes nowhere.

    Otherwise the next file to be opened would get its number, and what is meant for the stream.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open(mode, encoding="utf-8"))  # noqa: SIM115 (until the end)


def report(error: Exception) -> int:
    """Say the error in one line on stderr; the exit code is 2 when the input was at fault and 1 when we were."""
    if isinstance(error, BrokenPipeError):  # the reader has left (`mmha ... | head`): nothing to say, nobody to hear
        sys.stdout = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115 (the interpreter flushes it at exit)
        return 0
    if isinstance(error, typer.Abort):
        return complain("aborted", 130)
    if isinstance(error, CliError):
        context = getattr(error, "ctx", None)
        where = f" (see '{context.command_path} --help')" if context else ""
        return complain(error.format_message().rstrip(".") + where, 2)  # type: ignore[attr-defined]
    if isinstance(error, USER_ERRORS):
        return complain(worded(error), 2)
    return complain(f"{type(error).__name__}: {error} (a bug of ours: MMHA_TRACEBACK=1 shows where)", 1)


def complain(text: str, code: int) -> int:
    """One line on stderr, whatever the text holds."""
    print("mmha: " + " ".join(text.split()), file=sys.stderr)
    return code
