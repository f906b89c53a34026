"""Which GGUF files are refused from their header, and that the tables are transformers' own."""

from pathlib import Path
from typing import Any

import pytest
from transformers import PreTrainedModel
from transformers.integrations.gguf import GGUF_CONFIG_ARCHS
from transformers.integrations.gguf.dequant import GGML_NAME
from transformers.integrations.gguf.gguf_tokenizer_mapping import (
    GGUF_PRE_TOKENIZER_SPLITS,
    GGUF_TOKENIZER_TYPES,
)
from transformers.modeling_gguf_pytorch_utils import GGUF_SUPPORTED_ARCHITECTURES

from helexa.errors import StoreError
from helexa.store import supported
from helexa.store.gguf import GgufHeader, GgufTensor
from helexa.store.supported import WAY_OUT, check_supported

SOUND = {
    "general.architecture": "llama",
    "llama.block_count": 1,
    "tokenizer.ggml.model": "gpt2",
    "tokenizer.ggml.pre": "llama-bpe",
    "tokenizer.ggml.tokens": 100,
}


def header(type_: str = "Q4_K", **changes: Any) -> GgufHeader:
    metadata = SOUND | {key.replace("__", "."): value for key, value in changes.items()}
    return GgufHeader(metadata, (GgufTensor("t", (256,), type_, 0, 144),), 0)


def test_a_common_file_is_supported() -> None:
    check_supported(header(), "x.gguf")


@pytest.mark.parametrize(
    ("unfit", "because"),
    [
        (header(general__architecture="rwkv7"), "the GGUF architecture 'rwkv7'"),
        (header(general__architecture="t5"), "the GGUF architecture 't5'"),
        (header(general__architecture="gpt-oss"), "the GGUF architecture 'gpt-oss'"),
        (header(llama__expert_count=8), "Mixtral-like"),
        (header(split__count=3), "one part of a split"),
        (header(llama__block_count=10**9), "does not fit its tensors"),
        (header(llama__block_count="two"), "does not fit its tensors"),
        (header("IQ9_X"), "the GGUF types IQ9_X"),
        (header("type 99"), "the GGUF types type 99"),
        (header("Q5_0", general__architecture="lfm2", lfm2__block_count=1), "the GGUF types Q5_0"),
        (header(tokenizer__ggml__model="rwkv"), "the GGUF tokenizer 'rwkv'"),
        (header(tokenizer__ggml__model=[1, 2]), "the GGUF tokenizer"),
        (header(tokenizer__ggml__pre="deepseek-v3"), "its way of cutting text"),
        (header(tokenizer__ggml__pre=[1]), "its way of cutting text"),
        (header(tokenizer__ggml__tokens=None), "no vocabulary"),
    ],
)
def test_what_transformers_cannot_read_is_refused_with_a_way_out(
    unfit: GgufHeader, because: str
) -> None:
    with pytest.raises(StoreError) as refused:
        check_supported(unfit, "x.gguf")
    assert because in refused.value.message
    assert WAY_OUT in refused.value.message


def test_the_architectures_are_those_that_transformers_reads() -> None:
    ours = supported.DENSE_ARCHITECTURES | supported.BLOCK_ARCHITECTURES
    theirs = {*GGUF_SUPPORTED_ARCHITECTURES, *GGUF_CONFIG_ARCHS} - {"general", "tokenizer"}
    theirs -= {"t5", "umt5", "gpt_oss"}  # left out on purpose
    spelled = {"qwen2_moe": "qwen2moe", "qwen3_moe": "qwen3moe", "minimax_m2": "minimax-m2"}
    assert ours == {spelled.get(name, name) for name in theirs}
    assert set(GGUF_CONFIG_ARCHS) == supported.BLOCK_ARCHITECTURES


def test_the_types_are_those_that_transformers_reads() -> None:
    assert {*GGML_NAME.values(), "F32", "F16", "BF16"} == supported.BLOCK_TYPES


def test_the_tokenizers_are_those_that_transformers_reads() -> None:
    assert set(GGUF_TOKENIZER_TYPES) - {"t5"} == supported.TOKENIZERS
    assert set(GGUF_PRE_TOKENIZER_SPLITS) == supported.SPLIT_BY_TRANSFORMERS


def test_the_toy_models_of_these_tests_are_supported(
    small_gguf: Path, llama: PreTrainedModel
) -> None:
    from helexa.store.assemble import read_supported

    assert read_supported(small_gguf, "toy").elements == llama.num_parameters()
