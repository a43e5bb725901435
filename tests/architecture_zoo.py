"""transformers families as tiny models, and who computes attention in each: the table of `docs/huggingface.md`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from architecture_models import BIAS, DENSE, IMAGE_TOKEN, NOTHING, OWN, PATCH, REFUSED, VALUES, WORKS, Family
from architecture_words import CHINESE

DOCS = Path(__file__).parents[1] / "docs"
PAGES: dict[Path, Mapping[str, str]] = {DOCS / "huggingface.md": {}, DOCS / "zh" / "huggingface.md": CHINESE}
START, END = "<!-- architectures -->\n", "\n<!-- /architectures -->"

ENDS = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
WORDS = {"vocab_size": 67, "max_position_embeddings": 64, **ENDS}
WIDTH = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 36}
TEXT = {**WORDS, **WIDTH}
GROUPED = {**TEXT, "num_key_value_heads": 2}
LOCAL = {**GROUPED, "sliding_window": 4, "layer_types": ["sliding_attention", "full_attention"]}
GPT = {"vocab_size": 67, "n_positions": 64, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_inner": 36, **ENDS}
SIDES = {
    **WORDS, "d_model": 32, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 4,
    "decoder_attention_heads": 4, "encoder_ffn_dim": 36, "decoder_ffn_dim": 36, "decoder_start_token_id": 1,
}  # fmt: skip
T5 = {
    "vocab_size": 67, "d_model": 32, "d_kv": 8, "d_ff": 36, "num_layers": 2, "num_heads": 4, **ENDS,
    "decoder_start_token_id": 0, "relative_attention_num_buckets": 6, "relative_attention_max_distance": 9,
}  # fmt: skip
IMAGE = {**WIDTH, "image_size": 12, "patch_size": 4}
SOUND = {
    **WIDTH, "vocab_size": 67, "conv_dim": (8, 8), "conv_kernel": (5, 3), "conv_stride": (5, 2),
    "num_conv_pos_embeddings": 4, "num_conv_pos_embedding_groups": 2, "feat_extract_norm": "layer",
    "mask_time_prob": 0.0,
}  # fmt: skip
EXPERTS = {"num_local_experts": 3, "num_experts_per_tok": 2}
ROPE_OR_NOT = {"no_rope_layers": [1, 0]}
LATENT = {
    "num_key_value_heads": 4, "kv_lora_rank": 8, "q_lora_rank": 12, "qk_rope_head_dim": 4, "qk_nope_head_dim": 6,
    "v_head_dim": 8, "n_routed_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16, "n_group": 2,
    "topk_group": 1, "first_k_dense_replace": 1, "n_shared_experts": 1,
}  # fmt: skip
CAPPED = {"head_dim": 8, "query_pre_attn_scalar": 8}


def decoder(name: str, base: dict[str, Any] = GROUPED, model: str = "", note: str = "", **more: Any) -> Family:
    state = more.pop("state", WORKS)
    masks = more.pop("masks", VALUES)
    return Family(name, model or f"{name}ForCausalLM", "decoder", {**base, **more}, note, masks, state)


def other(kind: str, name: str, base: dict[str, Any], model: str = "", note: str = "", **more: Any) -> Family:
    state = more.pop("state", WORKS)
    masks = more.pop("masks", NOTHING if kind in ("vision", "spectrogram") else VALUES)
    if not model:
        model = name + ("ForConditionalGeneration" if "decoder" in kind else "Model")
    return Family(name, model, kind, {**base, **more}, note, masks, state)


# fmt: off
FAMILIES = [
    decoder("Llama"),
    decoder("Llama4", head_dim=8, attention_chunk_size=4, intermediate_size_mlp=36, num_local_experts=3, **ROPE_OR_NOT,
            layer_types=["chunked_attention", "full_attention"], note="chunked attention, experts"),
    decoder("Qwen2", note="a window in some layers", use_sliding_window=True, sliding_window=4, max_window_layers=1),
    decoder("Qwen3", head_dim=8, note="norms on q and k"),
    decoder("Qwen3Moe", head_dim=8, num_experts=3, num_experts_per_tok=2, moe_intermediate_size=16, note="experts"),
    decoder("Gemma", head_dim=8),
    decoder("Gemma2", LOCAL, **CAPPED, attn_logit_softcapping=0.7, note="softcap, a window in every other layer"),
    decoder("Gemma3", LOCAL, **CAPPED, note="a window in most layers"),
    decoder("Gemma4", LOCAL, head_dim=8, global_head_dim=8, num_kv_shared_layers=0, hidden_size_per_layer_input=8,
            vocab_size_per_layer_input=67, note="a window in most layers"),
    decoder("Mistral", sliding_window=4, head_dim=8, note="a window"),
    decoder("Mixtral", sliding_window=4, **EXPERTS, note="a window, experts"),
    decoder("GptOss", LOCAL, head_dim=8, **EXPERTS, note="sinks, a window in every other layer, experts"),
    decoder("GPT2", GPT, "GPT2LMHeadModel"),
    decoder("GPTJ", GPT, rotary_dim=4),
    decoder("GPTNeoX", TEXT),
    decoder("GPTNeo", {**WORDS, "hidden_size": 32, "intermediate_size": 36}, num_layers=2, num_heads=4, window_size=4,
            attention_types=[[["global", "local"], 1]], note="knows its implementations by name", state=REFUSED),
    decoder("GPTBigCode", GPT, note="one key head"),
    decoder("CodeGen", GPT, rotary_dim=4),
    decoder("CTRL", GPT, "CTRLLMHeadModel", dff=36),
    decoder("OPT", TEXT, ffn_dim=36, word_embed_proj_dim=32),
    decoder("BioGpt", TEXT),
    decoder("XGLM", WORDS, d_model=32, ffn_dim=36, num_layers=2, attention_heads=4, state=OWN),
    decoder("Phi"),
    decoder("Phi3", sliding_window=4, note="a window"),
    decoder("StableLm"),
    decoder("Falcon", TEXT, alibi=False, multi_query=True, state=PATCH, masks=DENSE),
    decoder("Falcon, ALiBi", TEXT, "FalconForCausalLM", "ALiBi", alibi=True, multi_query=False, state=PATCH,
            masks=DENSE),
    decoder("Bloom", {"vocab_size": 67, "hidden_size": 32, "n_layer": 2, "n_head": 4, **ENDS}, note="ALiBi", state=OWN),
    decoder("Mpt", {"vocab_size": 67, "d_model": 32, "n_layers": 2, "n_heads": 4, "max_seq_len": 64, **ENDS},
            expansion_ratio=2, note="ALiBi", state=OWN),
    decoder("Cohere"),
    decoder("Cohere2", LOCAL, note="a window in most layers"),
    decoder("Olmo"),
    decoder("Olmo2", note="norms on q and k"),
    decoder("Olmo3", LOCAL, note="a window in most layers"),
    decoder("Granite"),
    decoder("SmolLM3", **ROPE_OR_NOT),
    decoder("Starcoder2", sliding_window=4, note="a window"),
    decoder("DeepseekV3", TEXT, **LATENT, note="latent attention: values narrower than keys"),
    decoder("DeepseekV32", TEXT, **LATENT, note="a choice of keys for each query", state=REFUSED),
    decoder("Glm", head_dim=8),
    decoder("Exaone4", LOCAL, note="a window in most layers"),
    decoder("Nemotron"),
    decoder("Lfm2", block_ff_dim=36, layer_types=["full_attention", "conv"], note="attention in some layers"),
    decoder("Qwen3Next", head_dim=8, layer_types=["full_attention", "linear_attention"], linear_num_value_heads=2,
            linear_num_key_heads=2, linear_key_head_dim=8, linear_value_head_dim=8, num_experts=3,
            num_experts_per_tok=2, moe_intermediate_size=16, shared_expert_intermediate_size=16,
            note="attention in some layers, experts"),
    decoder("Helium", head_dim=8),
    other("encoder", "Bert", TEXT),
    other("encoder", "Roberta", TEXT),
    other("encoder", "XLMRoberta", TEXT),
    other("encoder", "DistilBert", {"vocab_size": 67, "max_position_embeddings": 64, "pad_token_id": 0},
          dim=32, n_layers=2, n_heads=4, hidden_dim=36),
    other("encoder", "Electra", TEXT, embedding_size=32),
    other("encoder", "Albert", TEXT, embedding_size=16),
    other("encoder", "MobileBert", TEXT, embedding_size=16, intra_bottleneck_size=16, true_hidden_size=16),
    other("encoder", "ModernBert", TEXT, local_attention=4, global_attn_every_n_layers=2,
          note="a window in most layers"),
    other("encoder", "Esm", TEXT, mask_token_id=5, position_embedding_type="rotary"),
    other("encoder", "LayoutLM", TEXT, masks=DENSE),
    other("encoder", "MPNet", TEXT, note="relative bias", state=OWN),
    other("encoder", "Deberta", TEXT, relative_attention=True, pos_att_type=["c2p", "p2c"],
          note="disentangled attention", state=OWN),
    other("encoder", "DebertaV2", TEXT, relative_attention=True, pos_att_type=["c2p", "p2c"],
          note="disentangled attention", state=OWN),
    other("encoder and decoder", "T5", T5, note="relative bias", masks=BIAS),
    other("encoder and decoder", "MT5", T5, note="relative bias", masks=BIAS),
    other("encoder and decoder", "UMT5", T5, note="relative bias in every layer", masks=BIAS),
    other("encoder and decoder", "Bart", SIDES),
    other("encoder and decoder", "MBart", SIDES),
    other("encoder and decoder", "Pegasus", SIDES),
    other("encoder and decoder", "Marian", SIDES, "MarianMTModel"),
    other("encoder and decoder", "BlenderbotSmall", SIDES),
    other("encoder and decoder", "M2M100", SIDES, note="NLLB"),
    other("vision", "ViT", IMAGE),
    other("vision", "DeiT", IMAGE),
    other("vision", "Dinov2", IMAGE, mlp_ratio=2),
    other("vision", "Beit", IMAGE),
    other("vision", "VideoMAE", IMAGE, num_frames=2, tubelet_size=1),
    other("vision", "Swin", {"image_size": 16, "patch_size": 2, "embed_dim": 16}, depths=[2], num_heads=[2],
          window_size=4, note="shifted windows, relative bias", masks=DENSE),
    other("image and text", "CLIP", {"text_config": TEXT, "vision_config": IMAGE}, projection_dim=16),
    other("image and text", "Siglip", {"text_config": TEXT, "vision_config": IMAGE}),
    other("images in text", "Gemma3, images", {"text_config": {**LOCAL, **CAPPED},
          "vision_config": {**IMAGE, "image_size": 16}, "mm_tokens_per_image": 4, "image_token_index": IMAGE_TOKEN,
          "boi_token_index": 61, "eoi_token_index": 62}, "Gemma3ForConditionalGeneration",
          "blocks that see each other"),
    other("images in text", "PaliGemma", {"text_config": {"model_type": "gemma", **GROUPED, "head_dim": 8},
          "vision_config": {"model_type": "siglip_vision_model", **IMAGE, "image_size": 8, "projection_dim": 32},
          "projection_dim": 32, "image_token_index": IMAGE_TOKEN, "hidden_size": 32},
          "PaliGemmaForConditionalGeneration", "a prefix that sees itself"),
    other("images in text", "Llava", {"text_config": {"model_type": "llama", **GROUPED},
          "vision_config": {"model_type": "clip_vision_model", **IMAGE, "image_size": 8}, "vision_feature_layer": -1,
          "image_token_index": IMAGE_TOKEN},
          "LlavaForConditionalGeneration"),
    other("audio", "Wav2Vec2", SOUND),
    other("audio", "Hubert", SOUND),
    other("audio", "WavLM", SOUND, note="gated relative bias", state=PATCH, masks=BIAS),
    other("spectrogram", "AST", {**WIDTH, "patch_size": 4}, "ASTModel", num_mel_bins=16, max_length=24,
          frequency_stride=8, time_stride=8),
    other("speech and decoder", "Whisper", SIDES, num_mel_bins=8, max_source_positions=10, max_target_positions=32),
    other("speech and decoder", "Speech2Text", SIDES, input_feat_per_channel=8, num_conv_layers=1,
          conv_kernel_sizes=(3,), conv_channels=16, max_source_positions=40, max_target_positions=32),
]
# fmt: on


def table(words: Mapping[str, str]) -> str:
    """The families as a table in Markdown, with `words` for what a cell says in English."""
    rows = [("family", "class", "kind", "what is special", "masks arrive", "attention is computed by")]
    for f in FAMILIES:
        masks = "" if f.state in (OWN, REFUSED) else f.masks
        rows.append((f.name, f"`{f.model}`", f.kind, f.note, masks, f.state))
    lines = [f"| {' | '.join(words.get(cell, cell) for cell in row)} |" for row in rows]
    return "\n".join([lines[0], "|---|---|---|---|---|---|", *lines[1:]])


def filled(page: str, words: Mapping[str, str]) -> str:
    """The page with the table where its marks are."""
    before, rest = page.split(START)
    return before + START + table(words) + END + rest.split(END)[1]


if __name__ == "__main__":  # python tests/architecture_zoo.py, after a change of FAMILIES
    for page, words in PAGES.items():
        page.write_text(filled(page.read_text("utf-8"), words), "utf-8")
