"""What is taken of a checkpoint's files, and what is taken out of its settings."""

import json
from pathlib import Path
from typing import Any

import pytest

from helexa.errors import StoreError
from helexa.store.checkpoint import TAKEN, clean, read_object, weight_names


def index(*shards: Any) -> dict[str, Any]:
    return {"weight_map": {f"t{i}": shard for i, shard in enumerate(shards)}}


def test_one_file_or_the_shards_of_an_index_are_taken() -> None:
    assert weight_names({"model.safetensors", "pytorch_model.bin"}, None, "x") == [
        "model.safetensors"
    ]
    names = {"b.safetensors", "a.safetensors", "consolidated.safetensors"}
    shards = index("b.safetensors", "a.safetensors", "b.safetensors")
    assert weight_names(names, shards, "x") == ["a.safetensors", "b.safetensors"]


@pytest.mark.parametrize(
    ("names", "shards", "because"),
    [
        ({"pytorch_model.bin"}, None, "only as pickles"),
        ({"model.pt"}, None, "only as pickles"),
        ({"README.md"}, None, r"no model\.safetensors.*llama-server"),
        ({"a.safetensors"}, index("b.safetensors"), r"lacks b\.safetensors"),
        (set(), {}, "no weight_map"),
        (set(), {"weight_map": {}}, "no weight_map"),
        ({"../x.safetensors"}, index("../x.safetensors"), "outside its directory"),
        ({"/x.safetensors"}, index("/x.safetensors"), "outside its directory"),
        ({"x.bin"}, index("x.bin"), "outside its directory"),
    ],
)
def test_checkpoints_without_usable_weights_are_refused(
    names: set[str], shards: dict[str, Any] | None, because: str
) -> None:
    with pytest.raises(StoreError, match=because):
        weight_names(names, shards, "x")


def test_an_index_of_odd_values_is_refused() -> None:
    with pytest.raises(StoreError, match="outside its directory"):
        weight_names({"a.safetensors"}, index("a.safetensors", 7), "x")


def test_nothing_that_holds_code_is_ever_taken() -> None:
    suffixes = {Path(name).suffix for name in TAKEN}
    assert suffixes == {".json", ".jinja", ".txt", ".model"}
    assert "adapter_config.json" not in TAKEN  # would make transformers load another repository


def test_settings_lose_what_could_lead_a_loader_on_every_level() -> None:
    config = {
        "model_type": "llama",
        "auto_map": {"AutoModel": "canary.Model"},
        "trust_remote_code": True,
        "_attn_implementation": "org/kernel",
        "_attn_implementation_internal": "org/kernel",
        "attn_implementation": "org/kernel",
        "_experts_implementation": "x",
        "experts_implementation": "x",
        "_name_or_path": "/home/someone",
        "custom_generate": "x",
        "custom_pipelines": {"p": {"impl": "canary.Pipe"}},
        "use_kernels": True,
        "hidden_size": 16,
        "text_config": {"auto_map": {}, "attn_implementation": "x", "num_hidden_layers": 2},
        "list": [{"auto_map": {}, "kept": 1}],
    }
    assert clean(config, "x") == {
        "model_type": "llama",
        "hidden_size": 16,
        "text_config": {"num_hidden_layers": 2},
        "list": [{"kept": 1}],
    }


def test_a_quantisation_is_kept_in_plain_values_if_torch_alone_unpacks_it() -> None:
    quantisation = {
        "quant_method": "mxfp4",
        "modules_to_not_convert": ["lm_head"],
        "callable": {"module": "os"},
        "list": [{"a": 1}],
    }
    assert clean({"quantization_config": quantisation}, "x") == {
        "quantization_config": {"quant_method": "mxfp4", "modules_to_not_convert": ["lm_head"]}
    }


@pytest.mark.parametrize("method", ["awq", "gptq", "compressed-tensors", "bitsandbytes"])
def test_a_quantisation_that_nobody_has_run_is_refused_by_its_name(method: str) -> None:
    with pytest.raises(StoreError, match=rf"x is quantised as '{method}', which is not read here"):
        clean({"quantization_config": {"quant_method": method}}, "x")


@pytest.mark.parametrize("value", [{"quant_method": "torchao"}, {"quant_method": []}, {}, "awq", 3])
def test_any_other_quantisation_is_refused_with_a_way_out(value: Any) -> None:
    with pytest.raises(StoreError, match="as an upstream"):
        clean({"quantization_config": value}, "x")


@pytest.mark.parametrize(
    ("content", "because"),
    [
        (b"[1]", "not a JSON object"),
        (b"{", "not sound JSON"),
        (b'{"a": "\xff"}', "not sound JSON"),
        (b'{"a":' * 50_000, "not sound JSON"),
        (b'{"a": ' + b"9" * 6000 + b"}", "not sound JSON"),
        (b" " * 2000 + b"{}", "larger than"),
    ],
)
def test_json_that_is_no_small_object_is_refused(
    tmp_path: Path, content: bytes, because: str
) -> None:
    path = tmp_path / "config.json"
    path.write_bytes(content)
    limit = 1000 if because == "larger than" else 1 << 20
    with pytest.raises(StoreError, match=because):
        read_object(path, limit)


def test_settings_nested_beyond_reason_are_refused() -> None:
    deep: dict[str, Any] = {}
    for _ in range(900):
        deep = {"a": deep}
    with pytest.raises(StoreError, match="nested too deeply"):
        clean(deep, "x")


def test_a_sound_object_is_read(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text(json.dumps({"a": [1, None]}))
    assert read_object(path, 1000) == {"a": [1, None]}
