"""Configurations of the language models of transformers, with every size that has a known name made small."""

from __future__ import annotations

import copy
from typing import Any

WIDTH, DEPTH, VOCABULARY = 32, 4, 96
_SIZES: dict[str, Any] = {
    **dict.fromkeys(
        ("hidden_size", "d_model", "n_embd", "dim", "embed_dim", "embedding_size", "emb_dim"), WIDTH
    ),
    **dict.fromkeys(("num_hidden_layers", "num_layers", "n_layer", "n_layers", "decoder_layers"), DEPTH),
    **dict.fromkeys(("encoder_layers", "num_encoder_layers", "num_decoder_layers"), DEPTH),
    **dict.fromkeys(("num_attention_heads", "n_head", "n_heads", "num_heads", "decoder_attention_heads"), 4),
    **dict.fromkeys(
        ("encoder_attention_heads", "linear_num_heads", "linear_num_value_heads", "linear_num_key_heads"), 4
    ),
    **dict.fromkeys(("num_key_value_heads", "multi_query_group_num", "num_global_key_value_heads"), 2),
    **dict.fromkeys(("head_dim", "d_kv", "d_head", "v_head_dim", "qk_nope_head_dim", "global_head_dim"), 8),
    **dict.fromkeys(("qk_rope_head_dim", "kv_channels", "attention_head_dim", "swa_head_dim"), 8),
    **dict.fromkeys(("linear_key_head_dim", "linear_head_dim", "linear_value_head_dim", "index_head_dim"), 8),
    **dict.fromkeys(
        ("intermediate_size", "ffn_dim", "d_ff", "n_inner", "decoder_ffn_dim", "ffn_hidden_size"), 48
    ),
    **dict.fromkeys(("encoder_ffn_dim", "moe_intermediate_size", "shared_expert_intermediate_size"), 48),
    **dict.fromkeys(
        ("mlp_hidden_size", "moe_shared_expert_intermediate_size", "shared_intermediate_size"), 48
    ),
    **dict.fromkeys(("intermediate_size_mlp", "dense_intermediate_size", "expert_ffn_hidden_size"), 48),
    **dict.fromkeys(("vocab_size", "vocab_size_per_layer_input", "text_vocab_size", "n_vocab"), VOCABULARY),
    **dict.fromkeys(("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts"), 4),
    **dict.fromkeys(
        ("num_experts_per_tok", "moe_topk", "moe_k", "num_experts_per_token", "top_k_experts"), 2
    ),
    **dict.fromkeys(
        ("n_group", "topk_group", "num_expert_group", "num_expert_groups", "n_shared_experts"), 1
    ),
    **dict.fromkeys(("q_lora_rank", "kv_lora_rank", "o_lora_rank", "hidden_size_per_layer_input"), 16),
    **dict.fromkeys(("first_k_dense_replace", "moe_layer_start_index", "num_dense_layers"), 1),
    **dict.fromkeys(("mamba_d_state", "state_size", "mamba_d_head", "mamba_head_dim", "ssm_state_size"), 8),
    **dict.fromkeys(("mamba_n_heads", "mamba_num_heads", "n_mamba_heads"), 8),
    **dict.fromkeys(("mamba_n_groups", "n_groups", "mamba_ngroups"), 1),
    **dict.fromkeys(("mamba_d_ssm",), 64),
    **dict.fromkeys(("time_step_rank", "mamba_dt_rank", "adapter_rank"), 4),
    **dict.fromkeys(("lru_width", "attention_hidden_size", "word_embed_proj_dim"), WIDTH),
    **dict.fromkeys(("max_position_embeddings", "n_positions", "max_seq_len", "seq_length"), 256),
    **dict.fromkeys(("chunk_size", "mamba_chunk_size"), 16),
    **dict.fromkeys(("rotary_dim",), 4),
    **dict.fromkeys(("index_topk", "index_n_heads"), 4),
    "index_topk": 512,
    "mtp_num_layers": 0,
    "num_nextn_predict_layers": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "sep_token_id": 2,
    "num_kv_shared_layers": 2,
    "is_decoder": True,
}
"""Key of a configuration → its small value, used where the configuration has the key."""

_ALSO_WITHOUT = ("is_decoder", "num_kv_shared_layers")
"""Keys that are set where they are 0 or false too; elsewhere that says that a part is absent."""

_OF_LATENT_ATTENTION = {"num_key_value_heads": 4, "qk_head_dim": 16}

_TWO_KINDS = ["sliding_attention", "full_attention"] * (DEPTH // 2)
_WIDE_HEADS = {"layer_types": _TWO_KINDS, "per_layer_config": {1: {"head_dim": 16}, 3: {"head_dim": 16}}}

_OF_MODEL: dict[str, dict[str, Any]] = {
    "blt": {"encoder_hash_byte_group_vocab": VOCABULARY},
    "blt_local_encoder": {"hidden_size_global": WIDTH},
    "blt_local_decoder": {"hidden_size_global": WIDTH},
    "cohere_compass_text": {
        "rope_parameters": {"full_attention": {"rope_type": "default", "rope_theta": 1e4}}
    },
    "dbrx": {"attn_config": {"rope_theta": 1e4, "clip_qkv": 8.0}},
    "deepseek_v2": {"num_experts_per_tok": 2},
    "dots1": {"n_routed_experts": 4, "n_shared_experts": 1, "num_experts_per_tok": 2},
    "dots3_note_text": {"head_dim": 16, "per_layer_config": {2: {"kv_lora_rank": 8}, 3: {"kv_lora_rank": 8}}}
    | {"layer_types": ["indexed_attention"] * 2 + ["sliding_attention"] * 2},
    "dots3_note_vision_encoder": {"adapter_in_dim": WIDTH, "adapter_out_dim": WIDTH},
    "dots3_note_audio_encoder": {"adapter_input_size": WIDTH, "adapter_out_dim": WIDTH},
    "gemma3n_text": {"layer_types": _TWO_KINDS},
    "gemma4_text": _WIDE_HEADS,
    "gemma4_unified_text": _WIDE_HEADS,
    "hunyuan_v1_dense": {"head_dim": 8},
    "hunyuan_v1_moe": {"head_dim": 8},
    "lfm2_moe": {"layer_types": ["conv", "conv", "full_attention", "conv"]},
    "mamba2": {"head_dim": 16},
    "ministral": {"head_dim": 8},
    "mllama_text_model": {"cross_attention_layers": [2]},
    "nemotron": {"num_key_value_heads": 2},
    "qwen4_exp_text": {"hc_lowrank": 8, "indexer_n_heads": 2, "indexer_kv_heads": 1, "indexer_head_dim": 8}
    | {"indexer_budget": 256, "indexer_compress_ratio": 4},
    "reformer": {"axial_pos_embds": False, "attention_head_size": 8, "feed_forward_size": 48},
    "xlstm": {"embedding_dim": WIDTH, "num_blocks": DEPTH},
    "xmod": {"default_language": "en_XX"},
    "zamba": {"attention_hidden_size": 2 * WIDTH, "attention_head_dim": 16}
    | {"layers_block_type": ["linear_attention", "hybrid"] * (DEPTH // 2)},
    "zamba2": {"attention_hidden_size": 2 * WIDTH, "attention_head_dim": 16, "mamba_headdim": 8}
    | {"hybrid_layer_ids": [1, 3], "layers_block_type": ["linear_attention", "hybrid"] * (DEPTH // 2)},
    "zaya": {"num_experts_per_tok": 1},
}
"""Model type, also of a part of a configuration → keys that fit no other."""

_GIVEN: dict[str, dict[str, Any]] = {
    "gemma4_assistant": {
        "text_config": {"model_type": "gemma4_text", "vocab_size_per_layer_input": 0}
        | {"hidden_size_per_layer_input": 0}
    },
}
"""Model type → keys without which its configuration cannot be made."""


def small_config(kind: str) -> Any:
    """The configuration of a model type, with small sizes."""
    from transformers import CONFIG_MAPPING

    cls = CONFIG_MAPPING[kind]
    return cls.from_dict(_small(cls(**_GIVEN.get(kind, {})).to_dict()))


def _small(described: dict[str, Any]) -> dict[str, Any]:
    depth = max((described.get(k) or 0 for k in ("num_hidden_layers", "n_layer", "num_layers")), default=0)
    found: dict[str, Any] = {}
    sizes = _SIZES | (_OF_LATENT_ATTENTION if "kv_lora_rank" in described else {})
    for key, value in described.items():
        if key == "per_layer_config" and isinstance(value, dict):
            found[key] = {at: kept for at, kept in value.items() if int(at) < DEPTH}
        elif isinstance(value, dict) and key.endswith("_config"):
            found[key] = _small(value)
        elif key == "num_kv_shared_layers" and value and value == depth:
            found[key] = DEPTH
        elif key in sizes and (value or (value is not None and key in _ALSO_WITHOUT)):
            found[key] = sizes[key]
        elif isinstance(value, list) and depth > DEPTH and len(value) == depth:
            found[key] = [*value[: DEPTH - 1], value[-1]]
        elif key == "pad_token_id":
            found[key] = value if value is None or 0 <= value < VOCABULARY else 0
        else:
            found[key] = copy.deepcopy(value)
    for key, value in _OF_MODEL.get(described.get("model_type", ""), {}).items():
        found[key] = {**found[key], **value} if key == "attn_config" else value
    return found
