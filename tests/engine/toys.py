"""Toy models: real architectures with seeded random weights, too small to know anything."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from helexa.devices.discovery import DeviceInfo
from helexa.devices.monitor import CpuDevice
from helexa.engine.orders import Add, Load, Notice, Piece
from helexa.engine.worker import Worker

VOCAB = 199
WINDOW = 16  # of the sliding layers

SMALL: dict[str, Any] = {
    "vocab_size": VOCAB,
    "hidden_size": 48,
    "intermediate_size": 96,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 512,
    "initializer_range": 0.3,  # so that the likeliest token stands out
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}

ARCHITECTURES: dict[str, dict[str, Any]] = {
    "llama": {"tie_word_embeddings": True},
    "qwen3": {},
    "gemma3_text": {
        "sliding_window": WINDOW,
        "layer_types": ["sliding_attention", "full_attention"] * 2,
        "query_pre_attn_scalar": 16,
        "tie_word_embeddings": False,  # tied, a random Gemma only repeats its last token
    },
    "mistral": {"sliding_window": WINDOW},
    "mixtral": {"num_local_experts": 4, "num_experts_per_tok": 2},
    "gpt_oss": {
        "sliding_window": WINDOW,
        "num_local_experts": 4,
        "num_experts_per_tok": 2,
        "layer_types": ["sliding_attention", "full_attention"] * 2,
    },
    "qwen3_next": {
        "linear_num_key_heads": 2,
        "linear_num_value_heads": 4,
        "linear_key_head_dim": 16,
        "linear_value_head_dim": 16,
        "moe_intermediate_size": 32,
        "shared_expert_intermediate_size": 32,
        "num_experts": 4,
        "num_experts_per_tok": 2,
        "layer_types": ["linear_attention", "full_attention"] * 2,
    },
    "lfm2": {
        "layer_types": ["conv", "full_attention"] * 2,
        "block_ff_dim": 96,
        "block_multiple_of": 16,
    },
}


def make_toy(directory: Path, architecture: str, seed: int = 0, **changes: Any) -> Path:
    """Save a toy of `architecture` into `directory` (config.json, model.safetensors)."""
    config = AutoConfig.for_model(
        architecture, **{**SMALL, **ARCHITECTURES.get(architecture, {}), **changes}
    )
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    model.save_pretrained(directory, max_shard_size="40KB")
    return directory


def prompt_of(length: int, seed: int = 0) -> tuple[int, ...]:
    random = torch.Generator().manual_seed(seed)
    return tuple(torch.randint(3, VOCAB, (length,), generator=random).tolist())


def reference(path: Path, dtype: torch.dtype = torch.float32) -> PreTrainedModel:
    """The same model as transformers loads it."""
    model = AutoModelForCausalLM.from_pretrained(path, dtype=dtype, local_files_only=True)
    model.generation_config.eos_token_id = None
    return model


def generate(model: PreTrainedModel, prompt: tuple[int, ...], count: int) -> list[int]:
    """What transformers' `generate` answers greedily."""
    ids = torch.tensor([prompt])
    mask = torch.ones_like(ids)
    output = model.generate(ids, attention_mask=mask, max_new_tokens=count, do_sample=False)
    return output[0, len(prompt) :].tolist()


def load_order(path: Path, uid: int = 1, **changes: Any) -> Load:
    usual = {
        "model": "toy",
        "device": "cpu",
        "dtype": "fp32",
        "batch_width": 8,
        "prefill_chunk_tokens": 16,
        "drafts": False,  # how many steps an answer takes would hang on the time that they take
    }
    return Load(uid=uid, path=path, **{**usual, **changes})


def cpu_worker(threads: int = 0) -> Worker:
    """A worker on this machine's CPU."""
    info = DeviceInfo(0, "CPU", "cpu", 16_000, None, "cpu")
    return Worker(CpuDevice(info), threads)


def loaded(path: Path, **changes: Any) -> Worker:
    """A worker with one model, uid 1."""
    worker = cpu_worker(threads=1)
    worker.apply(load_order(path, **changes))
    run(worker)
    return worker


def run(worker: Worker) -> list[Notice]:
    """Step until there is nothing to do."""
    notices: list[Notice] = []
    while not worker.idle:
        notices += worker.step()
    return notices


def answer(worker: Worker, order: Add) -> list[int]:
    return tokens_of([*worker.apply(order), *run(worker)], order.uid)


def tokens_of(notices: Iterable[Notice], uid: int) -> list[int]:
    return [n.token for n in notices if isinstance(n, Piece) and n.uid == uid]
