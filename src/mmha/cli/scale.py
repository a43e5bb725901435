"""The options of commands that train through Lightning: how a step is computed, and by how many processes."""

from __future__ import annotations

from typing import Annotated

import typer

Precision = Annotated[str, typer.Option(help="32-true, or bf16-mixed: faster where the CPU multiplies bfloat16.")]
Accumulate = Annotated[int, typer.Option(min=1, help="Parts of a step that are computed one after the other.")]
Checkpointing = Annotated[
    bool, typer.Option("--checkpoint-activations", help="Compute layers again in backward: less memory, more time.")
]
Devices = Annotated[int, typer.Option(min=1, help="Processes on this machine; they divide each step.")]
Nodes = Annotated[int, typer.Option(min=1, help="Machines, each started by torchrun or told its NODE_RANK.")]
Strategy = Annotated[str, typer.Option(help="ddp, fsdp (weights shared out as well), or auto: ddp for several.")]
