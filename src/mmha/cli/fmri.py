"""`mmha fmri`: from runs of volumes and a task to time courses, networks and a page that shows them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mmha.cli import scale
from mmha.cli.printing import examples

STEPS = 1500
FIT_EXAMPLES = examples(
    "mmha fmri fit --data haxby --out runs/haxby",
    "mmha fmri fit run-1.nii.gz run-2.nii.gz --events e1.tsv --events e2.tsv --mask mask.nii.gz --out runs/mine",
    "mmha fmri fit all-runs.nii.gz --runs 121,121,119 --events events.tsv --blocks --out runs/blocks",
    "mmha fmri fit run-1.nii.gz --events design.tsv --size published --faithful --out runs/published --resume",
)
REPORT_EXAMPLES = examples("mmha fmri report runs/haxby")

app = typer.Typer(
    name="fmri",
    help="Model the signal of a brain at a task (MAMSM), and show what follows the task.",
    no_args_is_help=True,
    rich_markup_mode=None,
    epilog=examples("mmha fmri fit --data haxby --out runs/haxby", "mmha fmri report runs/haxby"),
)


@app.callback()
def root() -> None:
    """Model the signal of a brain at a task (MAMSM), and show what follows the task."""


@app.command("fit", short_help="Fit the model to your runs, or to Haxby's.", epilog=FIT_EXAMPLES)
def fit(
    context: typer.Context,
    bold: Annotated[list[Path] | None, typer.Argument(metavar="BOLD", help="4-D NIfTI images, one a run.")] = None,
    events: Annotated[
        list[Path] | None, typer.Option(metavar="FILE", help="BIDS events.tsv, once for each run; or a design matrix.")
    ] = None,
    mask: Annotated[Path | None, typer.Option(metavar="FILE", help="3-D image; else nilearn finds one.")] = None,
    confounds: Annotated[list[Path] | None, typer.Option(metavar="FILE", help="A table a run, taken out.")] = None,
    runs: Annotated[
        str | None,
        typer.Option(
            metavar="VOLUMES", help="Of each run, where one image holds several: 121,121,119; or 121, of all."
        ),
    ] = None,
    tr: Annotated[float | None, typer.Option(help="Seconds between volumes, where the header does not say.")] = None,
    drop: Annotated[bool, typer.Option("--drop", help="Leave out voxels that are constant or NaN.")] = False,
    hrf: Annotated[str, typer.Option(help="Response to an event: spm or glover.")] = "spm",
    background: Annotated[
        Path | None, typer.Option(metavar="FILE", help="3-D image to draw maps on; else the mean volume.")
    ] = None,
    data: Annotated[str | None, typer.Option(help="haxby: fetched instead of BOLD.")] = None,
    out: Annotated[Path, typer.Option("--out", "--output", help="Folder of the run and of what it finds.")] = Path(
        "runs/fmri"
    ),
    resume: Annotated[bool, typer.Option("--resume", help="Go on where the run in --out stopped.")] = False,
    size: Annotated[str, typer.Option(help="small (minutes), or published: 3 layers, 6 heads, width 400.")] = "small",
    window: Annotated[
        int | None, typer.Option(min=0, help="Volumes to either side that one sees, 0 = all. Default: small 8, else 0.")
    ] = None,
    faithful: Annotated[
        bool, typer.Option("--faithful", help="Network, masks, loss and features as the released code has them.")
    ] = False,
    blocks: Annotated[
        bool, typer.Option("--blocks", help="Hide whole blocks of the task, not values anywhere.")
    ] = False,
    steps: Annotated[int, typer.Option(min=1, help="Batches that hidden values are learned from.")] = STEPS,
    epochs: Annotated[int, typer.Option(min=1, help="Passes in which time courses are fitted.")] = 30,
    smooth: Annotated[float, typer.Option(help="Seconds that attention is averaged over, three times.")] = 7.2,
    seed: Annotated[int, typer.Option(min=0, help="Decides the start and the order.")] = 1,
    threads: Annotated[int, typer.Option(min=0, help="0 is torch's choice; fix it to repeat a run bit for bit.")] = 0,
    precision: scale.Precision = "32-true",
    json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Learn to find hidden values, then time courses that follow the task; write maps, tables and report.html."""
    from mmha.cli.fmri_job import Job, print_result
    from mmha.cli.printing import print_json

    job = Job(dict(context.params))
    job.check()
    if threads:
        import torch

        torch.set_num_threads(threads)
    result = job.run()
    if json:
        print_json(result)
    else:
        print_result(result, out)


@app.command("report", short_help="Make the page of a fit again.", epilog=REPORT_EXAMPLES)
def report(folder: Annotated[Path, typer.Argument(metavar="DIR", help="What `mmha fmri fit` wrote to.")]) -> None:
    """Make report.html again from the tables and maps in a folder, for instance after changing them."""
    from mmha import checkpoint
    from mmha.cli.fmri_files import read
    from mmha.cli.fmri_report import page

    place = folder / "report.html"
    checkpoint.write(place, page(read(folder)).encode())
    print(place)
