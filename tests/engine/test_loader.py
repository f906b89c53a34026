"""Loading: the very weights that `from_pretrained` gives, or one sentence that says why not."""

import gc
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from passes import carried_out
from safetensors.torch import load_file, save_file
from toys import ARCHITECTURES, load_order, make_toy, reference
from transformers import AutoModelForCausalLM, GgufConfig, PreTrainedModel

from helexa.engine import stream
from helexa.engine.checkpoint import open_checkpoint, shards
from helexa.engine.loader import LoadedModel, load
from helexa.engine.orders import LoadProgress
from helexa.engine.quant.linear import PackedLinear
from helexa.engine.skeleton import DTYPES, build_skeleton, read_config
from helexa.engine.stream import by_parameter
from helexa.errors import StoreError
from helexa.store.record import RECORD

Toy = Callable[..., Path]


@pytest.fixture(autouse=True)
def _small_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "SLICE_BYTES", 20_000)


@pytest.fixture
def broken(toy: Toy, tmp_path: Path) -> Path:
    """A copy of a toy, for the test to break."""
    return shutil.copytree(toy("llama"), tmp_path / "copy")


def read(path: Path, **changes: Any) -> tuple[LoadedModel, list[LoadProgress]]:
    return carried_out(load_order(path, **changes))


def tensors_of(model: PreTrainedModel) -> dict[str, torch.Tensor]:
    """Parameters and buffers, also those that no checkpoint holds."""
    return {**dict(model.named_parameters(remove_duplicate=False)), **dict(model.named_buffers())}


# -- the same as transformers ----------------------------------------------------------------------


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("dtype", ["fp32", "bf16", "fp16"])
def test_every_tensor_is_the_one_that_from_pretrained_gives(
    architecture: str, dtype: str, toy: Toy
) -> None:
    path = toy(architecture)
    ours, progress = read(path, dtype=dtype)
    theirs = tensors_of(reference(path, DTYPES[dtype]))
    mine = tensors_of(ours.model)
    assert mine.keys() == theirs.keys()
    for name, tensor in mine.items():
        assert tensor.dtype == theirs[name].dtype, name
        assert tensor.device.type == "cpu", name
        assert torch.equal(tensor, theirs[name]), name
    assert ours.model.config.dtype == DTYPES[dtype]
    assert ours.model.config._attn_implementation in ("sdpa", "eager")
    assert not ours.model.training
    assert not any(p.requires_grad for p in ours.model.parameters())
    assert len(progress) > 5
    assert progress[0].done_bytes == 0
    assert progress[-1].done_bytes == progress[-1].total_bytes > 0
    assert progress == sorted(progress, key=lambda p: p.done_bytes)


def test_tied_weights_are_one_tensor_and_counted_once(toy: Toy) -> None:
    ours, progress = read(toy("llama"))
    assert ours.model.lm_head.weight is ours.model.model.embed_tokens.weight
    frequencies = sum(buffer.nbytes for buffer in ours.model.buffers())
    assert ours.weights_bytes == progress[-1].total_bytes + frequencies


def test_a_single_file_loads_like_shards(toy: Toy, tmp_path: Path) -> None:
    sharded = toy("qwen3")
    tensors: dict[str, torch.Tensor] = {}
    for file in sharded.glob("*.safetensors"):
        tensors |= load_file(file)
    save_file(tensors, tmp_path / "model.safetensors")
    shutil.copy(sharded / "config.json", tmp_path)
    assert len(list(sharded.glob("*.safetensors"))) > 1
    single, _ = read(tmp_path)
    for name, tensor in tensors_of(single.model).items():
        assert torch.equal(tensor, tensors_of(reference(sharded))[name])


def test_a_load_leaves_torchs_default_dtype_alone(
    toy: Toy, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(dtype: torch.dtype) -> None:
        raise AssertionError(f"default dtype set to {dtype}")

    monkeypatch.setattr(torch, "set_default_dtype", refuse)
    for architecture in ARCHITECTURES:
        read(toy(architecture), dtype="bf16")


def test_the_experts_of_a_layer_are_read_together(toy: Toy) -> None:
    path = toy("mixtral")
    model = build_skeleton(read_config(path), torch.float32)
    mapping = stream.get_model_conversion_mapping(model)
    with open_checkpoint(path) as checkpoint:
        groups = list(by_parameter(checkpoint, model, mapping).values())
    experts = [group for group in groups if any(".experts." in name for name in group)]
    assert sorted(map(len, experts)) == [4] * 4 + [8] * 4  # down; gate and up
    assert all(len(group) == 1 for group in groups if group not in experts)


# -- GGUF and quantised ----------------------------------------------------------------------------


def test_a_directory_with_a_gguf_alone_is_dequantised(toy: Toy, tmp_path: Path) -> None:
    path = toy("llama", hidden_size=64, head_dim=16, tie_word_embeddings=False)
    write_gguf(path, tmp_path / "toy.gguf")
    shutil.copy(path / "config.json", tmp_path)
    ours, progress = read(tmp_path)
    done = [p.done_bytes for p in progress]
    assert (done[0], done[-1], len(done) > 10) == (0, progress[-1].total_bytes, True)
    assert done == sorted(done)
    mine, theirs = tensors_of(ours.model), tensors_of(reference(path))
    assert mine.keys() == theirs.keys()
    for name, tensor in mine.items():
        assert tensor.dtype == torch.float32
        assert torch.allclose(tensor, theirs[name], atol=0.01, rtol=0.02), name


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_a_gguf_comes_out_as_transformers_unpacks_it_and_packs_as_that_would(
    dtype: str, toy: Toy, tmp_path: Path
) -> None:
    path = toy("llama", hidden_size=64, head_dim=16, tie_word_embeddings=False)
    write_gguf(path, tmp_path / "toy.gguf")
    shutil.copy(path / "config.json", tmp_path)
    whole = AutoModelForCausalLM.from_pretrained(
        tmp_path,
        gguf_file="toy.gguf",
        dtype=DTYPES[dtype],
        quantization_config=GgufConfig(dequantize=True),
    )
    mine, theirs = tensors_of(read(tmp_path, dtype=dtype)[0].model), tensors_of(whole)
    assert mine.keys() == theirs.keys()
    for name, tensor in mine.items():
        assert torch.equal(tensor, theirs[name]), name
    packed, _ = read(tmp_path, dtype=dtype, quant="int8")
    assert isinstance(packed.model.model.layers[0].mlp.down_proj, PackedLinear)


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
@pytest.mark.parametrize(("architecture", "kind"), [("lfm2", "lfm2"), ("qwen3_5_text", "qwen35")])
def test_a_gguf_that_transformers_has_another_way_for_is_streamed_as_well(
    architecture: str, kind: str, dtype: str, toy: Toy, tmp_path: Path
) -> None:
    path = toy(architecture, hidden_size=64, num_hidden_layers=4, **RECURRENT[kind])
    write_made_up(path, tmp_path / "toy.gguf", kind)
    shutil.copy(path / "config.json", tmp_path)
    whole = AutoModelForCausalLM.from_pretrained(
        tmp_path,
        gguf_file="toy.gguf",
        config=read_config(path),
        dtype=torch.float32,
        quantization_config=GgufConfig(dequantize=True),
    )
    streamed, progress = read(tmp_path, dtype=dtype)
    rounding = 0 if dtype == "fp32" else 2**-7
    assert len(progress) > 10
    mine, theirs = tensors_of(streamed.model), tensors_of(whole)
    assert mine.keys() == theirs.keys()
    for name, tensor in mine.items():
        assert torch.allclose(tensor.float(), theirs[name], atol=rounding, rtol=rounding), name
    packed, _ = read(tmp_path, dtype=dtype, quant="int8")
    assert any(isinstance(module, PackedLinear) for module in packed.model.modules())


RECURRENT: dict[str, dict[str, Any]] = {
    "lfm2": {},
    "qwen35": {
        "linear_num_key_heads": 2,
        "linear_num_value_heads": 4,
        "linear_key_head_dim": 16,
        "linear_value_head_dim": 16,
        "tie_word_embeddings": False,
        "layer_types": ["linear_attention", "full_attention"] * 2,
    },
}


def write_made_up(source: Path, target: Path, kind: str) -> None:
    """A GGUF file with tensors of the names and shapes of the toy's at `source`, and other values."""
    arch = next(key for key, name in gguf.MODEL_ARCH_NAMES.items() if name == kind)
    names, model = gguf.get_tensor_name_map(arch, 4), reference(source)
    writer = gguf.GGUFWriter(target, kind)
    writer.add_block_count(4)
    random = np.random.default_rng(0)
    for name, tensor in model.state_dict().items():
        stem = name.replace("dt_bias", "dt_proj.bias")
        found = names.get_name(stem, (".weight", ".bias"))
        if found is None or (name == "lm_head.weight" and model.config.tie_word_embeddings):
            continue
        shape = [size for size in tensor.shape if size > 1]
        values = -random.random(shape, dtype=np.float32)
        is_packed = len(shape) == 2 and shape[1] % 32 == 0
        q8_0 = gguf.GGMLQuantizationType.Q8_0
        raw = gguf.quantize(values, q8_0) if is_packed else values
        writer.add_tensor(found, raw, raw_dtype=q8_0 if is_packed else None)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def write_gguf(source: Path, target: Path) -> None:
    """The toy llama at `source` as a Q8_0 GGUF file."""
    config = json.loads((source / "config.json").read_text())
    heads, kv_heads = config["num_attention_heads"], config["num_key_value_heads"]
    writer = gguf.GGUFWriter(target, "llama")
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(heads)
    writer.add_head_count_kv(kv_heads)
    writer.add_key_length(config["head_dim"])
    writer.add_value_length(config["head_dim"])
    writer.add_rope_freq_base(config["rope_parameters"]["rope_theta"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_vocab_size(config["vocab_size"])
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, config["num_hidden_layers"])
    for file in source.glob("*.safetensors"):
        for name, tensor in load_file(file).items():
            if (
                "q_proj" in name or "k_proj" in name
            ):  # llama.cpp pairs rotary dimensions its own way
                count = heads if "q_proj" in name else kv_heads
                halves = tensor.view(count, 2, -1, tensor.shape[-1])
                tensor = halves.transpose(1, 2).reshape(tensor.shape)
            values = tensor.numpy().astype(np.float32)
            kind = gguf.GGMLQuantizationType.Q8_0
            packed = gguf.quantize(values, kind) if tensor.dim() == 2 else values
            raw = kind if tensor.dim() == 2 else None
            writer.add_tensor(names.get_name(name, (".weight",)), packed, raw_dtype=raw)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def test_fp8_safetensors_are_unpacked_slice_by_slice(toy: Toy, tmp_path: Path) -> None:
    path, expected = as_fp8(toy("qwen3"), tmp_path / "copy")
    ours, progress = read(path)
    for name, tensor in tensors_of(ours.model).items():
        assert tensor.dtype == torch.float32
        assert torch.allclose(tensor, expected[name], rtol=1e-6), name
    assert len(progress) > 5
    assert progress[0].done_bytes == 0
    assert progress[-1].done_bytes == progress[-1].total_bytes > 0
    assert not hasattr(ours.model.config, "quantization_config")


def test_fp8_safetensors_are_packed_as_they_are_unpacked(toy: Toy, tmp_path: Path) -> None:
    path, expected = as_fp8(toy("qwen3", hidden_size=64), tmp_path / "copy")
    plain = shutil.copytree(toy("qwen3", hidden_size=64), tmp_path / "plain")
    for file in plain.glob("*.safetensors"):
        save_file({name: expected[name] for name in load_file(file)}, file, {"format": "pt"})
    packed, same = (tensors_of(read(each, quant="int4")[0].model) for each in (path, plain))
    assert packed.keys() == same.keys()
    assert any(name.endswith("q_proj.levels") for name in packed)
    for name, tensor in packed.items():
        assert torch.equal(tensor, same[name]), name


def test_fp8_safetensors_that_were_packed_are_not_read_again(toy: Toy, tmp_path: Path) -> None:
    path, _ = as_fp8(toy("qwen3", hidden_size=64), tmp_path / "copy")
    (path / RECORD).write_text('{"files": {}}')
    (first, before), (second, after) = read(path, quant="int4"), read(path, quant="int4")
    assert after[-1].total_bytes < before[-1].total_bytes / 2
    same = tensors_of(second.model)
    for name, tensor in tensors_of(first.model).items():
        assert torch.equal(tensor, same[name]), name


def as_fp8(source: Path, path: Path) -> tuple[Path, dict[str, torch.Tensor]]:
    """A copy of a toy with its projections in blocks of fp8, and what these hold."""
    shutil.copytree(source, path)
    expected = tensors_of(reference(path))
    for file in path.glob("*.safetensors"):
        tensors = load_file(file)
        for name in list(tensors):
            if "_proj" in name:
                packed, scales = pack_fp8(tensors[name])
                tensors |= {name: packed, f"{name}_scale_inv": scales}
                expected[name] = packed.float() * spread(scales)
        save_file(tensors, file)
    edit(path, quantization_config={"quant_method": "fp8", "weight_block_size": [BLOCK, BLOCK]})
    return path, expected


BLOCK = 16


def pack_fp8(weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    rows, columns = weight.shape
    blocks = weight.view(rows // BLOCK, BLOCK, columns // BLOCK, BLOCK)
    scales = blocks.abs().amax((1, 3)) / 448
    return (weight / spread(scales)).to(torch.float8_e4m3fn), scales


def spread(scales: torch.Tensor) -> torch.Tensor:
    return scales.repeat_interleave(BLOCK, 0).repeat_interleave(BLOCK, 1)


def test_mxfp4_experts_are_unpacked(tmp_path: Path) -> None:
    make_toy(tmp_path, "gpt_oss", hidden_size=64, intermediate_size=64)
    expected = tensors_of(reference(tmp_path))
    random = torch.Generator().manual_seed(0)
    for file in tmp_path.glob("*.safetensors"):
        tensors = load_file(file)
        for name in [n for n in tensors if n.endswith(("gate_up_proj", "down_proj"))]:
            experts, inputs, outputs = tensors.pop(name).shape
            shape = (experts, outputs, inputs // 32, 16)
            blocks = torch.randint(0, 256, shape, generator=random, dtype=torch.uint8)
            scales = torch.randint(120, 127, shape[:-1], generator=random, dtype=torch.uint8)
            tensors |= {f"{name}_blocks": blocks, f"{name}_scales": scales}
            expected[name] = unpack_mxfp4(blocks, scales)
        save_file(tensors, file)
    edit(tmp_path, quantization_config={"quant_method": "mxfp4"})
    ours, _ = read(tmp_path)
    for name, tensor in tensors_of(ours.model).items():
        assert tensor.dtype == torch.float32
        assert torch.equal(tensor, expected[name]), name


def unpack_mxfp4(blocks: torch.Tensor, scales: torch.Tensor) -> torch.Tensor:
    """Two 4-bit floats (E2M1) in a byte, low half first, 32 to a power-of-two scale (OCP MX 1.0)."""
    table = torch.tensor([0, 0.5, 1, 1.5, 2, 3, 4, 6])
    table = torch.cat([table, -table])
    values = torch.stack([table[(blocks & 15).long()], table[(blocks >> 4).long()]], -1)
    values = values.flatten(-2) * torch.exp2(scales.float() - 127)[..., None]
    return values.flatten(-2).transpose(1, 2)


def test_a_quantisation_that_is_not_installed_is_refused_in_words(broken: Path) -> None:
    edit(broken, quantization_config={"quant_method": "awq", "bits": 4})
    with pytest.raises(StoreError, match="cannot be loaded"):
        read(broken)


# -- what is refused -------------------------------------------------------------------------------


def edit(path: Path, **changes: Any) -> None:
    config = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps({**config, **changes}))


def without(path: Path, name: str) -> None:
    """Take one tensor out of a toy's files."""
    for file in path.glob("*.safetensors"):
        tensors = load_file(file)
        if name in tensors:
            del tensors[name]
            save_file(tensors, file)


def test_a_missing_weight_is_never_made_up(broken: Path) -> None:
    without(broken, "model.layers.2.mlp.up_proj.weight")
    with pytest.raises(StoreError, match=r"lacks weights: model\.layers\.2\.mlp\.up_proj\.weight"):
        read(broken)


def test_an_embedding_that_its_head_was_tied_to_is_missed(broken: Path) -> None:
    without(broken, "model.embed_tokens.weight")
    with pytest.raises(StoreError, match="lacks weights"):
        read(broken)


def test_a_weight_that_the_architecture_has_not_is_refused(broken: Path) -> None:
    edit(broken, num_hidden_layers=3)
    with pytest.raises(StoreError, match=r"holds unknown weights: model\.layers\.3\."):
        read(broken)


def test_a_weight_of_another_shape_is_refused(broken: Path) -> None:
    edit(broken, intermediate_size=80)
    with pytest.raises(StoreError, match=r"do not fit its config\.json: .* is \[\d+, \d+\], not"):
        read(broken)


def test_experts_that_do_not_fit_together_are_refused(toy: Toy, tmp_path: Path) -> None:
    path = shutil.copytree(toy("mixtral"), tmp_path / "copy")
    for file in path.glob("*.safetensors"):
        tensors = load_file(file)
        for name in tensors:
            if name.endswith("experts.1.w1.weight"):
                tensors[name] = tensors[name][:5].clone()
        save_file(tensors, file)
    with pytest.raises(StoreError, match=r"do not fit its config\.json"):
        read(path)


def test_a_missing_shard_is_named(broken: Path) -> None:
    victim = sorted(broken.glob("*.safetensors"))[1]
    victim.unlink()
    with pytest.raises(StoreError, match=victim.name):
        read(broken)


def test_a_shard_that_was_cut_short_is_named(broken: Path) -> None:
    victim = sorted(broken.glob("*.safetensors"))[1]
    victim.write_bytes(victim.read_bytes()[:-100])
    with pytest.raises(StoreError, match=victim.name):
        read(broken)


def test_a_directory_without_weights_is_refused(broken: Path) -> None:
    for file in broken.glob("*.safetensors*"):
        file.unlink()
    with pytest.raises(StoreError, match="holds no weights"):
        read(broken)


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"weight_map": 3}', "\xff"])
def test_a_damaged_index_is_refused(content: str, tmp_path: Path) -> None:
    (tmp_path / "index.json").write_bytes(content.encode("latin-1"))
    with pytest.raises(StoreError, match="is damaged"):
        shards(tmp_path / "index.json")


@pytest.mark.parametrize("name", ["../model.safetensors", "/etc/passwd", "a/b", 7])
def test_an_index_that_points_elsewhere_is_refused(name: Any, tmp_path: Path) -> None:
    (tmp_path / "index.json").write_text(json.dumps({"weight_map": {"w": name}}))
    with pytest.raises(StoreError, match="outside of its directory"):
        shards(tmp_path / "index.json")


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"model_type": "skynet"}'])
def test_a_config_that_cannot_be_used_is_refused(content: str, broken: Path) -> None:
    (broken / "config.json").write_text(content)
    with pytest.raises(StoreError, match=r"config\.json"):
        read(broken)


def test_an_architecture_without_a_text_decoder_is_refused(broken: Path) -> None:
    edit(broken, model_type="vit", architectures=["ViTModel"])
    with pytest.raises(StoreError, match="architecture cannot be built"):
        read(broken)


def test_an_architecture_without_a_cache_is_refused(tmp_path: Path) -> None:
    make_toy(tmp_path, "mamba", state_size=4)
    with pytest.raises(StoreError, match="of type mamba cannot be served"):
        read(tmp_path)


def test_a_repository_cannot_bring_code_or_choose_a_kernel(broken: Path) -> None:
    mark = broken / "ran"
    (broken / "evil.py").write_text(f"open({str(mark)!r}, 'w').close()\n")
    edit(
        broken,
        auto_map={"AutoConfig": "evil.Config", "AutoModelForCausalLM": "evil.Model"},
        attn_implementation="kernels-community/flash-attn",
        experts_implementation="kernels-community/moe",
    )
    ours, _ = read(broken)
    assert ours.model.config._attn_implementation == "sdpa"
    assert not mark.exists()


# -- cancelling ------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["plain", "fp8"])
def test_a_load_that_is_given_up_leaves_nothing_behind(form: str, toy: Toy, tmp_path: Path) -> None:
    path = toy("mixtral") if form == "plain" else as_fp8(toy("qwen3"), tmp_path / "copy")[0]
    gc.collect()
    before = num_models()
    slices = load(load_order(path))
    for _ in range(6):
        next(slices)
    assert num_models() > before
    slices.close()
    gc.collect()
    assert num_models() == before


def num_models() -> int:
    return sum(issubclass(type(thing), PreTrainedModel) for thing in gc.get_objects())
