"""Files that a command will write: what cannot be written is said before the work and not after it."""

from __future__ import annotations

from pathlib import Path


def writable(option: str, path: Path | None) -> None:
    """Raise FileNotFoundError, IsADirectoryError or another OSError when `path` cannot become a file."""
    if path is None:
        return
    if path.is_dir():
        raise IsADirectoryError(21, f"expected a file for {option}, got a folder", str(path))
    if not path.parent.is_dir():
        raise FileNotFoundError(2, f"no such folder, for {option} {path.name}", str(path.parent))
    from tempfile import TemporaryFile

    try:
        TemporaryFile(dir=path.parent).close()
    except OSError as error:  # it would name a file that nobody asked for
        raise type(error)(error.errno, f"{error.strerror}, for {option} {path.name}", str(path.parent)) from None


def drawable(option: str, path: Path | None) -> None:
    """Raise ImportError without matplotlib, ValueError when it does not know the ending, or as `writable`."""
    if path is None:
        return
    writable(option, path)
    try:
        from matplotlib.backend_bases import FigureCanvasBase
    except ImportError as error:
        raise ImportError(f'{option} needs matplotlib: pip install "mmha[plot]"') from error
    from mmha.checks import listed, require

    known = FigureCanvasBase.get_supported_filetypes()
    require(path.suffix[1:].lower() in known, option, f"a file ending in {listed(sorted(known))}", path.name)
