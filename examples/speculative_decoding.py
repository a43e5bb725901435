"""Check several guesses in one pass, and get the greedy text: python examples/speculative_decoding.py

What followed the last two tokens when they stood in the text before is guessed to follow again: no draft model.
"""

from functools import partial

import torch

from mmha import KVCache, masks
from mmha.models import causal_lm
from mmha.models.causal_lm.model import CausalLM, Past

PROMPT, LENGTH = "I have a dream", 96  # tokens to write
DEEP, WIDE = 5, 2  # tokens of a guess, and guesses, at most


def guesses(text: list[int], new: list[int]) -> tuple[list[int], list[int]]:
    """A tree: the tokens that no pass has read yet, one below the other, and below the last of them the guesses."""
    tokens, parents = list(new), list(range(-1, len(new) - 1))
    for at in [i for i in range(2, len(text)) if text[i - 2 : i] == text[-2:]][-WIDE:]:
        parents += [len(new) - 1, *range(len(tokens), len(tokens) + len(text[at : at + DEEP]) - 1)]
        tokens += text[at : at + DEEP]
    return tokens, parents


@torch.no_grad()
def read(model: CausalLM, caches: list[KVCache], tokens: list[int], parents: list[int]) -> list[int]:
    """The most probable token after each node of the tree, which follows what the caches hold and is appended."""
    depth = masks.Tree(parents).dense(1, 1, len(tokens), len(tokens))[0].sum(-1) - 1  # siblings stand at one place
    start, x = caches[0].lengths, model.embedding(torch.tensor([tokens]))
    cos, sin = model.rotary.angles(depth + start[:, None])
    for layer, cache in zip(model.layers, caches, strict=True):
        x = layer(x, partial(model.rotary.turn, cos=cos, sin=sin), masks.Tree(parents), Past(cache, None, start))
    return (model.norm(x) @ model.embedding.weight.T)[0].argmax(-1).tolist()


def main() -> None:
    model, tokenizer = causal_lm.load()
    text, kept, passes = tokenizer.encode(PROMPT), 0, 0
    caches = model.new_caches(1, (end := len(text) + LENGTH) + (WIDE + 1) * (DEEP + 1))
    while len(text) < end:
        first, path = len(text) - kept - 1, []
        tokens, parents = guesses(text, text[kept:])
        after, passes, right = read(model, caches, tokens, parents), passes + 1, [first]
        while right:  # down the tree, as long as a guess is what the model says
            path.append(right[0])
            text.append(after[right[0]])
            right = [n for n, up in enumerate(parents) if up == path[-1] and tokens[n] == text[-1]]
        kept += first + sum(node == first + i for i, node in enumerate(path))  # the path, up to its first gap
        for cache in caches:
            cache.truncate(kept)
    plain = causal_lm.generate(model, tokenizer, [PROMPT], causal_lm.Sampling(temperature=0), causal_lm.Limits(LENGTH))
    same = text[end - LENGTH : end] == list(plain[0].tokens)
    print(f"{tokenizer.decode(text[:end])}\n{LENGTH} tokens in {passes} passes; greedy decoding gives the same: {same}")


if __name__ == "__main__":
    main()
