"""The transformer classes as modules: weights drawn, copies, hooks, subclasses, compilers, other people's layers."""

from __future__ import annotations

import copy
import inspect
import pickle
import warnings
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import mmha
from mmha.masks import Causal, KeyPadding
from mmha.nn import MultiheadAttention, Rotary, TransformerDecoder, TransformerEncoder, TransformerEncoderLayer
from mmha.ops.plans import PLANS
from transformer_twins import (
    BAND,
    CAUSAL,
    DEPTHS,
    HEADS,
    LAYERS,
    OPTIONS,
    PADDING,
    SCORES,
    SIZES,
    SRC,
    TGT,
    WIDTH,
    tokens,
    twins,
)  # fmt: skip

pytestmark = pytest.mark.usefixtures("one_thread")
NAMES = [f"Transformer{kind}" for kind in ("EncoderLayer", "Encoder", "DecoderLayer", "Decoder", "")]
names = pytest.mark.parametrize("name", NAMES)


def inputs_of(name: str, masks: bool = True) -> tuple[list[Tensor], dict[str, Any]]:
    """What the class named takes, with causal masks and padding as values."""
    if name == "Transformer":
        return [tokens(SRC), tokens(TGT)], {"src_key_padding_mask": KeyPadding([7, 4]), "tgt_mask": Causal()}
    if "Decoder" in name:
        return [tokens(TGT), tokens(SRC)], {"tgt_mask": Causal(), "memory_key_padding_mask": KeyPadding([7, 4])}
    return [tokens(SRC)], {"src_key_padding_mask": KeyPadding([7, 4]), "is_causal": True}


@pytest.mark.parametrize("name", ["TransformerEncoderLayer", "TransformerDecoderLayer", "Transformer"])
@pytest.mark.parametrize("given", OPTIONS.values(), ids=OPTIONS)
def test_weights_keys_and_the_generator_are_those_of_torch(name: str, given: dict[str, Any]) -> None:
    given = {**SIZES, **(DEPTHS if name == "Transformer" else {}), **given}
    found = []
    for home in (nn, mmha.nn):
        torch.manual_seed(3)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore" if home is nn else "error")
            found.append((getattr(home, name)(**given), torch.rand(1)))
    (theirs, drawn), (ours, our_drawn) = found
    assert isinstance(ours, type(theirs))
    assert torch.equal(drawn, our_drawn)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    assert all(torch.equal(a, b) for a, b in zip(ours.parameters(), theirs.parameters(), strict=True))
    assert [path for path, _ in ours.named_modules()] == [path for path, _ in theirs.named_modules()]
    assert vars(theirs).keys() <= vars(ours).keys()
    theirs.load_state_dict(ours.state_dict())


@names
def test_signatures_are_torchs_and_more(name: str) -> None:
    theirs, ours = getattr(nn, name), getattr(mmha.nn, name)
    for function in ("__init__", "forward"):
        wanted, found = (inspect.signature(getattr(home, function)).parameters for home in (theirs, ours))
        defaults = {key: parameter.default for key, parameter in wanted.items()}
        more = [parameter for key, parameter in found.items() if key not in wanted]
        assert {key: found[key].default for key in wanted} == defaults
        assert list(found)[: len(wanted)] == list(wanted)
        assert {parameter.kind for parameter in more} <= {inspect.Parameter.KEYWORD_ONLY}


def test_custom_halves() -> None:
    encoder, decoder = nn.Sequential(), nn.Sequential()  # which are empty, and therefore false
    ours = mmha.nn.Transformer(**SIZES, custom_encoder=encoder, custom_decoder=decoder)
    assert ours.encoder is encoder
    assert ours.decoder is decoder


@names
def test_copies_and_pickles_compute_the_same(name: str) -> None:
    ours = twins(name)[1]
    inputs, masks = inputs_of(name)
    wanted = ours(*inputs, **masks)
    for again in (copy.deepcopy(ours), pickle.loads(pickle.dumps(ours))):
        assert torch.equal(again(*inputs, **masks), wanted)


@names
def test_hooks_run_in_evaluation_too(name: str) -> None:
    ours = twins(name)[1].eval()
    inputs, masks = inputs_of(name)
    seen: set[str] = set()
    for path, module in ours.named_modules():
        if not isinstance(module, (nn.ModuleList, nn.modules.linear.NonDynamicallyQuantizableLinear)):
            module.register_forward_hook(lambda *_, path=path: seen.add(path))
    with torch.no_grad():
        ours(*inputs, **masks)
    quiet = (nn.ModuleList, nn.modules.linear.NonDynamicallyQuantizableLinear)
    assert seen == {path for path, module in ours.named_modules() if not isinstance(module, quiet)}


def test_compiled_in_one_graph_for_any_length() -> None:
    torch._dynamo.reset()
    whole, encoder = twins("Transformer")[1], twins("TransformerEncoder")[1]
    run, encode = (torch.compile(module, fullgraph=True, backend="eager") for module in (whole, encoder))
    for length in (SRC + 4, SRC):
        src, tgt, masks = (
            tokens(length),
            tokens(TGT),
            {"src_key_padding_mask": KeyPadding([4, 5]), "tgt_mask": Causal()},
        )
        torch.testing.assert_close(run(src, tgt, **masks), whole(src, tgt, **masks))
    for pair in ((SCORES, PADDING), (SCORES, None)):
        torch.testing.assert_close(encode(src, *pair), encoder(src, *pair))
    alone = TransformerEncoder(TransformerEncoderLayer(**SIZES, dropout=0.0), 1, exclude_self=True)
    x = src.float()
    torch.testing.assert_close(torch.compile(alone, fullgraph=True, backend="eager")(x, Causal()), alone(x, Causal()))


def test_shapes_without_numbers() -> None:
    ours = mmha.nn.Transformer(**SIZES, **DEPTHS, device="meta")
    src, tgt = torch.empty(SRC, 2, WIDTH, device="meta"), torch.empty(TGT, 2, WIDTH, device="meta")
    out = ours(src, tgt, BAND.to("meta"), src_key_padding_mask=PADDING.to("meta"), tgt_is_causal=True)
    assert out.is_meta
    assert out.shape == tgt.shape


@names
def test_scripting_is_refused(name: str) -> None:
    ours = twins(name)[1]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of torch.jit.script itself
        with pytest.raises(RuntimeError, match=r"torch.jit.script: mmha.nn.* cannot be scripted.*use torch.compile"):
            torch.jit.script(ours)


def test_dropout_is_for_training_and_settled_by_the_seed() -> None:
    x, ours = tokens(SRC), TransformerEncoder(TransformerEncoderLayer(**SIZES, dropout=0.5).double(), LAYERS)

    def run(seed: int) -> Tensor:
        torch.manual_seed(seed)
        out: Tensor = ours(x, Causal())
        return out

    assert torch.equal(run(1), run(1))
    assert not torch.equal(run(1), run(2))
    ours.eval()
    assert torch.equal(run(1), run(2))


@pytest.mark.parametrize("inference", [False, True])
@pytest.mark.parametrize("added", [None, 0.0, 0.5])
def test_one_plan_for_all_layers(added: float | None, inference: bool) -> None:
    # More keys than a plan is remembered for by their content: one mask a layer would be one plan a layer.
    decoder = TransformerDecoder(mmha.nn.TransformerDecoderLayer(4, 2, 3, batch_first=True), 3)
    keys, counts = 40_003, []

    def count(*_: Any) -> None:
        counts.append([key[1] for key in PLANS._plans].count((1, 2, 1, keys)))  # type: ignore[index]

    for layer in decoder.layers:
        layer.register_forward_hook(count)
    with torch.inference_mode(inference):
        hidden = torch.arange(keys)[None] > 70
        tgt, memory = torch.zeros(1, 1, 4), torch.zeros(1, keys, 4)
        if added is None:
            decoder(tgt, memory, memory_key_padding_mask=hidden)
        else:
            decoder(tgt, memory, memory_mask=torch.full((1, keys), added).masked_fill(hidden, -torch.inf))
    assert counts == [1, 1, 1]


def test_num_kv_heads_and_rotary_are_for_the_self_attention() -> None:
    rotary = Rotary(2)
    given: dict[str, Any] = {**SIZES, "dropout": 0.0, "num_kv_heads": 1, "rotary": rotary, "dtype": torch.float64}
    layer, x, memory = TransformerEncoderLayer(**given), tokens(SRC), tokens(TGT)
    attention = MultiheadAttention(WIDTH, HEADS, num_kv_heads=1, rotary=rotary, dtype=torch.float64)
    attention.load_state_dict(layer.self_attn.state_dict())
    middle = layer.norm1(x + attention(x, x, x, is_causal=True)[0])
    wanted = layer.norm2(middle + layer.linear2(layer.linear1(middle).relu()))
    torch.testing.assert_close(layer(x, Causal()), wanted)
    assert not torch.allclose(layer(x.flip(0)).flip(0), layer(x))
    both = mmha.nn.Transformer(**DEPTHS, **given)
    assert both(x, memory).shape == memory.shape
    for half in (both.encoder.layers, both.decoder.layers):
        assert {(part.self_attn.num_kv_heads, part.self_attn.rotary) for part in half} == {(1, rotary)}
    assert {part.multihead_attn.num_kv_heads for part in both.decoder.layers} == {HEADS}
    assert {part.multihead_attn.rotary for part in both.decoder.layers} == {None}


class Weighing(TransformerEncoderLayer):
    """As users write it to see the weights."""

    def _sa_block(self, x: Tensor, attn_mask: Any, key_padding_mask: Any, is_causal: bool = False) -> Tensor:
        out, self.weights = self.self_attn(x, x, x, key_padding_mask, True, attn_mask, is_causal=is_causal)
        return self.dropout1(out)


class Looking(TransformerEncoderLayer):
    """A forward that looks into the masks as tensors."""

    def forward(
        self, src: Tensor, src_mask: Any = None, src_key_padding_mask: Any = None, is_causal: bool = False
    ) -> Tensor:
        self.seen = src_mask.dtype, src_key_padding_mask.dtype
        return super().forward(src, src_mask, src_key_padding_mask, is_causal)


def test_subclasses_written_for_torch() -> None:
    x = tokens(SRC)
    for kind in (Weighing, Looking):
        layer = kind(**SIZES, dtype=torch.float64).eval()
        plain = TransformerEncoder(TransformerEncoderLayer(**SIZES, dtype=torch.float64), LAYERS).eval()
        ours = TransformerEncoder(layer, LAYERS).eval()
        ours.load_state_dict(plain.state_dict())
        torch.testing.assert_close(ours(x, CAUSAL.double(), PADDING.double()), plain(x, CAUSAL, PADDING.double()))
    assert ours.layers[1].seen == (torch.float64, torch.float64)
    weighing = TransformerEncoder(Weighing(**SIZES), 1)
    weighing(x.float(), Causal())
    assert weighing.layers[0].weights.triu(1).abs().max() == 0


def test_torchs_layers_in_our_stacks() -> None:
    theirs = twins("TransformerEncoder", batch_first=True)[0]
    x, given = tokens(SRC, True), {"mask": CAUSAL.double(), "src_key_padding_mask": PADDING.double()}
    mixed = TransformerEncoder(theirs.layers[0], LAYERS, theirs.norm)
    mixed.load_state_dict(theirs.state_dict())
    torch.testing.assert_close(mixed(x, **given), theirs(x, **given))
    message = r"`layers`: expected mmha.nn.TransformerEncoderLayers, for a mask .*, got TransformerEncoderLayer"
    with pytest.raises(TypeError, match=message):
        mixed(x, Causal())
    decoder = TransformerDecoder(nn.TransformerDecoderLayer(**SIZES, dtype=torch.float64), 1)
    assert decoder(tokens(TGT), tokens(SRC), CAUSAL[:TGT, :TGT].double()).shape == (TGT, 2, WIDTH)
    with pytest.raises(TypeError, match=r"`layers`: expected mmha.nn.TransformerDecoderLayers"):
        decoder(tokens(TGT), tokens(SRC), Causal())


def test_our_layers_in_torchs_stack() -> None:
    # With an even number of heads torch's encoder would hand nested tensors to a layer that looks like its own.
    ours = TransformerEncoder(TransformerEncoderLayer(WIDTH, 2, 11, batch_first=True), LAYERS).eval()
    with pytest.warns(UserWarning, match=r"enable_nested_tensor is True, but"):
        around = nn.TransformerEncoder(ours.layers[0], LAYERS).eval()
    around.load_state_dict(ours.state_dict())
    x = tokens(SRC, True).float()
    with torch.no_grad():
        torch.testing.assert_close(around(x, None, PADDING), ours(x, None, PADDING))
        torch.testing.assert_close(around(x, CAUSAL), ours(x, Causal()))


def test_messages_name_the_argument() -> None:
    x, wrong = tokens(SRC), torch.ones(2, 3)
    for name, mask in (("TransformerEncoderLayer", "src_mask"), ("TransformerEncoder", "mask")):
        ours = twins(name)[1]
        with pytest.raises(ValueError, match=rf"`{mask}`: expected shape \(L, S\), .* L = 7, S = 7, got \(2, 3\)"):
            ours(x, wrong)
        expected = (
            r"`src_key_padding_mask`: expected shape \(N, S\) = \(2, 7\), or \(S,\) for unbatched input, got \(2, 3\)"
        )
        with pytest.raises(ValueError, match=expected):
            ours(x, None, wrong)
        with pytest.raises(ValueError, match="`src`: expected 2 dimensions"):
            ours(x[None])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's word on its nested tensors
            nested = torch.nested.nested_tensor([torch.zeros(3, WIDTH), torch.zeros(2, WIDTH)])
        with pytest.raises(ValueError, match=r"`src`: expected a dense tensor .*, got a nested tensor"):
            ours(nested)
    with pytest.raises(RuntimeError, match="`activation`: expected 'relu', 'gelu' or a function of a tensor, got tanh"):
        TransformerEncoderLayer(**SIZES, activation="tanh")
