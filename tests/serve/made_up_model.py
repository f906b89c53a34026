"""A model of a few bytes in a store, as an add leaves it; its weights are of no model."""

import json
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from helexa.config.schema import Store as Settings
from helexa.store import Store
from helexa.store.record import Pin, write_record
from helexa.store.source import directory_name, parse_source

SOURCE = "hf:org/made-up"
CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "vocab_size": 2,
}
TOKENIZER = {
    "version": "1.0",
    "added_tokens": [],
    "pre_tokenizer": {"type": "WhitespaceSplit"},
    "model": {"type": "WordLevel", "vocab": {"hello": 0, "<unk>": 1}, "unk_token": "<unk>"},
}
NUM_BYTES = 100_000


@contextmanager
def made_up_model(store_dir: Path) -> Iterator[Path]:
    """Its directory, for as long as the block lasts."""
    store = Store(Settings(min_free_gb=0), store_dir)
    path = store_dir / "models" / directory_name(parse_source(SOURCE))
    path.mkdir()
    (path / "config.json").write_text(json.dumps(CONFIG))
    (path / "tokenizer.json").write_text(json.dumps(TOKENIZER))
    tensor = {"w": {"dtype": "U8", "shape": [NUM_BYTES], "data_offsets": [0, NUM_BYTES]}}
    header = json.dumps(tensor).encode()
    weights = struct.pack("<Q", len(header)) + header + os.urandom(NUM_BYTES)
    (path / "model.safetensors").write_bytes(weights)
    write_record(path, SOURCE, Pin(None, {}), "safetensors")
    try:
        yield path
    finally:
        store.remove(path.name)
