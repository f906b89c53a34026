"""A store with models that were never fetched: small files written as a finished add leaves them."""

import json
import struct
from collections.abc import AsyncGenerator, Callable
from pathlib import Path

import pytest
from attrs import evolve
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from helexa.config.schema import Limits
from helexa.config.schema import Store as Settings
from helexa.conversation import Conversation, Message, Text
from helexa.fleet.catalogue import CatalogueModel
from helexa.library import Library
from helexa.renderers import Renderers, open_renderers
from helexa.store import Store
from helexa.store.record import Pin, write_record
from helexa.store.source import directory_name, parse_source
from helexa.text.decoder import LETTERS

SOURCE = "path:/srv/toy"
CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "hidden_size": 64,
    "vocab_size": 300,
    "max_position_embeddings": 4096,
}
ENTRY = CatalogueModel(id="toy", source=SOURCE)
# Only a tokenizer knows the id of what ends an answer here.
END = "<|end|>"


def toy_tokenizer() -> Tokenizer:
    """A letter per byte, and a token of 16 spaces."""
    blanks = "Ġ" * 16
    tokens = {letter: id for id, letter in enumerate([*LETTERS, "ĠĠ", "Ġ" * 4, "Ġ" * 8, blanks])}
    merges = [("Ġ", "Ġ"), ("ĠĠ", "ĠĠ"), ("Ġ" * 4, "Ġ" * 4), ("Ġ" * 8, "Ġ" * 8)]
    tokenizer = Tokenizer(models.BPE(tokens, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([END])
    return tokenizer


def write_weights(path: Path) -> None:
    header = json.dumps({"w": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}}).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header + bytes(24))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "store"


@pytest.fixture
def store(root: Path) -> Store:
    return Store(Settings(min_free_gb=0), root)


@pytest.fixture
def put(store: Store, root: Path) -> Callable[..., Path]:
    """Puts a model with this source into the store; returns its directory."""

    def put(source: str = SOURCE, template: str | None = "{{ messages[-1].content }}") -> Path:
        path = root / "models" / directory_name(parse_source(source))
        path.mkdir()
        (path / "config.json").write_text(json.dumps(CONFIG))
        (path / "generation_config.json").write_text('{"eos_token_id": 7, "temperature": 0.5}')
        (path / "tokenizer_config.json").write_text(json.dumps({"eos_token": END}))
        if template is not None:
            (path / "chat_template.jinja").write_text(template)
        toy_tokenizer().save(str(path / "tokenizer.json"))
        write_weights(path / "model.safetensors")
        write_record(path, source, Pin(None, {}), "safetensors")
        return path

    return put


@pytest.fixture
async def renderers() -> AsyncGenerator[Renderers, None]:
    async with open_renderers() as renderers:
        yield renderers


@pytest.fixture
def library(store: Store, renderers: Renderers) -> Library:
    return Library(store, evolve(Limits(), max_prompt_tokens=0), renderers)


@pytest.fixture
def say() -> Callable[[str], Conversation]:
    return lambda text: Conversation("toy", (Message("user", (Text(text),)),))
