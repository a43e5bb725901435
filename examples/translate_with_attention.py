"""Translate a sentence, draw what each word looked at: python examples/translate_with_attention.py [PICTURE.png [TEXT]]

The translator from English to German that ships with mmha writes four candidates, and the decoder's attention to the
source is asked for the weights behind the best one. No network.
"""

import sys

from matplotlib.figure import Figure

from mmha.models.seq2seq import SHIPPED, Beams, load
from mmha.models.seq2seq.alignment import align
from mmha.models.seq2seq.text import translate_texts

TEXT = "Click the button to save your changes."


def main(path: str = "alignment.png", text: str = TEXT) -> None:
    model, tokenizer = load(SHIPPED["de"])
    (found,) = translate_texts(model, tokenizer, [text], Beams(width=4, alpha=0.6, n_best=4))
    for wording in found.wordings:
        print(f"{wording.score:7.3f}  {wording.text}")

    layers = range(model.config.decoder_layers)
    figure = Figure(figsize=(5 * len(layers), 4.5), layout="constrained")
    for layer, axes in zip(layers, figure.subplots(1, len(layers)), strict=True):
        seen = align(model, tokenizer, text, found.wordings[0].tokens, layer)
        axes.imshow(seen.weights.numpy(), cmap="Blues", vmin=0, vmax=1)
        axes.set_title(f"layer {layer}")
        axes.set_xticks(range(len(seen.source)), seen.source, rotation=60)
        axes.set_yticks(range(len(seen.target)), seen.target)
    print("the last layer, word by word:")
    for word, row in zip(seen.target, seen.weights, strict=True):
        print(f"  {word:>16} looked at {seen.source[int(row.argmax())]!r} with {float(row.max()):.0%}")
    figure.savefig(path, dpi=80)
    print(f"wrote {path}")


if __name__ == "__main__":
    main(*sys.argv[1:])
