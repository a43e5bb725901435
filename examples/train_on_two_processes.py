"""Train on several processes, to the weights of one: python examples/train_on_two_processes.py [PROCESSES]

A small decoder learns to say what stood three letters before, on packed sequences of uneven length. Needs mmha[train].
"""

import sys
import tempfile

import torch
from torch import Tensor, nn

import mmha
from mmha.masks import Causal, Documents
from mmha.train.run import Run, Settings

LETTERS, BACK, WIDTH, PARTS, SEQUENCES = 11, 3, 32, 2, 24


class Decoder(nn.Module):
    """Logits of the letter BACK places before each: tokens (N,), sequences end to end → (N, LETTERS)."""

    def __init__(self) -> None:
        super().__init__()
        self.letters = nn.Embedding(LETTERS, WIDTH)
        self.layer = mmha.nn.TransformerEncoderLayer(WIDTH, 2, 64, 0.0, rotary=mmha.Rotary(WIDTH // 2))
        self.out = nn.Linear(WIDTH, LETTERS)

    def forward(self, tokens: Tensor, lengths: list[int]) -> Tensor:
        mask = Causal() & Documents.from_lengths(lengths)
        return self.out(self.layer(self.letters(tokens)[:, None], src_mask=mask)[:, 0])


def batches(step: int, part: int, parts: int) -> tuple[list[Tensor], list[int]]:
    """One of the parts that a step's batch is cut into: a function of these numbers, whoever computes it."""
    generator = torch.Generator().manual_seed(step)
    lengths = torch.randint(BACK + 1, 20, (SEQUENCES,), generator=generator).tolist()
    return [torch.randint(LETTERS, (n,), generator=generator) for n in lengths][part::parts], lengths[part::parts]


def errors(model: nn.Module, batch: tuple[list[Tensor], list[int]]) -> Tensor:
    """The sum over all letters with one BACK places before them: the mean goes over all parts of a step."""
    logits = model(torch.cat(batch[0]), batch[1]).split(batch[1])
    found = torch.cat([x[BACK:] for x in logits]), torch.cat([row[:-BACK] for row in batch[0]])
    return nn.functional.cross_entropy(*found, reduction="sum")


def main(processes: int = 2) -> None:
    torch.manual_seed(1)  # all processes begin with the same weights
    model, settings = Decoder(), Settings(150, 1e-2, devices=processes, accumulate=PARTS // processes)
    run = Run(model, settings, tempfile.mkdtemp())
    run.fit(batches, errors, counts=lambda batch: [sum(batch[1]) - BACK * len(batch[1])])
    if run.rank == 0:
        held = batches(10**6, 0, 1)
        loss = errors(model.eval(), held).item() / (sum(held[1]) - BACK * SEQUENCES)
        print(f"{processes} processes: {loss:.5f} nats a letter on a batch that was not trained on")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
