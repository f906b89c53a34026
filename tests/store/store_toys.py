"""Toy models in every form that the store takes."""

import json
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import gguf
import numpy as np
import torch
from safetensors.torch import save_file
from transformers import CONFIG_MAPPING, AutoModelForCausalLM, PreTrainedModel
from transformers.convert_slow_tokenizer import bytes_to_unicode

SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
TOKENS = [*SPECIAL, *bytes_to_unicode().values(), "he", "ll", "llo", "hello"]
MERGES = ["h e", "l l", "ll o", "he llo"]
TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
)


def toy_model(model_type: str = "llama", **settings: Any) -> PreTrainedModel:
    """A seeded model of two layers with TOKENS as its vocabulary."""
    torch.manual_seed(0)
    config = CONFIG_MAPPING[model_type](
        vocab_size=len(TOKENS),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=256,
        **{"bos_token_id": 1, "eos_token_id": 2, "tie_word_embeddings": True, **settings},
    )
    return AutoModelForCausalLM.from_config(config).eval()


def interleaved(weight: np.ndarray, heads: int) -> np.ndarray:
    """Rows of a query or key matrix in the order that llama.cpp keeps them in."""
    rows, columns = weight.shape
    halves = weight.reshape(heads, 2, rows // heads // 2, columns)
    return halves.swapaxes(1, 2).reshape(rows, columns)


def gguf_tensors(model: PreTrainedModel, architecture: str) -> dict[str, np.ndarray]:
    """The model's tensors as llama.cpp names and stores them."""
    kind = next(k for k, v in gguf.MODEL_ARCH_NAMES.items() if v == architecture)
    names = gguf.get_tensor_name_map(kind, model.config.num_hidden_layers)
    heads = {"q_proj": model.config.num_attention_heads, "k_proj": model.config.num_key_value_heads}
    tensors = {}
    for name, value in model.state_dict().items():
        stem, _, suffix = name.rpartition(".")
        last, array = stem.rpartition(".")[2], value.numpy()
        if last == "lm_head" and model.config.tie_word_embeddings:
            continue
        if architecture == "llama" and last in heads:
            array = interleaved(array, heads[last])
        if architecture.startswith("gemma") and "norm" in last:
            array = array + 1
        tensors[f"{names.get_name(stem)}.{suffix}"] = array.copy()
    return tensors


def write_gguf(
    path: Path,
    model: PreTrainedModel,
    quantise: gguf.GGMLQuantizationType | None = None,
    *,
    architecture: str = "llama",
    tokenizer: str = "gpt2",
    pre: str = "smollm",
    eos: int = 2,
    numbers: Mapping[str, int] = MappingProxyType({}),
) -> Path:
    """`model` as a GGUF; `numbers` adds or replaces metadata keys."""
    writer = gguf.GGUFWriter(path, architecture)
    config = model.config
    head_dim = config.hidden_size // config.num_attention_heads
    stated = {
        "context_length": config.max_position_embeddings,
        "block_count": config.num_hidden_layers,
        "embedding_length": config.hidden_size,
        "feed_forward_length": config.intermediate_size,
        "attention.head_count": config.num_attention_heads,
        "attention.head_count_kv": config.num_key_value_heads,
        "attention.key_length": head_dim,
        "attention.value_length": head_dim,
        "attention.sliding_window": getattr(config, "sliding_window", None) or 0,
        "rope.dimension_count": head_dim,
        "vocab_size": config.vocab_size,
    }
    for key, value in ({f"{architecture}.{k}": v for k, v in stated.items()} | {**numbers}).items():
        writer.add_uint32(key, value)
    eps = getattr(config, "rms_norm_eps", 0.0)
    writer.add_layer_norm_rms_eps(eps)
    rope = config.rope_parameters
    writer.add_rope_freq_base(rope.get("full_attention", rope)["rope_theta"])
    writer.add_tokenizer_model(tokenizer)
    writer.add_tokenizer_pre(pre)
    writer.add_token_list(TOKENS)
    writer.add_token_types([3 if token in SPECIAL else 1 for token in TOKENS])
    writer.add_token_merges(MERGES)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(eos)
    writer.add_chat_template(TEMPLATE)
    for name, array in gguf_tensors(model, architecture).items():
        if quantise is None or array.ndim == 1:
            writer.add_tensor(name, array)
        else:
            writer.add_tensor(name, gguf.quantize(array, quantise), raw_dtype=quantise)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


TOKENIZER = {
    "version": "1.0",
    "truncation": None,
    "padding": None,
    "added_tokens": [],
    "normalizer": None,
    "pre_tokenizer": {"type": "WhitespaceSplit"},
    "post_processor": None,
    "decoder": None,
    "model": {"type": "WordLevel", "vocab": {"hello": 0, "<unk>": 1}, "unk_token": "<unk>"},
}
CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "vocab_size": 32,
    "max_position_embeddings": 64,
    "eos_token_id": 2,
}


def write_checkpoint(directory: Path, **config: Any) -> Path:
    """A safetensors checkpoint that is sound in form; its weights are of no model."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "config.json").write_text(json.dumps(CONFIG | config))
    (directory / "generation_config.json").write_text('{"eos_token_id": [2, 3]}')
    (directory / "tokenizer.json").write_text(json.dumps(TOKENIZER))
    (directory / "tokenizer_config.json").write_text('{"tokenizer_class": "TokenizersBackend"}')
    (directory / "chat_template.jinja").write_text(TEMPLATE)
    save_file({"a": torch.arange(6.0).reshape(2, 3)}, directory / "model.safetensors")
    return directory


def everything_below(directory: Path) -> set[str]:
    return {str(path.relative_to(directory)) for path in directory.rglob("*")}
