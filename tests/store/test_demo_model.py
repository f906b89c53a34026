"""The demo model as people get it: through pip, prepared, loaded, asked."""

import hashlib
import json

import pytest
import torch
from attrs import evolve
from transformers import AutoModelForCausalLM, AutoTokenizer

from helexa.fleet.catalogue import DEMO_MODEL
from helexa.store import Store, StoredModel
from helexa.store.facts import Layers, read_facts

pytestmark = pytest.mark.real

GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"


def test_the_demo_model_is_in_the_store(demo_store: Store, demo_model: StoredModel) -> None:
    found = demo_store.find(DEMO_MODEL.source)
    assert found is not None
    assert evolve(found, last_used=None) == evolve(demo_model, last_used=None)
    assert demo_model.weights == "safetensors"


def test_its_blocks_are_kept_bit_for_bit(demo_model: StoredModel) -> None:
    (file,) = demo_model.path.glob("*.gguf")
    assert hashlib.sha256(file.read_bytes()).hexdigest() == GGUF_SHA256
    small = [p for p in demo_model.path.iterdir() if p.suffix not in (".gguf", ".safetensors")]
    assert sum(p.stat().st_size for p in small) <= file.stat().st_size * 0.1


def test_its_facts_and_ends_are_right(demo_model: StoredModel) -> None:
    files = read_facts(demo_model.path)
    assert files.facts.layers == Layers(30, 30, 0, 0)
    assert (files.facts.kv_heads, files.facts.head_dim) == (3, 64)
    assert (files.facts.max_position_embeddings, files.facts.vocab_size) == (8192, 49152)
    assert files.parameters == 134_515_008
    ends = json.loads((demo_model.path / "generation_config.json").read_text())
    assert ends["eos_token_id"] == 2


def test_it_knows_the_capital_of_france(demo_model: StoredModel) -> None:
    tokenizer = AutoTokenizer.from_pretrained(demo_model.path, local_files_only=True)
    model = AutoModelForCausalLM.from_pretrained(
        demo_model.path, local_files_only=True, use_safetensors=True, dtype=torch.float32
    )
    question = [{"role": "user", "content": "What is the capital of France?"}]
    prompt = tokenizer.apply_chat_template(
        question, add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    with torch.no_grad():
        answer = model.generate(**prompt, do_sample=False, max_new_tokens=20)
    assert "Paris" in tokenizer.decode(answer[0, prompt["input_ids"].shape[1] :])


def test_numbers_are_cut_into_digits_as_its_vocabulary_was_learned(demo_model: StoredModel) -> None:
    tokenizer = AutoTokenizer.from_pretrained(demo_model.path, local_files_only=True)
    assert tokenizer.tokenize("in 2024") == ["in", "Ġ", "2", "0", "2", "4"]
