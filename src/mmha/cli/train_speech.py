"""`mmha train speech`: train a speech enhancer on recordings that mmha fetches, or on folders of one's own."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from mmha.cli import scale
from mmha.cli.printing import examples
from mmha.cli.training import check_run, command

STEPS = 8000
EXAMPLES = examples(
    "mmha train speech --out runs/speech --minutes 60 --precision bf16-mixed",
    "mmha train speech --out runs/speech --resume",
    "mmha train speech --speech my-voices --noise my-noises --rooms my-rooms --model published",
)


def speech(
    context: typer.Context,
    speech: Annotated[
        list[Path] | None, typer.Option(help="Folder of clean speech instead of the fetched voices; may be repeated.")
    ] = None,
    noise: Annotated[
        list[Path] | None, typer.Option(help="Folder of noise instead of the fetched ones; may be repeated.")
    ] = None,
    rooms: Annotated[
        list[Path] | None, typer.Option(help="Folder of impulse responses that one row of speech in four goes through.")
    ] = None,
    out: Annotated[Path, typer.Option("--out", "--output", help="Folder of the run and the model.")] = Path(
        "runs/speech"
    ),
    resume: Annotated[bool, typer.Option("--resume", help="Go on where the run in --out stopped.")] = False,
    model: Annotated[str, typer.Option(help="small (1.3 million weights) or published (4.1).")] = "small",
    window: Annotated[int | None, typer.Option(min=0, help="Frames of 16 ms that are seen; 0 = all before.")] = 256,
    batch: Annotated[int, typer.Option(min=1, help="Mixtures of a step.")] = 8,
    seconds: Annotated[float, typer.Option(help="Of a mixture.")] = 4.0,
    steps: Annotated[int | None, typer.Option(min=1, help="Batches to train on.  [default: 8000]")] = None,
    minutes: Annotated[float | None, typer.Option(help="As many steps as fit, by the first ones' time.")] = None,
    rate: Annotated[float, typer.Option(help="Highest learning rate.")] = 1e-3,
    warmup: Annotated[int, typer.Option(min=1, help="Steps until the rate is highest.")] = 600,
    schedule: Annotated[
        str, typer.Option(help="How the rate falls then: noam, with 1/√step, as published; or linear, to 0.")
    ] = "noam",
    seed: Annotated[int, typer.Option(min=0, help="Decides the start and the mixtures.")] = 1,
    threads: Annotated[int, typer.Option(min=0, help="0 is torch's choice; fix it to repeat a run bit for bit.")] = 0,
    precision: scale.Precision = "32-true",
    accumulate: scale.Accumulate = 1,
    checkpoint_activations: scale.Checkpointing = False,
    devices: scale.Devices = 1,
    nodes: scale.Nodes = 1,
    strategy: scale.Strategy = "auto",
    json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Train a speech enhancer on clean speech and noise, mixed anew for each step."""
    from mmha.cli.printing import print_json
    from mmha.cli.speech_job import Job, load, print_result

    options = dict(context.params)
    _check(options)
    if threads:
        import torch

        torch.set_num_threads(threads)
    result = Job(load(speech, noise, rooms), options, command(context)).run()
    if result is None:  # the first process alone has one
        return
    if json:
        print_json(result)
    else:
        print_result(result)


def _check(options: dict[str, Any]) -> None:
    """Raise ValueError for options that do not go together."""
    from mmha import checks
    from mmha.models.mhanet import BUILDERS

    checks.one_of("model", options["model"], tuple(BUILDERS))
    checks.one_of("schedule", options["schedule"], ("noam", "linear"))
    checks.require(checks.number("seconds", options["seconds"]) > 0, "seconds", "a number > 0", options["seconds"])
    check_run(options)
