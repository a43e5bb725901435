"""Registration, the attention function by itself, and what the mask's tensor does when it is treated as one."""

from __future__ import annotations

import sys
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor, nn

import mmha.huggingface
from mmha.huggingface.attention import attention_forward
from mmha.huggingface.carrier import MaskTensor
from mmha.huggingface.masks import attention_mask
from mmha.masks import Causal, KeyPadding


def test_register_and_unregister() -> None:
    interfaces = transformers.AttentionInterface(), transformers.AttentionMaskInterface()
    mmha.huggingface.register()
    mmha.huggingface.register()
    assert [interface["mmha"] for interface in interfaces] == [attention_forward, attention_mask]
    mmha.huggingface.unregister()
    mmha.huggingface.unregister()
    assert not any("mmha" in interface for interface in interfaces)


def test_without_transformers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ImportError, match=r'^mmha.huggingface needs transformers: pip install "mmha\[huggingface\]"$'):
        mmha.huggingface.register()


def test_with_an_old_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules["transformers"], "__version__", "5.23.1")
    with pytest.raises(ImportError, match=r"^mmha.huggingface needs transformers 5.24 or newer, found 5.23.1: pip "):
        mmha.huggingface.register()
    monkeypatch.setattr(sys.modules["transformers"], "__version__", "6.0.0.dev0")
    mmha.huggingface.register()


def layer(**given: Any) -> nn.Module:
    made = nn.Module().eval()
    for name, value in given.items():
        setattr(made, name, value)
    return made


def three(batch: int = 2, q_len: int = 5, k_len: int = 7) -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(0)
    return torch.randn(batch, 6, q_len, 3), torch.randn(2, 2, k_len, 3), torch.randn(2, 2, k_len, 11)


def expected(q: Tensor, k: Tensor, v: Tensor, mask: Any = None, **given: Any) -> Tensor:
    return mmha.attention(q.double(), k.double(), v.double(), mask, **given).float().transpose(1, 2)


@pytest.mark.parametrize("name", ["indices", "block_indices", "sinks"])
def test_refused(name: str) -> None:
    with pytest.raises(NotImplementedError, match=rf"^`{name}`: expected None with attn_implementation='mmha' "):
        attention_forward(layer(), *three(), None, **{name: torch.zeros(1)})


def test_no_mask() -> None:
    q, k, v = three()
    causal, whole = expected(q, k, v, Causal(), q_start=0), expected(q, k, v)
    for module, given, want in (
        (layer(), {}, causal),
        (layer(is_causal=True), {}, causal),
        (layer(is_causal=False), {}, whole),
        (layer(is_causal=True), {"is_causal": False}, whole),
        (layer(is_causal=False), {"is_causal": True}, causal),
    ):
        out, weights = attention_forward(module, q, k, v, None, **given)
        assert weights is None
        assert out.is_contiguous()
        torch.testing.assert_close(out, want)
    out, _ = attention_forward(layer(is_causal=True), q[:, :, :1], k, v, None)
    torch.testing.assert_close(out, expected(q[:, :, :1], k, v))


def test_learned_queries() -> None:
    q, k, v = three(batch=1)
    out, _ = attention_forward(layer(is_causal=False), q, k, v, None, scaling=0.3)
    torch.testing.assert_close(out, expected(q.expand(2, -1, -1, -1), k, v, scale=0.3))


def test_features() -> None:
    q, k, v = three()
    bias, sinks = torch.randn(1, 6, 5, 7), torch.randn(6)
    hides = bias.clone()
    hides[..., 4] = torch.finfo(torch.float32).min
    out, weights = attention_forward(
        layer(is_causal=False), q, k, v, None, scaling=2.0, softcap=1.5, s_aux=sinks, position_bias=hides,
        output_attentions=True,
    )  # fmt: skip
    given = {"scale": 2.0, "softcap": 1.5, "sinks": sinks, "bias": mmha.bias.Additive(bias)}
    shown = torch.arange(7) != 4
    torch.testing.assert_close(out, expected(q, k, v, shown[None, None, None].expand(2, 6, 5, 7), **given))
    assert weights is not None
    assert not weights[..., 4].any()


def test_dropout_only_in_training() -> None:
    q, k, v = three()
    module = layer(is_causal=False)
    want, _ = attention_forward(module, q, k, v, None)
    assert torch.equal(attention_forward(module, q, k, v, None, dropout=1.0)[0], want)
    assert not attention_forward(module.train(), q, k, v, None, dropout=1.0)[0].any()


def carried(q_start: int = 2) -> MaskTensor:
    return MaskTensor(Causal() & KeyPadding([7, 3]), (2, 5, 7), q_start, torch.float32)


def test_a_mask_of_other_sizes_is_read_as_a_tensor() -> None:
    q, k, v = three()
    mask = carried(1)
    want = expected(q, k, v, mask.value, q_start=1)
    for given in (mask, mask[:, :, :, :7], mask.to(torch.float32), mask.contiguous(), mask.detach(), mask.dense()):
        torch.testing.assert_close(attention_forward(layer(), q, k, v, given)[0], want)
    out, _ = attention_forward(layer(), q, k[:, :, :4], v[:, :, :4], mask[..., :4])
    torch.testing.assert_close(out, expected(q, k[:, :, :4], v[:, :, :4], mask.value, q_start=1))
    out, _ = attention_forward(layer(), q[:1], k[:1], v[:1], mask[:1])
    torch.testing.assert_close(out, want[:1])


def test_passing_it_on_keeps_it_a_value() -> None:
    mask = carried()
    for passed in (mask.detach(), mask[:, :, :, :7], mask.to("cpu"), mask.to(torch.float32), mask.contiguous()):
        assert isinstance(passed, MaskTensor)
        assert (passed.value, passed.q_start, passed.shape) == (mask.value, None, (2, 1, 5, 7))
    assert mask._dense is None
    assert carried(-3).detach().q_start == -3


def test_reading_it_gives_eagers_tensor() -> None:
    mask = carried()
    shown = mask.value.dense(2, 1, 5, 7, 2)
    assert repr(mask) == "MaskTensor(Causal() & KeyPadding([7, 3]), shape=(2, 1, 5, 7))"
    assert torch.equal(mask == 0, shown)
    assert torch.equal((mask + 1)[~shown], torch.full((int((~shown).sum()),), torch.finfo(torch.float32).min))
    half = MaskTensor(Causal(), (1, 2, 3), 1, torch.bfloat16)
    assert half.sum().dtype == torch.bfloat16
    assert half.min() == torch.finfo(torch.bfloat16).min


@pytest.mark.parametrize("inference", [False, True])
def test_writing_into_it_counts(inference: bool) -> None:
    q, k, v = three()
    with torch.inference_mode(inference):
        mask = carried()
        mask[:, :, :, 2] = torch.finfo(torch.float32).min
        out, _ = attention_forward(layer(), q, k, v, mask)
        again, _ = attention_forward(layer(), q, k, v, mask.detach())
    shown = carried().value.dense(2, 1, 5, 7, 2)
    shown[..., 2] = False
    torch.testing.assert_close(out, expected(q, k, v, shown))
    assert torch.equal(out, again)


def test_weights_are_those_of_the_reference() -> None:
    q, k, v = three()
    mask = carried()
    _, weights = attention_forward(layer(), q, k, v, mask, output_attentions=True)
    assert weights is not None
    shown = mask.value.dense(2, 6, 5, 7, 2)
    scores = (q.double() @ k.double().repeat_interleave(3, 1).mT / 3**0.5).masked_fill(~shown, -torch.inf)
    torch.testing.assert_close(weights.double(), scores.softmax(-1), rtol=1e-5, atol=1e-6)
