"""A safetensors checkpoint: which of its files are taken, and what is taken out of its configs."""

import json
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from helexa.errors import StoreError
from helexa.store.supported import WAY_OUT

CONFIG, INDEX, WEIGHTS = "config.json", "model.safetensors.index.json", "model.safetensors"
MB = 1 << 20

# Every file that is taken besides the weights, with the most bytes it may have.  Everything else
# (code, pickles, adapters, other formats) is left where it is.
TAKEN = {
    CONFIG: 4 * MB,
    "generation_config.json": MB,
    "tokenizer_config.json": 16 * MB,
    "special_tokens_map.json": 4 * MB,
    "added_tokens.json": 16 * MB,
    "processor_config.json": 4 * MB,
    "preprocessor_config.json": MB,
    "video_preprocessor_config.json": MB,
    "chat_template.json": 4 * MB,
    "chat_template.jinja": 4 * MB,
    INDEX: 64 * MB,
    "tokenizer.json": 256 * MB,
    "vocab.json": 64 * MB,
    "vocab.txt": 64 * MB,
    "merges.txt": 64 * MB,
    "tokenizer.model": 64 * MB,
    "sentencepiece.bpe.model": 64 * MB,
    "spiece.model": 64 * MB,
}
# JSON files that transformers reads as settings: these are rewritten, the rest is linked.
SETTINGS = frozenset(name for name in TAKEN if name.endswith("config.json"))

# Keys that make a loader run code of the repository, fetch kernels, or choose an implementation.
DROPPED = re.compile(
    r"auto_map|trust_remote_code|custom_\w*|_commit_hash|_name_or_path|_model_name_or_path"
    r"|(_?\w*_)?(attn|attention|experts)_implementation\w*|use_kernels|kernel_config|base_model_\w+_plan"
)
# Quantisations that transformers unpacks with torch alone.
UNPACKED = frozenset({"mxfp4", "fp8"})
SHARD = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,200}\.safetensors")


def weight_names(names: Collection[str], index: Mapping[str, Any] | None, where: str) -> list[str]:
    """The weight files of a checkpoint whose top level holds `names`; StoreError if it has none."""
    if index is not None:
        shards = index_shards(index, where)
        if missing := [name for name in shards if name not in names]:
            raise StoreError(f"{where} lacks {missing[0]}, which its index names.")
        return shards
    if WEIGHTS in names:
        return [WEIGHTS]
    if any(name.endswith((".bin", ".pt", ".pth", ".ckpt")) for name in names):
        raise StoreError(
            f"{where} has its weights only as pickles, which can run code when they are read: "
            "use a repository with safetensors."
        )
    raise StoreError(f"{where} has no model.safetensors: {WAY_OUT}.")


def check_size(name: str, size: int, where: str) -> None:
    if size > TAKEN[name]:
        raise StoreError(
            f"{name} of {where} is larger than {TAKEN[name] // MB} MiB; it is refused unread."
        )


def index_shards(index: Mapping[str, Any], where: str) -> list[str]:
    """The files that an index names, all plain names of safetensors."""
    mapping = index.get("weight_map")
    if not isinstance(mapping, dict) or not mapping:
        raise StoreError(f"{INDEX} of {where} has no weight_map.")
    shards = set(mapping.values())
    if not all(isinstance(s, str) and SHARD.fullmatch(s) for s in shards):
        raise StoreError(f"{INDEX} of {where} names a file outside its directory; it is refused.")
    return sorted(shards)


def read_object(path: Path, limit: int) -> dict[str, Any]:
    """The JSON object in `path`; StoreError if it is larger than `limit` bytes, or no object."""
    if path.stat().st_size > limit:
        raise StoreError(f"{path.name} is larger than {limit // MB} MiB; it is refused.")
    try:
        value = json.loads(path.read_bytes())
    except (ValueError, RecursionError):
        raise StoreError(f"{path.name} is not sound JSON.") from None
    if not isinstance(value, dict):
        raise StoreError(f"{path.name} is not a JSON object.")
    return value


def clean(config: dict[str, Any], where: str) -> dict[str, Any]:
    """`config` without what a loader could be led by, on every level.

    StoreError if it asks for a quantisation that needs more than torch.
    """
    try:
        return clean_table(config, where)
    except RecursionError:
        raise StoreError(
            f"A settings file of {where} is nested too deeply; it is refused."
        ) from None


def clean_table(config: dict[str, Any], where: str) -> dict[str, Any]:
    kept = {key: clean_value(value, where) for key, value in config.items() if not dropped(key)}
    if (quantisation := kept.get("quantization_config")) is not None:
        kept["quantization_config"] = clean_quantisation(quantisation, where)
    return kept


def dropped(key: str) -> bool:
    return bool(DROPPED.fullmatch(key))


def clean_value(value: Any, where: str) -> Any:
    if isinstance(value, dict):
        return clean_table(value, where)
    if isinstance(value, list):
        return [clean_value(item, where) for item in value]
    return value


def clean_quantisation(value: Any, where: str) -> dict[str, Any]:
    method = value.get("quant_method") if isinstance(value, dict) else None
    if not isinstance(method, str) or method not in UNPACKED:
        raise StoreError(
            f"{where} is quantised as {str(method)[:50]!r}, which is not read here: use unquantised "
            "safetensors or a GGUF, or list an engine that reads it as an upstream."
        )
    plain = (str, int, float, bool, type(None))
    return {
        key: item
        for key, item in value.items()
        if isinstance(item, plain)
        or (isinstance(item, list) and all(isinstance(i, plain) for i in item))
    }
