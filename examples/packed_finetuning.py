"""Fine-tune on packed sequences instead of padded ones, to the same loss: python examples/packed_finetuning.py

A small Llama with random weights; no network.
"""

import time

import torch
from transformers import LlamaConfig, LlamaForCausalLM

import mmha

LENGTHS = [17, 203, 31, 88, 160, 45, 23, 11, 67, 120, 29, 54]
SIZES = {"vocab_size": 499, "hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": 3}
STEPS, IGNORED = 3, -100


def batches() -> dict[str, dict[str, torch.Tensor]]:
    """The same sequences twice, as arguments of the model."""
    torch.manual_seed(0)
    real = torch.arange(max(LENGTHS)) < torch.tensor(LENGTHS)[:, None]
    ids = torch.randint(1, SIZES["vocab_size"], real.shape) * real
    labels = ids.masked_fill(~real, IGNORED)
    labels[:, 0] = IGNORED  # the first token of a sequence is not to be told from the last of another
    packed = {
        "input_ids": mmha.pack(ids, LENGTHS)[0],
        "labels": mmha.pack(labels, LENGTHS)[0],
        "position_ids": mmha.nn.packed_positions(LENGTHS)[None],
    }
    return {"padded": {"input_ids": ids, "labels": labels, "attention_mask": real.long()}, "packed": packed}


def fine_tune(batch: dict[str, torch.Tensor]) -> tuple[list[float], float]:
    """The loss of each step, and the seconds that they took together."""
    torch.manual_seed(1)
    model = LlamaForCausalLM._from_config(LlamaConfig(**SIZES), attn_implementation="mmha").train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    losses, start = [], time.perf_counter()
    for _ in range(STEPS):
        optimizer.zero_grad()
        loss = model(**batch, use_cache=False).loss
        loss.backward()
        optimizer.step()
        losses.append(round(loss.item(), 5))
    return losses, time.perf_counter() - start


def main() -> None:
    mmha.huggingface.register()
    runs = {name: fine_tune(batch) for name, batch in batches().items()}
    for name, batch in batches().items():
        (losses, seconds), (rows, columns) = runs[name], batch["input_ids"].shape
        print(f"{name}: {rows} x {columns} = {rows * columns} tokens a step, {seconds:.2f} s, losses {losses}")
    apart = max(abs(a - b) for a, b in zip(runs["padded"][0], runs["packed"][0], strict=True))
    print(f"the losses differ by {apart:.0e} at most; packed is {runs['padded'][1] / runs['packed'][1]:.1f} x as fast")


if __name__ == "__main__":
    main()
