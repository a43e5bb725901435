"""`multi_head_attention_forward`: torch.nn.functional's function, computed by `mmha.attention`."""

from __future__ import annotations

from torch import Tensor

from mmha import checks
from mmha.masks import Mask
from mmha.nn.linear import linear
from mmha.nn.multihead_forward import (
    Call,
    Extra,
    Heads,
    Layout,
    Three,
    attend,
    check_inputs,
    given_weights,
    join_masks,
    project_apart,
    project_packed,
)
from mmha.nn.refusals import refused, require
from mmha.nn.torch_masks import Sizes


def multi_head_attention_forward(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    embed_dim_to_check: int,
    num_heads: int,
    in_proj_weight: Tensor | None,
    in_proj_bias: Tensor | None,
    bias_k: Tensor | None,
    bias_v: Tensor | None,
    add_zero_attn: bool,
    dropout_p: float,
    out_proj_weight: Tensor,
    out_proj_bias: Tensor | None,
    training: bool = True,
    key_padding_mask: Tensor | Mask | None = None,
    need_weights: bool = True,
    attn_mask: Tensor | Mask | None = None,
    use_separate_proj_weight: bool = False,
    q_proj_weight: Tensor | None = None,
    k_proj_weight: Tensor | None = None,
    v_proj_weight: Tensor | None = None,
    static_k: Tensor | None = None,
    static_v: Tensor | None = None,
    average_attn_weights: bool = True,
    is_causal: bool = False,
) -> tuple[Tensor, Tensor | None]:
    """torch.nn.functional.multi_head_attention_forward: its arguments, its results, the masks of `MultiheadAttention`.

    out = concat_h(softmax over visible keys of (q_h . k_h / sqrt(D)) . v_h) . W_o + b_o.

    Args:
        query: (L, N, E) or (L, E); key, value: (S, N, E) or (S, E); float32, bfloat16, float16 or float64.
        embed_dim_to_check: E. num_heads: H, a divisor of E.
        in_proj_weight: (3 E, E), or None with use_separate_proj_weight and q_proj_weight (E, E), k_proj_weight (E, Ek),
            v_proj_weight (E, Ev). in_proj_bias: (3 E,) or None. out_proj_weight: (E, E), out_proj_bias: (E,) or None.
        bias_k, bias_v: (1, 1, E), one more key and its value, or None; add_zero_attn: whether to add a key of zeros.
            Every query sees these.
        dropout_p: the share of weights to drop when training.
        key_padding_mask: (N, S) or (S,). bool: True = NOT visible; float: added. Or a Mask.
        attn_mask: (L, S), (N * H, L, S), (N, L, S) or (N, H or 1, L, S). bool: True = NOT visible; float: added. Or a
            Mask, which says what is visible.
        static_k, static_v: (N * H, S, D), in the place of the projected key or value.
        need_weights, average_attn_weights, is_causal: as in `MultiheadAttention.forward`; is_causal needs no attn_mask.

    Returns:
        out, (L, N, E) or (L, E), and the weights before dropout, as `MultiheadAttention.forward` returns them.

    Raises:
        Refused: (a ValueError, an AssertionError and a RuntimeError) when arguments do not fit together.
        TypeError: for what is neither a tensor nor a mask.

    Source: Vaswani et al. 2017, section 3.2.2.

    >>> import torch
    >>> x, w = torch.randn(5, 2, 12), torch.randn(36, 12)
    >>> out, weights = multi_head_attention_forward(
    ...     x, x, x, 12, 3, w, None, None, None, False, 0.0, torch.eye(12), None, is_causal=True
    ... )
    >>> out.shape, weights.shape
    (torch.Size([5, 2, 12]), torch.Size([2, 5, 5]))
    """
    require(
        embed_dim_to_check % num_heads == 0, "num_heads", f"a divisor of the embedding {embed_dim_to_check}", num_heads
    )
    heads = Heads(num_heads, num_heads, embed_dim_to_check // num_heads)
    weights = (q_proj_weight, k_proj_weight, v_proj_weight) if use_separate_proj_weight else (in_proj_weight,)
    dims = _features(embed_dim_to_check, weights)
    layout = check_inputs(query, key, value, dims, False)
    inputs = (query, key, value)
    if use_separate_proj_weight:
        made = project_apart(inputs, weights, in_proj_bias, heads)
    else:
        made = project_packed(inputs, weights[0], in_proj_bias, heads)  # type: ignore[arg-type]
    extra = _extra(bias_k, bias_v, add_zero_attn, static_k is not None or static_v is not None)
    sizes = layout.sizes(query, key, num_heads)
    q, k, v = _with_static(made, layout, sizes, static_k, static_v)
    sizes = sizes._replace(k_len=k.shape[2])
    joined = join_masks(query, layout, sizes, attn_mask, key_padding_mask, is_causal)
    out, shares = attend(q, k, v, Call(joined, dropout_p if training else 0.0, need_weights, extra))
    out = linear(layout.join(out), out_proj_weight, out_proj_bias)
    return out, given_weights(shares, average_attn_weights, layout)


def _features(width: int, weights: tuple[Tensor | None, ...]) -> tuple[int, int, int]:
    """How many numbers a token of query, key and value has."""
    names = ("in_proj_weight",) if len(weights) == 1 else ("q_proj_weight", "k_proj_weight", "v_proj_weight")
    dims = []
    for name, weight in zip(names, weights, strict=True):
        if weight is None:
            raise refused(name, f"a tensor, with use_separate_proj_weight={len(weights) == 3}", None)
        rows = 3 * width if len(weights) == 1 else width
        columns = width if name in ("in_proj_weight", "q_proj_weight") else weight.shape[-1]
        require(weight.shape == (rows, columns), name, f"shape ({rows}, {columns})", checks.shape_text(weight.shape))
        dims.append(columns)
    return (dims * 3)[0], (dims * 3)[1], (dims * 3)[2]


def _extra(bias_k: Tensor | None, bias_v: Tensor | None, zero: bool, static: bool) -> Extra:
    if (bias_k is None) != (bias_v is None):
        raise refused("bias_v" if bias_v is None else "bias_k", "both of bias_k and bias_v, or neither", None)
    require(bias_k is None or not static, "bias_k", "None beside static_k or static_v", bias_k)
    return Extra(bias_k, bias_v, zero)


def _with_static(made: Three, layout: Layout, sizes: Sizes, k: Tensor | None, v: Tensor | None) -> Three:
    """q, k and v as (N, H, T, D), with what is given in the place of what was projected."""
    found = [layout.split(made[0])]
    for name, static, own in (("static_k", k, made[1]), ("static_v", v, made[2])):
        if static is None:
            found.append(layout.split(own))
            continue
        rows, size = sizes.batch * sizes.heads, own.shape[-1]
        checks_out = static.dim() == 3 and static.shape[0] == rows and static.shape[2] == size
        require(checks_out, name, f"shape (N * H, S, D) = ({rows}, S, {size})", checks.shape_text(static.shape))
        found.append(static.view(sizes.batch, sizes.heads, -1, size))
    return found[0], found[1], found[2]
