"""Turning a GGUF file into files that transformers loads by itself; runs in the store's child process.

Written beside the untouched `.gguf`:

- `config.json` with every value that transformers would assume, `generation_config.json`,
  `tokenizer.json`, `tokenizer_config.json`,
  `chat_template.jinja` (if the file holds a template);
- `model.safetensors`, if asked for: every block dequantised in float32, then one-dimensional
  tensors stay float32, and matrices become float16 or bfloat16 where that loses nothing, float16
  (round to nearest, a relative error of at most 2^-11) if the file is quantised and every value is
  in float16's range, else float32.
"""

import json
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import pre_tokenizers
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, GgufConfig
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from helexa.store.gguf import GgufHeader, read_header
from helexa.store.supported import SPLIT_SINGLE_DIGITS, WAY_OUT

LOCAL = {"local_files_only": True, "trust_remote_code": False}
FLOAT16_MAX = 65504.0
TOKEN_LIST = "tokenizer.ggml.tokens"
MARKERS = (3, 4)  # `tokenizer.ggml.token_type` of control and of user-defined tokens
# Markers that end an assistant's turn wherever they exist.
TURN_ENDS = ("<|im_end|>", "<|eot_id|>", "<|eom_id|>", "<|end|>", "<end_of_turn>", "<turn|>")
OVERLOOKED = {
    "attention.key_length": "head_dim",
    "expert_feed_forward_length": "moe_intermediate_size",
    "expert_shared_feed_forward_length": "shared_expert_intermediate_size",
}
END_KEYS = ("eos_token_id", "eot_token_id", "eom_token_id")


class ConversionFailed(Exception):
    """The model cannot be used, for a reason that the message tells in a clause."""


def check_config(directory: Path) -> None:
    """Complete the config.json in `directory` with every value that transformers would assume.

    ConversionFailed unless transformers has a text model for it.
    """
    kind = read_json(directory / "config.json").get("model_type")
    if kind not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        raise ConversionFailed(
            f"transformers {transformers.__version__} has no text model of the type {kind!r}; {WAY_OUT}"
        )
    config = AutoConfig.from_pretrained(directory, **LOCAL)
    config.to_json_file(directory / "config.json", use_diff=False)


def make_fast_tokenizer(directory: Path) -> None:
    """Write the tokenizer.json that a checkpoint with an older tokenizer lacks."""
    AutoTokenizer.from_pretrained(directory, **LOCAL).save_pretrained(directory)
    if not (directory / "tokenizer.json").exists():
        raise ConversionFailed("it has no tokenizer.json, and none can be made from what it has")


def convert_gguf(gguf: Path, with_weights: bool) -> None:
    """Write the files named above into the directory of `gguf`."""
    header = header_of(gguf)
    config = AutoConfig.from_pretrained(gguf.parent, gguf_file=gguf.name, **LOCAL)
    complete(config, header)
    ends = end_tokens(header)
    config.eos_token_id = ends[0] if len(ends) == 1 else list(ends) or None
    convert_tokenizer(gguf, header)
    if with_weights:
        dtype = convert_weights(gguf, config)
        config.dtype = dtype
    if not config.architectures:
        config.architectures = [MODEL_FOR_CAUSAL_LM_MAPPING_NAMES[config.model_type]]
    config.to_json_file(gguf.parent / "config.json", use_diff=False)
    write_generation_config(gguf.parent, config)


def complete(config: Any, header: GgufHeader) -> None:
    """Set what the file states and transformers 5.23 overlooks for some architectures."""
    for key, name in OVERLOOKED.items():
        stated = header.metadata.get(f"{header.architecture}.{key}")
        if (
            isinstance(stated, int)
            and name in vars(config)
            and "global_head_dim" not in vars(config)
        ):
            setattr(config, name, stated)


def header_of(gguf: Path) -> GgufHeader:
    with gguf.open("rb") as file:
        return read_header(file, gguf.stat().st_size, gguf.name, keep=(TOKEN_LIST,))


def end_tokens(header: GgufHeader) -> tuple[int, ...]:
    """The ids that end a generation: the ones the file names, and any token that ends a turn."""
    named = [header.metadata.get(f"tokenizer.ggml.{key}") for key in END_KEYS]
    tokens = header.metadata[TOKEN_LIST]
    types = header.metadata.get("tokenizer.ggml.token_type") or []
    turns = [
        index
        for index, (token, kind) in enumerate(zip(tokens, types, strict=False))
        if kind in MARKERS and token in TURN_ENDS
    ]
    ids = [i for i in [*named, *turns] if isinstance(i, int) and 0 <= i < len(tokens)]
    return tuple(dict.fromkeys(ids))


def convert_tokenizer(gguf: Path, header: GgufHeader) -> None:
    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name, **LOCAL)
    if header.metadata.get("tokenizer.ggml.pre") in SPLIT_SINGLE_DIGITS:
        # transformers 5.23 has no entry for these and would cut numbers as GPT-2 does.
        tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [
                pre_tokenizers.Digits(individual_digits=True),
                pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
            ]
        )
    context = header.metadata.get(f"{header.architecture}.context_length")
    if isinstance(context, int):
        tokenizer.model_max_length = context
    tokenizer.save_pretrained(gguf.parent)
    drop_invented_tokens(gguf.parent / "tokenizer.json", len(header.metadata[TOKEN_LIST]))
    settings = read_json(gguf.parent / "tokenizer_config.json")
    for noise in ("is_local", "local_files_only", "trust_remote_code"):
        settings.pop(noise, None)
    write_json(gguf.parent / "tokenizer_config.json", settings)


def drop_invented_tokens(file: Path, count: int) -> None:
    """Drop added tokens beyond the `count` of the vocabulary: the model has no embedding for them.

    transformers adds its tokenizer classes' own defaults, such as GPT-2's `<|endoftext|>`.
    """
    tokenizer = read_json(file)
    tokenizer["added_tokens"] = [t for t in tokenizer["added_tokens"] if t["id"] < count]
    file.write_text(json.dumps(tokenizer, ensure_ascii=False))


def convert_weights(gguf: Path, config: Any) -> torch.dtype:
    """Write `model.safetensors`; returns the dtype most of its matrices have."""
    model, report = AutoModelForCausalLM.from_pretrained(
        gguf.parent,
        gguf_file=gguf.name,
        config=config,
        dtype=torch.float32,
        quantization_config=GgufConfig(dequantize=True),
        output_loading_info=True,
        **LOCAL,
    )
    if missing := sorted(report["missing_keys"]) or sorted(map(str, report["mismatched_keys"])):
        raise ConversionFailed(f"tensors that it lacks: {len(missing)}, {missing[0]} among them")
    quantised = any(t.type not in ("F32", "F16", "BF16") for t in header_of(gguf).tensors)
    counts: dict[torch.dtype, int] = {}
    for name, parameter in model.named_parameters():
        if not torch.isfinite(parameter).all():
            raise ConversionFailed(f"the tensor {name} holds values that are not finite")
        parameter.data = shrink(parameter.data, quantised)
        counts[parameter.dtype] = counts.get(parameter.dtype, 0) + parameter.numel()
    model.save_pretrained(gguf.parent, max_shard_size="1TB")
    return max(counts, key=lambda dtype: counts[dtype])


def shrink(values: torch.Tensor, quantised: bool) -> torch.Tensor:
    """`values` (float32) in the dtype that the module's docstring says."""
    if values.dim() < 2:
        return values
    for dtype in (torch.float16, torch.bfloat16):
        if torch.equal(values.to(dtype).float(), values):
            return values.to(dtype)
    if quantised and values.abs().max() <= FLOAT16_MAX:
        return values.half()
    return values


def write_generation_config(directory: Path, config: Any) -> None:
    ids = {name: getattr(config, f"{name}_token_id", None) for name in ("bos", "eos", "pad")}
    known = {f"{name}_token_id": value for name, value in ids.items() if value is not None}
    write_json(directory / "generation_config.json", known)


def read_json(path: Path) -> dict[str, Any]:
    value: dict[str, Any] = json.loads(path.read_text())
    return value


def write_json(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n")
