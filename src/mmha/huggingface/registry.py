"""What makes transformers know the name "mmha", and forget it again."""

from __future__ import annotations

import importlib
from typing import Any

NAME = "mmha"
OLDEST = (5, 24)  # from here on a mask function is told lengths and offsets, and not positions


def register() -> None:
    """Make transformers compute attention with mmha wherever `attn_implementation="mmha"` is asked for.

    From then on the name is accepted by `from_pretrained`, `from_config` and `model.set_attn_implementation`. Weights
    and results stay the model's own: out = mmha.attention(q, k, v, mask, scale=scaling, softcap=softcap, sinks=s_aux,
    bias=position_bias, dropout_p=dropout while training). Masks reach the kernels as values (causal, sliding, chunked,
    padded, packed, blockwise, and unions and intersections of these), so no Tq x Tk tensor is built. float32, bfloat16
    and float16, on the CPU. Registering twice is the same as once.

    Raises:
        ImportError: when transformers is missing or older than 5.24; it names the extra to install.

    Source: transformers, `AttentionInterface` and `AttentionMaskInterface`.

    >>> import mmha.huggingface
    >>> mmha.huggingface.register()
    >>> from transformers import LlamaConfig, LlamaForCausalLM
    >>> sizes = dict(vocab_size=31, hidden_size=24, intermediate_size=17, num_hidden_layers=1, num_attention_heads=3)
    >>> model = LlamaForCausalLM._from_config(LlamaConfig(**sizes), attn_implementation="mmha")
    >>> model.config._attn_implementation
    'mmha'
    """
    functions, mask_functions = _interfaces()
    from mmha.huggingface.attention import attention_forward
    from mmha.huggingface.masks import attention_mask

    functions.register(NAME, attention_forward)
    mask_functions.register(NAME, attention_mask)


def unregister() -> None:
    """Take the name "mmha" out of transformers; a model that still asks for it raises KeyError when it is called.

    Raises ImportError as `register`. Without a registration nothing happens.

    >>> import mmha.huggingface
    >>> mmha.huggingface.unregister()
    """
    for interface in _interfaces():
        interface._global_mapping.pop(NAME, None)


def _interfaces() -> tuple[Any, Any]:
    """The attention functions and the mask functions of the installed transformers."""
    try:
        version = importlib.import_module("transformers").__version__
    except ImportError as error:
        raise ImportError('mmha.huggingface needs transformers: pip install "mmha[huggingface]"') from error
    if tuple(int(part) for part in version.split(".")[:2]) < OLDEST:
        wanted = ".".join(map(str, OLDEST))
        raise ImportError(
            f'mmha.huggingface needs transformers {wanted} or newer, found {version}: pip install "mmha[huggingface]"'
        )
    functions = importlib.import_module("transformers.modeling_utils").ALL_ATTENTION_FUNCTIONS
    mask_functions = importlib.import_module("transformers.masking_utils").ALL_MASK_ATTENTION_FUNCTIONS
    return functions, mask_functions
