"""Plot what each head of a trained model sees: python examples/plot_heads.py [PICTURE.png [TEXT]]

The language model that ships with mmha reads a line, and every layer is asked for its weights. No network.
"""

import sys

import torch
from matplotlib.figure import Figure

import mmha
from mmha.models import causal_lm
from mmha.models.causal_lm.explanation import shown

LINE = "To be, or not to be, that is the question"


@torch.no_grad()
def weights_of(model: causal_lm.CausalLM, tokens: torch.Tensor) -> torch.Tensor:
    """The weights of all layers and heads (layers, H, T, T): row i is how much token i looks at each token."""
    found: list[torch.Tensor] = []

    def ask(attention: torch.nn.Module, given: tuple) -> None:
        x, turn, mask, *_ = given
        _, weights = mmha.attention(*attention.split(x, turn), mask, return_weights=True)
        found.append(weights[0])

    hooks = [layer.attention.register_forward_pre_hook(ask) for layer in model.layers]
    model(tokens[None])
    for hook in hooks:
        hook.remove()
    return torch.stack(found)


def main(path: str = "heads.png", text: str = LINE) -> None:
    model, tokenizer = causal_lm.load()
    tokens = torch.tensor(tokenizer.encode(text))
    labels = [shown(tokenizer, int(token)) for token in tokens]
    weights = weights_of(model, tokens)
    layers, heads, count, _ = weights.shape
    drawn = [(layer, head) for layer in range(layers - 2, layers) for head in range(heads)]
    figure = Figure(figsize=(3.2 * heads, 7), layout="constrained")
    print(f"{count} tokens, {layers} layers of {heads} heads; of the last two, where the weights are on average:")
    for (layer, head), axes in zip(drawn, figure.subplots(2, heads).flat, strict=True):
        seen = weights[layer, head]
        itself, before = seen.diagonal()[1:].mean(), seen.diagonal(-1).mean()
        column = int(seen.tril(-2).sum(0)[: count // 2].div(torch.arange(count, 0, -1)[: count // 2]).argmax())
        print(f"  layer {layer}, head {head}: {itself:4.0%} on itself, {before:4.0%} on the token before, "
              f"{seen[column + 2 :, column].mean():4.0%} on {labels[column]!r} from further on")  # fmt: skip
        axes.imshow(seen.numpy(), cmap="Blues", vmin=0, vmax=1)
        axes.set_title(f"layer {layer}, head {head}")
        axes.set_xticks(range(count), labels, rotation=90, fontsize=7)
        axes.set_yticks(range(count), labels, fontsize=7)
    figure.savefig(path, dpi=80)
    print(f"wrote {path}")


if __name__ == "__main__":
    main(*sys.argv[1:])
