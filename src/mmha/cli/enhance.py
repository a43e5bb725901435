"""`mmha enhance`: clean recordings, folders of them, or a live stream of raw samples in a pipe."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mmha.cli.printing import examples

if TYPE_CHECKING:
    from mmha.models.mhanet import Enhancer

EXAMPLES = examples(
    "mmha enhance noisy.wav clean.wav",
    "mmha enhance interview.flac clean.flac --plot before-and-after.png",
    "mmha enhance recordings/ cleaned/",
    "arecord -f S16_LE -r 16000 -t raw | mmha enhance - - | aplay -f S16_LE -r 16000",
)
RATE, CHANNELS, FORMAT = 16000, 1, "s16le"
PIPE = "-"

Noisy = Annotated[str, typer.Argument(metavar="NOISY", help="A sound file, a folder, or - for raw samples.")]
Clean = Annotated[str, typer.Argument(metavar="CLEAN", help="Where to: a file or folder, or - for raw samples.")]
Gain = Annotated[str, typer.Option(help="mmse-lsa, mmse-stsa, wf, srwf, cwf, irm or ibm (leaves least noise).")]
Release = Annotated[float, typer.Option(help="How fast gains may fall, dB a second; inf: at once.")]
Limit = Annotated[float, typer.Option(help="By how many dB noise is taken down at most; inf: no limit.")]
Window = Annotated[int | None, typer.Option(help="Frames of 16 ms to look back on. Default: the model's.")]
Weights = Annotated[str, typer.Option(help="float32 (exact), bfloat16, or int8 (a live stream costs least).")]
Model = Annotated[Path | None, typer.Option(metavar="FILE", help="A model from `mmha train speech`.")]
Rate = Annotated[int | None, typer.Option(help=f"With - for NOISY: its samples a second. Default {RATE}.")]
Channels = Annotated[int | None, typer.Option(help=f"With - for NOISY: its channels. Default {CHANNELS}.")]
Format = Annotated[str | None, typer.Option(help=f"With -: s16le, s32le or f32le. Default {FORMAT}.")]
Plot = Annotated[
    Path | None, typer.Option(metavar="FILE", help="Draw the beginning before and after, the gain and the attention.")
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]


def enhance(
    noisy: Noisy,
    clean: Clean,
    gain: Gain = "cwf",
    release: Release = 200.0,
    limit: Limit = float("inf"),
    window: Window = None,
    weights: Weights = "float32",
    model: Model = None,
    rate: Rate = None,
    channels: Channels = None,
    format: Format = None,
    plot: Plot = None,
    json: Json = False,
) -> None:
    """Take the noise out of speech. Rate, channels, length and coding stay; what lies above 8 kHz is lost."""
    from mmha import checks
    from mmha.cli.files import drawable

    piped = [name for name in (noisy, clean) if name == PIPE]
    for name, value in (("--rate", rate), ("--channels", channels)):
        checks.require(noisy == PIPE or value is None, name, "it with - for NOISY", "it with a file")
    checks.require(bool(piped) or format is None, "--format", "it with -", "it with files")
    checks.require(clean != PIPE or not json, "--json", "it with a file for CLEAN", "it with -")
    checks.require(not piped or plot is None, "--plot", "it with files", "it with -")
    drawable("--plot", plot)
    names = ("gain", "window", "weights", "release", "limit")
    with checks.renamed(**{name: f"--{name}" for name in names}):
        enhancer = _enhancer(model, gain, window, weights, release, limit)
    if piped:
        from mmha.cli import enhance_pipe

        raw = enhance_pipe.Raw(
            format or FORMAT, RATE if rate is None else rate, CHANNELS if channels is None else channels
        )
        raise typer.Exit(enhance_pipe.run(enhancer, noisy, clean, raw, json))
    from mmha.cli import enhance_files

    raise typer.Exit(enhance_files.run(enhancer, Path(noisy), Path(clean), plot, json))


def _enhancer(
    model: Path | None, gain: str, window: int | None, weights: str, release: float, limit: float
) -> Enhancer:
    from mmha.models.mhanet import Enhancer, load

    return Enhancer(load() if model is None else load(model), gain, window, weights, release, limit)
