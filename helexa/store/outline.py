"""What a source's model is and takes, told before its weights are downloaded."""

from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import Any, BinaryIO

from helexa.config.schema import Store as Settings
from helexa.errors import StoreError
from helexa.store.checkpoint import CONFIG, INDEX, TAKEN, read_object, weight_names
from helexa.store.facts import (
    ModelFiles,
    Shapes,
    facts_from,
    gguf_shapes,
    packable_of,
    read_shapes,
    safetensors_shapes,
)
from helexa.store.gguf import GgufHeader, read_header
from helexa.store.source import (
    DirectorySource,
    GgufSource,
    HubSource,
    WheelSource,
    parse_source,
    spelled_out,
)
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


def outline(source: str, settings: Settings) -> ModelFiles:
    """The facts and the size of a model that is not in the store.

    Reads headers alone, over the network where it must.  StoreError if they cannot be had.
    """
    match parse_source(spelled_out(source)):
        case HubSource() as wanted:
            from helexa.store.remote import hub_outline  # only a node has the hub's client

            return hub_outline(wanted, settings)
        case DirectorySource(path):
            return of_directory(path)
        case GgufSource(path):
            with path.open("rb") as file:
                return of_gguf(file, path.stat().st_size, path.name)
        case WheelSource() as wheel:
            raise StoreError(
                f"What {wheel} takes is known once it is here: helexa models add {wheel}."
            )


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
    return outlined(config_of(header), gguf_shapes(header), size)


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
    return ModelFiles(
        facts_from(config, {}), weight_bytes, sum(map(prod, shapes.values())), packable_of(shapes)
    )
