"""Draw docs/images/masks.png, the picture in the README: python docs/draw_masks.py [FILE]"""

from __future__ import annotations

import sys
from pathlib import Path

from matplotlib.figure import Figure

from mmha import masks

SIZE = 24
PICTURES = (
    ("causal", "each token sees itself and what came before"),
    ("window(5)", "itself and the 5 before: long texts, audio"),
    ("causal & documents(6, 10, 8)", "three texts packed into one row"),
    ("causal | prefix(8)", "a prompt read both ways, then generation"),
    ("causal & (window(3) | global(0, 1))", "two tokens that everybody sees"),
    ("window(6, 6) & dilated(3)", "every third neighbour, both sides"),
)


def main(path: Path) -> None:
    """Six masks in two rows, titled by the notation that `mmha mask` reads."""
    figure = Figure(figsize=(10.5, 7.6), layout="constrained")
    figure.get_layout_engine().set(w_pad=0.15, h_pad=0.12)
    for axes, (notation, meaning) in zip(figure.subplots(2, 3).flat, PICTURES, strict=True):
        masks.parse(notation).plot(SIZE, ax=axes)
        axes.set_title(f"{notation}\n", fontsize=10.5, family="monospace", color="#222222")
        axes.text(0.5, 1.02, meaning, transform=axes.transAxes, ha="center", fontsize=9, color="#666666")
        axes.set(xticks=[], yticks=[])
        axes.set_xlabel("key", fontsize=9, color="#666666")
        axes.set_ylabel("query", fontsize=9, color="#666666")
    figure.savefig(path, dpi=130)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent / "images" / "masks.png")
