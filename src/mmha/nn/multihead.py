"""`MultiheadAttention`: torch.nn's class, computed by `mmha.attention`."""

from __future__ import annotations

from typing import Any, NoReturn

import torch
from torch import Tensor, nn

from mmha import checks
from mmha.masks import Mask
from mmha.nn.linear import project
from mmha.nn.multihead_forward import (
    Call,
    Extra,
    Heads,
    Layout,
    Three,
    attend,
    attend_cached,
    check_cache,
    check_inputs,
    given_weights,
    join_masks,
    project_apart,
    project_packed,
    turned,
)
from mmha.nn.rotary import Rotary
from mmha.ops.caches import Cache


class MultiheadAttention(nn.MultiheadAttention):
    """torch.nn.MultiheadAttention, with masks as values, grouped heads, rotary positions and a cache.

    out = concat_h(softmax over visible keys of (q_h . k_h / sqrt(D)) . v_h) . W_o + b_o, where q, k and v are the
    inputs times W_q, W_k and W_v plus their biases, cut into H heads of D = E / H numbers.

    Constructor, initial weights for a seed, state-dict keys, hooks, layouts and results are torch's. What differs:
    a row that sees nothing gives the bias of the last projection, weights 0 and gradients 0 (torch: NaN or 0); what
    is hidden has no influence, NaN included; `is_causal=True` needs no mask; weights are those before dropout; eval
    computes what train does without dropout; the second derivative is not available.

    Args:
        embed_dim, num_heads, dropout, bias, add_bias_kv, add_zero_attn, kdim, vdim, batch_first, device, dtype: as in
            torch.nn. The added keys are visible to every query, whatever the masks.
        num_kv_heads: Hk, a divisor of num_heads: that many heads of keys and values, each shared by H / Hk heads of
            queries. `in_proj_weight` is then (E + 2 Hk D, E), those of q, k and v one below the other. None = H.
        rotary: a `mmha.Rotary` that turns q and k by their positions: key j stands at j, query i at S - L + i; with a
            cache both go on from its lengths.
        qk_norm: RMSNorm over D of q and k before they are turned (parameters `q_norm.weight`, `k_norm.weight`; eps
            1e-6).

    Raises:
        ValueError, AssertionError: for sizes that do not fit, as torch raises them.
        RuntimeError: from torch.jit.script, which cannot express a mask that is a value.

    Source: Vaswani et al. 2017, section 3.2.2; num_kv_heads: Ainslie et al. 2023; qk_norm: Henry et al. 2020, with
    RMSNorm (Zhang & Sennrich 2019); rotary: Su et al. 2021.

    >>> import torch
    >>> from mmha.nn import MultiheadAttention
    >>> attend = MultiheadAttention(12, 4, batch_first=True, num_kv_heads=2)
    >>> x = torch.randn(2, 5, 12)
    >>> out, weights = attend(x, x, x, is_causal=True)
    >>> out.shape, weights.shape
    (torch.Size([2, 5, 12]), torch.Size([2, 5, 5]))
    """

    def __init__(
        self,
        embed_dim: int,
        num_heads: int,
        dropout: float = 0.0,
        bias: bool = True,
        add_bias_kv: bool = False,
        add_zero_attn: bool = False,
        kdim: int | None = None,
        vdim: int | None = None,
        batch_first: bool = False,
        device: Any = None,
        dtype: torch.dtype | None = None,
        *,
        num_kv_heads: int | None = None,
        rotary: Rotary | None = None,
        qk_norm: bool = False,
    ) -> None:
        super().__init__(
            embed_dim, num_heads, dropout, bias, add_bias_kv, add_zero_attn, kdim, vdim, batch_first, device, dtype
        )
        if rotary is not None and not isinstance(rotary, Rotary):
            raise checks.type_error("rotary", "a mmha.Rotary", rotary)
        if rotary is not None and rotary.dims > self.head_dim:
            raise checks.value_error("rotary", f"dims up to the head size {self.head_dim}", str(rotary.dims))
        self.num_kv_heads = num_heads if num_kv_heads is None else checks.integer("num_kv_heads", num_kv_heads, 1)
        expected = f"a divisor of num_heads = {num_heads}"
        checks.require(num_heads % self.num_kv_heads == 0, "num_kv_heads", expected, self.num_kv_heads)
        self.rotary = rotary
        factory: dict[str, Any] = {"device": device, "dtype": dtype}
        self.q_norm = nn.RMSNorm(self.head_dim, 1e-6, **factory) if qk_norm else None
        self.k_norm = nn.RMSNorm(self.head_dim, 1e-6, **factory) if qk_norm else None
        if self.num_kv_heads != num_heads:
            self._narrow()
        if rotary is not None or qk_norm or self.num_kv_heads != num_heads:
            # torch.nn.TransformerEncoderLayer computes past a module whose weights look like its own; not past these.
            self._qkv_same_embed_dim = False

    def _narrow(self) -> None:
        """Keys and values of fewer heads: their parts of the parameters, drawn again."""
        width = self.num_kv_heads * self.head_dim
        rows = {"in_proj_weight": self.embed_dim + 2 * width, "in_proj_bias": self.embed_dim + 2 * width}
        shapes = {**rows, "k_proj_weight": width, "v_proj_weight": width}
        for name, count in shapes.items():
            wide = getattr(self, name)
            if wide is not None:
                setattr(self, name, nn.Parameter(wide.detach()[:count].clone()))
        for name in ("bias_k", "bias_v"):
            if getattr(self, name) is not None:
                setattr(self, name, nn.Parameter(getattr(self, name).detach()[..., :width].clone()))
        self._reset_parameters()

    def _reset_parameters(self) -> None:
        same, self._qkv_same_embed_dim = self._qkv_same_embed_dim, self.in_proj_weight is not None
        super()._reset_parameters()
        self._qkv_same_embed_dim = same

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | Mask | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | Mask | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
        *,
        mask: Mask | Tensor | None = None,
        cache: Cache | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """Each query looks at the keys that every mask given lets it see.

        Args:
            query: (L, N, E), (N, L, E) with batch_first, or (L, E) without a batch. key: the same with (S, kdim),
                value: with (S, vdim).
            key_padding_mask: (N, S), or (S,) without a batch. bool (or integers 0 and 1): True = NOT visible; float:
                added to the scores, -inf hides. Or a Mask.
            need_weights: whether to return the weights; they take O(L * S) memory.
            attn_mask: (L, S), (N * H, L, S), (N, L, S) or (N, H or 1, L, S). bool: True = NOT visible; float: added
                to the scores. Or a Mask, which says what is visible. Its dtype need not be that of key_padding_mask.
            average_attn_weights: whether the weights are the mean over the heads.
            is_causal: whether the last query stands at the last key and none sees what comes after it; alone, or on top
                of the masks.
            mask: a Mask, or a bool tensor broadcastable to (N, H, L, S), True = visible.
            cache: a `mmha.KVCache` of num_kv_heads heads, to which the new keys and values are appended first; S is
                then its longest row. For inference: without gradients, dropout and weights.

        Returns:
            out in the layout of the query, and the weights before dropout: (N, L, S) averaged, (N, H, L, S) per head,
            without N for unbatched input; None unless they are needed. S counts the keys that `add_bias_kv` and
            `add_zero_attn` add.

        Raises:
            Refused: (a ValueError, an AssertionError and a RuntimeError) when inputs or masks do not fit together.
            TypeError: for what is neither a tensor nor a mask.
        """
        layout = check_inputs(query, key, value, (self.embed_dim, self.kdim, self.vdim), self.batch_first)
        sizes = layout.sizes(query, key, self.num_heads)
        dropout_p = self.dropout if self.training else 0.0
        if cache is not None:
            sizes = check_cache(cache, sizes, need_weights, dropout_p)
        joined = join_masks(query, layout, sizes, attn_mask, key_padding_mask, is_causal, mask)
        q, k, v = self._project(query, key, value, layout, cache)
        extra = Extra(self.bias_k, self.bias_v, self.add_zero_attn)
        call = Call(joined, dropout_p, need_weights, extra)
        out, weights = attend(q, k, v, call) if cache is None else attend_cached((q, k, v), cache, call)
        return project(self.out_proj, layout.join(out)), given_weights(weights, average_attn_weights, layout)

    def _project(self, query: Tensor, key: Tensor, value: Tensor, layout: Layout, cache: Cache | None) -> Three:
        """q (N, H, L, D), k and v (N, Hk, S, D), normed and turned."""
        heads, inputs = Heads(self.num_heads, self.num_kv_heads, self.head_dim), (query, key, value)
        if self.in_proj_weight is not None:
            made = project_packed(inputs, self.in_proj_weight, self.in_proj_bias, heads)
        else:
            weights = (self.q_proj_weight, self.k_proj_weight, self.v_proj_weight)
            made = project_apart(inputs, weights, self.in_proj_bias, heads)
        q, k, v = layout.split(made[0]), layout.split(made[1]), layout.split(made[2])
        if self.q_norm is not None and self.k_norm is not None:
            q, k = self.q_norm(q), self.k_norm(k)
        if self.rotary is not None and not q.is_meta:
            q, k = turned(self.rotary, q, k, None if cache is None else cache.lengths)
        return q, k, v

    def __prepare_scriptable__(self) -> NoReturn:
        raise RuntimeError(
            "torch.jit.script: mmha.nn.MultiheadAttention cannot be scripted, a mask is a value that TorchScript does "
            "not know; use torch.compile or torch.export"
        )
