"""Where BERT begins: words at their shares, and heads that look at the neighbours of every place."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from mmha.models import mamsm
from mmha.models.bert import Bert, Config, nano, tiny
from mmha.train import beginning


@torch.no_grad()
def test_words_begin_at_their_shares() -> None:
    bert = Bert(Config(vocabulary=101, width=14, layers=1, heads=2, hidden=23))
    beginning.share_words(bert, [[[5, 5, 7], [5]], [[8]]])
    for name, weight in bert.heads["words"].named_parameters():
        if name != "bias":
            weight.zero_()
    shares = bert.words(torch.randn(1, 14)).softmax(-1)[0]
    assert shares[[5, 7, 9]].tolist() == pytest.approx([3.5 / 55.5, 1.5 / 55.5, 0.5 / 55.5])


def looks(bert: Bert, tokens: Tensor) -> Tensor:
    """What the first layer's heads look at, from the formula: (heads, N, N)."""
    attention, heads = bert.layers[0].self_attn, bert.config.heads
    x = bert.embedding(tokens, torch.arange(len(tokens)), None)
    query, key, _ = (x @ attention.in_proj_weight.T).unflatten(-1, (3, heads, -1)).permute(1, 2, 0, 3)
    return (query @ key.mT / query.shape[-1] ** 0.5).softmax(-1)


@pytest.mark.parametrize("config", [nano(997), tiny(997), Config(997, width=210, layers=1, heads=3, hidden=7)])
@torch.no_grad()
def test_heads_look_beside(config: Config) -> None:
    torch.manual_seed(3)
    bert = Bert(config).eval()
    tokens = torch.randint(997, (113,))
    even = looks(bert, tokens)
    assert even.max() < 0.1
    beginning.look_beside(bert)
    weights = looks(bert, tokens)
    for head, offset in zip(range(config.heads), beginning.OFFSETS, strict=False):
        seen = [float(weights[head].diagonal(o).mean()) for o in range(-5, 6)]
        assert max(range(11), key=seen.__getitem__) == offset + 5
        assert seen[offset + 5] > 0.6
    if config.heads > 4:
        assert torch.allclose(weights[4:], even[4:], atol=0.1)  # positions have changed, the head has not


@torch.no_grad()
def test_a_narrow_embedding_gets_positions_alone() -> None:
    bert = Bert(Config(101, width=30, layers=2, heads=2, hidden=23, embedding=14, groups=1))
    before = {name: weight.clone() for name, weight in bert.state_dict().items()}
    beginning.look_beside(bert)
    changed = {name for name, weight in bert.state_dict().items() if not torch.equal(weight, before[name])}
    assert changed == {"embedding.positions.weight"}


@torch.no_grad()
def test_values_begin_at_their_shares_and_heads_look_beside() -> None:
    torch.manual_seed(3)
    model = mamsm.MAMSM(mamsm.small(positions=131)).eval()
    seen = torch.randint(300, 701, (1, 113))
    beginning.know_values(model, [mamsm.frame(seen), mamsm.frame(torch.full((7, 5), 500))], 4)
    shares = model.head.bias.softmax(-1)
    counts = seen.flatten().bincount(minlength=1005) + torch.nn.functional.one_hot(torch.tensor(500), 1005) * 35 + 0.5
    for value in (4, 150, 499, 512, 513, 1004):
        near = counts[max(4, value - beginning.BLUR) : value + beginning.BLUR + 1].float().mean()
        assert float(shares[value] / shares[500]) == pytest.approx(
            float(near / counts[488:513].float().mean()), rel=1e-4
        )
    assert shares[:4].max() <= shares[4:].min()
    framed = mamsm.frame(seen)
    q, k, _ = model.layers[0].attention.split(model.embedding(framed, torch.arange(115), None))
    weights = (q @ k.mT / 4).softmax(-1)[0]
    for head, offset in enumerate(beginning.OFFSETS):
        looked = [float(weights[head].diagonal(o).mean()) for o in range(-5, 6)]
        assert max(range(11), key=looked.__getitem__) == offset + 5
        assert looked[offset + 5] > 0.3
    assert weights[4:].max() < 0.2
