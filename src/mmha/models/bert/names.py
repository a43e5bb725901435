"""How transformers names the weights and sizes of a BERT and of an ALBERT, and how a `Config` says the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mmha import checks
from mmha.models.bert.config import PARTS, Config

Names = dict[str, tuple[str, ...]]

#: transformers' name of each size, and what it is where a config.json is silent.
_SIZES = {
    "vocabulary": "vocab_size",
    "width": "hidden_size",
    "layers": "num_hidden_layers",
    "heads": "num_attention_heads",
    "hidden": "intermediate_size",
    "positions": "max_position_embeddings",
    "segments": "type_vocab_size",
    "dropout": "hidden_dropout_prob",
    "attention_dropout": "attention_probs_dropout_prob",
    "activation": "hidden_act",
    "norm_eps": "layer_norm_eps",
}
_ALBERT_SIZES = {**_SIZES, "embedding": "embedding_size", "groups": "num_hidden_groups"}
_DEFAULTS = {
    "bert": (30522, 768, 12, 12, 3072, 512, 2, 0.1, 0.1, "gelu", 1e-12),
    "albert": (30000, 4096, 12, 64, 16384, 512, 2, 0.0, 0.0, "gelu_new", 1e-12, 128, 1),
}
#: What this model does not do, and the one value at which there is nothing to do.
_FIXED = {"is_decoder": False, "position_embedding_type": "absolute", "inner_group_num": 1}
_ACTIVATIONS = {"gelu_pytorch_tanh": "gelu_new", "gelu_python": "gelu"}  # other names of the same


def sizes(document: dict[str, Any], path: Path) -> tuple[str, Config]:
    """The kind of model, "bert" or "albert", and its sizes, with every head, from the content of a config.json.

    Raises: ValueError for another kind of model, or sizes that do not fit together.
    """
    kind = document.get("model_type", "bert")  # the first files of BERT do not name it
    if not isinstance(kind, str) or kind not in _DEFAULTS:
        raise ValueError(f"{path}: expected model_type bert or albert, got {checks.describe(kind)}")
    for name, value in _FIXED.items():
        if (got := document.get(name, value)) != value:
            raise ValueError(f"{path}: expected {name} = {value}, got {checks.describe(got)}")
    names = _SIZES if kind == "bert" else _ALBERT_SIZES
    found = {
        ours: document.get(theirs, default)
        for (ours, theirs), default in zip(names.items(), _DEFAULTS[kind], strict=True)
    }
    if isinstance(found["activation"], str):
        found["activation"] = _ACTIVATIONS.get(found["activation"], found["activation"])
    try:
        with checks.renamed(**names):
            return kind, Config(**found)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path}: expected sizes that fit together, got others ({error})") from None


def kind_of(config: Config) -> str:
    """The kind of model that transformers has for these sizes.

    Raises: ValueError when it has none.
    """
    if config.embedding is not None:
        return "albert"
    fits = not config.shared
    checks.require(fits, "config", "layers of their own, or an embedding beside shared ones", f"groups={config.groups}")
    return "bert"


def document_of(config: Config) -> dict[str, Any]:
    """The content of a config.json for these sizes."""
    kind = kind_of(config)
    names = _SIZES if kind == "bert" else _ALBERT_SIZES
    found = {theirs: getattr(config, ours) for ours, theirs in names.items()}
    if config.attention_dropout is None:
        found["attention_probs_dropout_prob"] = config.dropout
    if kind == "albert":
        found |= {"num_hidden_groups": config.groups or config.layers, "inner_group_num": 1}
    prefix = kind.capitalize()
    if set(config.parts) >= {"words", "next"}:
        architecture = "ForPreTraining"
    else:
        architecture = "ForMaskedLM" if "words" in config.parts else "Model"
    if (kind, config.parts) == ("bert", ("pooler", "next")):
        architecture = "ForNextSentencePrediction"
    return {"architectures": [prefix + architecture], "model_type": kind, "pad_token_id": 0, **found}


def weights(kind: str, config: Config) -> Names:
    """For each weight of ours the names of those it is made of, one below the other, as a model with heads has them."""
    head = kind + "."
    embeddings = {
        "embedding.tokens.weight": "embeddings.word_embeddings.weight",
        "embedding.positions.weight": "embeddings.position_embeddings.weight",
        "embedding.segments.weight": "embeddings.token_type_embeddings.weight",
        **_both("embedding.norm", "embeddings.LayerNorm"),
    }
    if kind == "albert":
        embeddings |= _both("embedding.project", "encoder.embedding_hidden_mapping_in")
    found: Names = {ours: (head + theirs,) for ours, theirs in embeddings.items()}
    for n in range(config.groups or config.layers):
        found |= _layer(kind, n)
    for part in config.parts:
        found |= {ours: (theirs,) for ours, theirs in _PARTS[kind][part].items()}
    return found


def _both(ours: str, theirs: str) -> dict[str, str]:
    return {f"{ours}.{name}": f"{theirs}.{name}" for name in ("weight", "bias")}


_LAYERS = {
    "bert": (
        "bert.encoder.layer.{n}.",
        ("attention.self.query", "attention.self.key", "attention.self.value"),
        {
            "self_attn.out_proj": "attention.output.dense",
            "norm1": "attention.output.LayerNorm",
            "linear1": "intermediate.dense",
            "linear2": "output.dense",
            "norm2": "output.LayerNorm",
        },
    ),
    "albert": (
        "albert.encoder.albert_layer_groups.{n}.albert_layers.0.",
        ("attention.query", "attention.key", "attention.value"),
        {
            "self_attn.out_proj": "attention.dense",
            "norm1": "attention.LayerNorm",
            "linear1": "ffn",
            "linear2": "ffn_output",
            "norm2": "full_layer_layer_norm",
        },
    ),
}
_PARTS = {
    "bert": {
        "pooler": _both("heads.pooler", "bert.pooler.dense"),
        "words": {
            **_both("heads.words.dense", "cls.predictions.transform.dense"),
            **_both("heads.words.norm", "cls.predictions.transform.LayerNorm"),
            "heads.words.bias": "cls.predictions.bias",
        },
        "next": _both("heads.next", "cls.seq_relationship"),
    },
    "albert": {
        "pooler": _both("heads.pooler", "albert.pooler"),
        "words": {
            **_both("heads.words.dense", "predictions.dense"),
            **_both("heads.words.norm", "predictions.LayerNorm"),
            "heads.words.bias": "predictions.bias",
        },
        "next": _both("heads.next", "sop_classifier.classifier"),
    },
}
DECODER = {"bert": "cls.predictions.decoder", "albert": "predictions.decoder"}


def _layer(kind: str, n: int) -> Names:
    start, qkv, others = _LAYERS[kind]
    start, ours = start.format(n=n), f"layers.{n}."
    found: Names = {}
    for name in ("weight", "bias"):
        found[f"{ours}self_attn.in_proj_{name}"] = tuple(f"{start}{part}.{name}" for part in qkv)
        found |= {f"{ours}{mine}.{name}": (f"{start}{theirs}.{name}",) for mine, theirs in others.items()}
    return found


def there(kind: str, names: set[str], path: Path) -> tuple[str, ...]:
    """Which parts stand among the weights of these names.

    Raises: ValueError for a part of which some are there and some not.
    """
    parts = []
    for part in PARTS:
        wanted = set(_PARTS[kind][part].values())
        if wanted <= names:
            parts.append(part)
        elif wanted & names:
            raise ValueError(
                f"{path}: expected the weight {min(wanted - names)} beside {min(wanted & names)}, got none"
            )
    return tuple(parts)


def canonical(kind: str, name: str) -> str:
    """The name of a weight as today's models with heads have it, whatever file it stands in."""
    for old, new in (("LayerNorm.gamma", "LayerNorm.weight"), ("LayerNorm.beta", "LayerNorm.bias")):
        if name.endswith(old):
            name = name.removesuffix(old) + new
    return f"{kind}.{name}" if name.startswith(("embeddings.", "encoder.", "pooler.")) else name
