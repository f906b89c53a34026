"""The outline of a model, out of the heads of its files."""

from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import Any, BinaryIO

from attrs import evolve

from helexa.errors import StoreError
from helexa.store.checkpoint import CONFIG, INDEX, TAKEN, read_object, weight_names
from helexa.store.facts import (
    ModelFiles,
    Shapes,
    facts_from,
    gguf_bits,
    gguf_shapes,
    packable_of,
    plain_bits,
    read_shapes,
    safetensors_shapes,
)
from helexa.store.gguf import GgufHeader, read_header
from helexa.store.supported import check_supported
from helexa.store.tensors import Malformed, parse_header

# What a GGUF calls it, below its architecture's name -> what config.json does.
GGUF_NAMES = {
    "block_count": "num_hidden_layers",
    "attention.head_count": "num_attention_heads",
    "attention.head_count_kv": "num_key_value_heads",
    "attention.key_length": "head_dim",
    "embedding_length": "hidden_size",
    "context_length": "max_position_embeddings",
}


def of_directory(directory: Path) -> ModelFiles:
    names = {path.name for path in directory.iterdir()} if directory.is_dir() else set()
    if CONFIG not in names:
        raise StoreError(f"{directory} has no {CONFIG}.")
    index = read_object(directory / INDEX, TAKEN[INDEX]) if INDEX in names else None
    shapes: dict[str, tuple[int, ...]] = {}
    for name in weight_names(names, index, str(directory)):
        shapes |= read_shapes(directory / name)
    return outlined(read_object(directory / CONFIG, TAKEN[CONFIG]), shapes)


def of_gguf(file: BinaryIO, size: int, name: str) -> ModelFiles:
    header = read_header(file, size, name)
    check_supported(header, name)
    files = outlined(config_of(header), gguf_shapes(header), size)
    return evolve(files, packable=evolve(files.packable, bits=gguf_bits(header)))


def config_of(header: GgufHeader) -> dict[str, Any]:
    """As much of a config.json as memory depends on; every layer counts as one of full attention."""
    kind = header.architecture
    config = {name: header.metadata.get(f"{kind}.{key}") for key, name in GGUF_NAMES.items()}
    config |= {name: max(value) for name, value in config.items() if isinstance(value, list)}
    vocabulary = header.metadata.get("tokenizer.ggml.tokens")
    return {**config, "model_type": kind, "vocab_size": vocabulary}


def of_header(file: BinaryIO, size: int, name: str) -> Shapes:
    """The shapes in a safetensors file that is read forward only."""
    try:
        return safetensors_shapes(parse_header(file, size)[1])
    except (Malformed, KeyError, TypeError):
        raise StoreError(f"{name} is not a sound safetensors file.") from None


def outlined(config: Mapping[str, Any], shapes: Shapes, weight_bytes: int = 0) -> ModelFiles:
    facts = facts_from(config)
    packable = evolve(packable_of(shapes), bits=plain_bits(facts))
    return ModelFiles(facts, weight_bytes, sum(map(prod, shapes.values())), packable)
