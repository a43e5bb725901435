"""`mmha info`: what a bug report needs."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from mmha.cli.printing import examples

EXAMPLES = examples("mmha info", "mmha info --json", "MMHA_ISA=scalar mmha info")


def info(
    json: Annotated[bool, typer.Option("--json", help="Print JSON for programs.")] = False,
) -> None:
    """Show what a bug report needs. Versions, the instruction set in use, threads, CPU and folders."""
    from mmha.bench.machine import everything
    from mmha.cli.printing import console, print_json

    facts = everything()
    if json:
        print_json(facts)
        return
    out = console()
    for name, value in lines(facts):
        out.print(f"[bold]{name:<12}[/bold] ", end="")
        out.print(value, markup=False)


def lines(facts: dict[str, Any]) -> list[tuple[str, str]]:
    """The facts as (name, text) in the order in which a reader asks."""
    kernels, torch = facts["kernels"], facts["torch"]
    if kernels["isa"] is None:
        core = f"not usable: {kernels['error']}"
    else:
        core = (
            f"{kernels['isa']} in use · available here: {' '.join(kernels['available'])} "
            f"· compiled: {' '.join(kernels['compiled'])} · threads of {kernels['pool']}"
        )
    if torch["version"] is None:
        framework = f"not usable: {torch['error']}"
    else:
        framework = f"{torch['version']}, {torch['threads']} threads"
    return [
        ("mmha", facts["mmha"]),
        ("kernels", core),
        ("torch", framework),
        ("cpu", f"{facts['cpu']}, {facts['cpus']} usable"),
        ("python", f"{facts['python']} ({facts['executable']})"),
        ("platform", facts["platform"]),
        ("data", facts["data"]),
        ("environment", " ".join(f"{k}={v}" for k, v in facts["environment"].items()) or "nothing set"),
    ]
