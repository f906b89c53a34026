"""GGUF files converted: the same model, its tokenizer, its ends."""

import json
from pathlib import Path
from typing import Any

import gguf
import pytest
import store_toys
import torch
from safetensors.torch import load_file
from store_toys import TEMPLATE, TOKENS, toy_model, write_gguf
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from helexa.engine.convert import ConversionFailed, convert_gguf, shrink

PROMPT = torch.tensor([[1, 40, 50, 60, 70, 2]])


def converted(path: Path) -> PreTrainedModel:
    convert_gguf(path, with_weights=True)
    return AutoModelForCausalLM.from_pretrained(
        path.parent, local_files_only=True, use_safetensors=True, dtype=torch.float32
    ).eval()


@pytest.mark.parametrize(
    ("model_type", "architecture", "settings"),
    [
        ("llama", "llama", {}),
        ("qwen2", "qwen2", {"tie_word_embeddings": False}),
        ("qwen3", "qwen3", {"head_dim": 16}),
        ("gemma2", "gemma2", {"head_dim": 16}),
        ("gemma3_text", "gemma3", {"head_dim": 16}),
        ("starcoder2", "starcoder2", {}),
    ],
)
def test_a_float32_gguf_becomes_exactly_the_model_it_was_written_from(
    tmp_path: Path, model_type: str, architecture: str, settings: dict[str, Any]
) -> None:
    original = toy_model(model_type, **settings)
    model = converted(write_gguf(tmp_path / "toy.gguf", original, architecture=architecture))
    with torch.no_grad():
        assert torch.equal(model(PROMPT).logits, original(PROMPT).logits)


def test_a_quantised_gguf_becomes_float16_matrices_within_a_rounding_of_its_blocks(
    tmp_path: Path, llama: PreTrainedModel
) -> None:
    kind = gguf.GGMLQuantizationType.Q8_0
    converted(write_gguf(tmp_path / "toy.gguf", llama, kind))
    weights = load_file(tmp_path / "model.safetensors")
    assert {(v.dim(), v.dtype) for v in weights.values()} == {
        (1, torch.float32),
        (2, torch.float16),
    }
    name = "model.layers.0.mlp.down_proj.weight"
    original = llama.state_dict()[name].numpy()
    blocks = torch.from_numpy(gguf.dequantize(gguf.quantize(original, kind), kind))
    assert ((weights[name].float() - blocks).abs() <= blocks.abs() * 2**-11).all()


def test_what_is_written_is_complete_for_a_loader(tmp_path: Path, llama: PreTrainedModel) -> None:
    converted(write_gguf(tmp_path / "toy.gguf", llama))
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["architectures"] == ["LlamaForCausalLM"]
    assert config["dtype"] == "float32"
    assert config["head_dim"] == 16
    assert json.loads((tmp_path / "generation_config.json").read_text())["eos_token_id"] == 2
    assert (tmp_path / "chat_template.jinja").read_text() == TEMPLATE


def test_without_weights_only_the_small_files_are_written(
    tmp_path: Path, llama: PreTrainedModel
) -> None:
    convert_gguf(write_gguf(tmp_path / "toy.gguf", llama), with_weights=False)
    assert not (tmp_path / "model.safetensors").exists()
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["architectures"] == ["LlamaForCausalLM"]
    assert (tmp_path / "tokenizer.json").exists()


def test_numbers_are_cut_into_digits_where_the_vocabulary_was_learned_so(
    tmp_path: Path, llama: PreTrainedModel
) -> None:
    convert_gguf(write_gguf(tmp_path / "toy.gguf", llama, pre="smollm"), with_weights=False)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path, local_files_only=True)
    pieces = tokenizer.backend_tokenizer.pre_tokenizer.pre_tokenize_str("in 2024")
    assert [piece for piece, _ in pieces] == ["in", "Ġ", "2", "0", "2", "4"]
    assert tokenizer.decode(tokenizer.encode("hello <|im_end|>")) == "hello <|im_end|>"


def test_no_token_is_invented_that_the_model_has_no_embedding_for(
    tmp_path: Path, llama: PreTrainedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_toys, "TOKENS", ["<|begin|>", *TOKENS[1:]])
    convert_gguf(write_gguf(tmp_path / "toy.gguf", llama), with_weights=False)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path, local_files_only=True)
    assert max(tokenizer.encode("<|endoftext|> hello <|im_end|>")) < len(TOKENS)


def test_a_token_that_ends_a_turn_ends_a_generation_too(
    tmp_path: Path, llama: PreTrainedModel
) -> None:
    convert_gguf(write_gguf(tmp_path / "toy.gguf", llama, eos=0), with_weights=False)
    assert json.loads((tmp_path / "generation_config.json").read_text())["eos_token_id"] == [0, 2]
    assert json.loads((tmp_path / "config.json").read_text())["eos_token_id"] == [0, 2]


def test_a_file_that_lacks_tensors_is_refused(tmp_path: Path, llama: PreTrainedModel) -> None:
    short = type(llama)(llama.config)
    del short.model.layers[1]
    path = write_gguf(tmp_path / "toy.gguf", short)
    with pytest.raises(ConversionFailed, match="lacks: 9"):
        convert_gguf(path, with_weights=True)


def test_weights_that_are_not_finite_are_refused(tmp_path: Path, llama: PreTrainedModel) -> None:
    broken = type(llama)(llama.config)
    broken.model.norm.weight.data[3] = float("nan")
    path = write_gguf(tmp_path / "toy.gguf", broken)
    with pytest.raises(ConversionFailed, match="not finite"):
        convert_gguf(path, with_weights=True)


@pytest.mark.parametrize(
    ("values", "quantised", "dtype"),
    [
        ([1.0, 0.5], False, torch.float16),
        ([1.0, 1e30], False, torch.float32),
        ([1.0, 2.0**100], False, torch.bfloat16),
        ([1.0, 1 / 3], False, torch.float32),
        ([1.0, 1 / 3], True, torch.float16),
        ([1e5 + 0.5, 1 / 3], True, torch.float32),
    ],
)
def test_a_matrix_takes_the_smallest_dtype_that_its_values_allow(
    values: list[float], quantised: bool, dtype: torch.dtype
) -> None:
    assert shrink(torch.tensor([values]), quantised).dtype == dtype
    assert shrink(torch.tensor(values), quantised).dtype == torch.float32
