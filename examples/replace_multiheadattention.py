"""Replace every torch.nn.MultiheadAttention of a model: python examples/replace_multiheadattention.py"""

import torch
from torch import Tensor, nn

import mmha


class Captioner(nn.Module):
    """A model as one finds it: self-attention over words, and cross-attention to the patches of a picture."""

    def __init__(self, width: int = 48, patch: int = 20) -> None:
        super().__init__()
        self.words = nn.MultiheadAttention(width, 6, batch_first=True)
        self.picture = nn.MultiheadAttention(width, 4, dropout=0.1, kdim=patch, vdim=patch, batch_first=True)
        self.out = nn.Linear(width, 10)

    def forward(self, x: Tensor, patches: Tensor, causal: Tensor, padding: Tensor) -> Tensor:
        x = x + self.words(x, x, x, attn_mask=causal, key_padding_mask=padding)[0]
        return self.out(x + self.picture(x, patches, patches)[0])


def replace(model: nn.Module) -> int:
    """Swap every torch.nn.MultiheadAttention in the model, in place; how many there were."""
    count = 0
    for parent in list(model.modules()):
        for name, old in parent.named_children():
            if type(old) is nn.MultiheadAttention:
                new = mmha.nn.MultiheadAttention(
                    old.embed_dim, old.num_heads, old.dropout, old.in_proj_bias is not None, old.bias_k is not None,
                    old.add_zero_attn, old.kdim, old.vdim, old.batch_first,
                )  # fmt: skip
                new.load_state_dict(old.state_dict())
                setattr(parent, name, new.train(old.training))
                count += 1
    return count


def main() -> None:
    torch.manual_seed(0)
    model = Captioner().eval()
    x, patches = torch.randn(3, 7, 48), torch.randn(3, 11, 20)
    causal = torch.ones(7, 7, dtype=torch.bool).triu(1)  # torch's meaning: True = hidden
    padding = torch.arange(7) < torch.tensor([[0], [2], [7]])  # on the left; the last row has no word at all
    before = model(x, patches, causal, padding)
    print(f"{replace(model)} modules replaced")
    after = model(x, patches, causal, padding)
    seen = ~padding
    print(f"rows that see a word differ by {(after - before)[seen].abs().max():.0e} at most")
    for name, out in (("torch.nn", before), ("mmha.nn", after)):
        print(f"{name}: {int(out[2].isnan().sum())} of the {out[2].numel()} numbers of the row without a word are NaN")


if __name__ == "__main__":
    main()
