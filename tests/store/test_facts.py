"""Facts from configs as they are on hubs, and as the store completes them."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from transformers import CONFIG_MAPPING

from helexa.errors import StoreError
from helexa.store.facts import Facts, Layers, facts_from, read_facts

LLAMA = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "num_hidden_layers": 16,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "hidden_size": 2048,
    "max_position_embeddings": 131072,
    "vocab_size": 128256,
    "torch_dtype": "bfloat16",
}


def facts(**changes: Any) -> Facts:
    return facts_from(LLAMA | changes)


def test_llama() -> None:
    assert facts() == Facts(
        architecture="LlamaForCausalLM",
        model_type="llama",
        layers=Layers(total=16, full=16, sliding=0, window=0),
        kv_heads=8,
        head_dim=64,
        max_position_embeddings=131072,
        vocab_size=128256,
        dtype="bfloat16",
    )


def test_qwen3_states_its_head_dim_and_a_window_that_it_does_not_use() -> None:
    qwen = facts(
        model_type="qwen3",
        head_dim=128,
        hidden_size=1024,
        num_attention_heads=16,
        sliding_window=32768,
        use_sliding_window=False,
        dtype="float16",
    )
    assert (qwen.head_dim, qwen.dtype) == (128, "float16")
    assert qwen.layers == Layers(16, 16, 0, 0)


def test_gemma3_keeps_its_facts_in_a_text_config() -> None:
    text = {
        "model_type": "gemma3_text",
        "num_hidden_layers": 34,
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
        "head_dim": 256,
        "hidden_size": 2560,
        "sliding_window": 1024,
        "sliding_window_pattern": 6,
        "max_position_embeddings": 131072,
    }
    config = {
        "architectures": ["Gemma3ForConditionalGeneration"],
        "model_type": "gemma3",
        "text_config": text,
        "vocab_size": 262208,
        "torch_dtype": "bfloat16",
    }
    gemma = facts_from(config)
    assert (gemma.architecture, gemma.model_type) == (
        "Gemma3ForConditionalGeneration",
        "gemma3_text",
    )
    assert gemma.layers == Layers(total=34, full=5, sliding=29, window=1024)
    assert (gemma.vocab_size, gemma.dtype) == (262208, "bfloat16")


def test_mistral_slides_on_every_layer_if_it_states_a_window() -> None:
    assert facts(model_type="mistral", sliding_window=4096).layers == Layers(16, 0, 16, 4096)
    assert facts(model_type="mistral", sliding_window=None).layers == Layers(16, 16, 0, 0)


def test_mixtral_has_head_dim_null() -> None:
    assert facts(model_type="mixtral", head_dim=None, num_local_experts=8).head_dim == 64


def test_gpt_oss_lists_its_layer_types() -> None:
    kinds = ["sliding_attention", "full_attention"] * 8
    oss = facts(model_type="gpt_oss", layer_types=kinds, sliding_window=128, head_dim=64)
    assert oss.layers == Layers(total=16, full=8, sliding=8, window=128)


def test_qwen3_next_attends_fully_on_every_fourth_layer() -> None:
    following = facts(
        model_type="qwen3_next", full_attention_interval=4, num_key_value_heads=2, head_dim=256
    )
    assert following.layers == Layers(total=16, full=4, sliding=0, window=0)
    assert (following.kv_heads, following.head_dim) == (2, 256)


@pytest.mark.parametrize(
    ("model_type", "layers"),
    [
        ("llama", Layers(32, 32, 0, 0)),
        ("qwen3", Layers(32, 32, 0, 0)),
        ("gemma3", Layers(26, 4, 22, 4096)),
        ("mistral", Layers(32, 0, 32, 4096)),
        ("mixtral", Layers(32, 32, 0, 0)),
        ("gpt_oss", Layers(36, 18, 18, 128)),
        ("qwen3_next", Layers(48, 12, 0, 0, 20_054_016)),
        ("llama4_text", Layers(48, 12, 36, 8192)),
        ("jamba", Layers(32, 4, 0, 0, 4_587_520)),
    ],
)
def test_completed_configs_need_no_assumption(model_type: str, layers: Layers) -> None:
    assert facts_from(CONFIG_MAPPING[model_type]().to_dict()).layers == layers


def test_older_names_and_other_head_shapes_are_understood() -> None:
    gpt2 = facts_from(CONFIG_MAPPING["gpt2"]().to_dict())
    assert (gpt2.kv_heads, gpt2.head_dim, gpt2.max_position_embeddings) == (12, 64, 1024)
    falcon = facts_from(CONFIG_MAPPING["falcon"]().to_dict())
    assert falcon.kv_heads == 1
    deepseek = facts_from(CONFIG_MAPPING["deepseek_v3"]().to_dict())
    assert deepseek.head_dim == (128 + 64 + 128) // 2
    gemma4 = facts(global_head_dim=512, head_dim=256, num_global_key_value_heads=1)
    assert (gemma4.kv_heads, gemma4.head_dim) == (1, 512)


def test_facts_that_are_missing_are_named_or_have_a_default() -> None:
    assert facts(torch_dtype=None).dtype == "float32"
    for name in ("num_hidden_layers", "max_position_embeddings", "vocab_size"):
        with pytest.raises(StoreError, match=name):
            facts(**{name: None})
    with pytest.raises(StoreError, match="num_key_value_heads"):
        facts(num_key_value_heads=None, num_attention_heads="many")


def test_a_directory_tells_its_weights_too(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(LLAMA))
    save_file({"a": torch.zeros(2, 3), "b": torch.zeros(4)}, tmp_path / "model.safetensors")
    files = read_facts(tmp_path)
    assert files.parameters == 10
    assert files.weight_bytes == (tmp_path / "model.safetensors").stat().st_size


def test_a_directory_with_a_gguf_alone_tells_its_parameters(small_gguf: Path) -> None:
    (small_gguf.parent / "config.json").write_text(json.dumps(LLAMA))
    files = read_facts(small_gguf.parent)
    assert files.weight_bytes == small_gguf.stat().st_size
    assert 80_000 < files.parameters < 200_000
