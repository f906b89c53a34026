"""Which GGUF files transformers can read, decided from the header alone.

The tables restate transformers 5.23 (`GGUF_SUPPORTED_ARCHITECTURES`, `GGUF_CONFIG_ARCHS`,
`GGUF_PRE_TOKENIZER_SPLITS`) so that no torch is imported to refuse a file; a test compares them.
"""

from helexa.errors import StoreError
from helexa.store.gguf import GgufHeader

WAY_OUT = (
    "list an OpenAI-compatible engine such as llama-server as an upstream, "
    "or use a safetensors checkpoint"
)


def words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# Read through gguf-py's `dequantize`.  Left out: encoder-decoders (t5, umt5), which don't chat, and
# gpt-oss, whose experts transformers looks for under names that no file has.
DENSE_ARCHITECTURES = words(
    "bloom deci falcon gemma2 gemma3 gemma4 gpt2 llama mamba minimax-m2 mistral nemotron "
    "phi3 qwen2 qwen2moe qwen3 qwen3moe stablelm starcoder2"
)
# Read through transformers' own block reader, which knows fewer types.
BLOCK_ARCHITECTURES = words("lfm2 qwen35 qwen35moe")

BLOCK_TYPES = words(
    "F32 F16 BF16 Q4_0 Q4_1 Q8_0 Q2_K Q3_K Q4_K Q5_K Q6_K "
    "IQ1_S IQ1_M IQ2_XXS IQ2_XS IQ2_S IQ3_XXS IQ3_S IQ4_NL IQ4_XS"
)
DENSE_TYPES = BLOCK_TYPES | words("Q5_0 Q5_1 TQ1_0 TQ2_0 MXFP4")

TOKENIZERS = words("gpt2 llama gemma4")
# How a byte-level vocabulary cuts text before its merges (`tokenizer.ggml.pre`).
SPLIT_BY_TRANSFORMERS = words(
    "llama3 llama-v3 llama-bpe falcon3 falcon-h1 pixtral midm-2.0 lfm2 jina-v5-nano dbrx smaug-bpe "
    "tekken qwen2 deepseek-r1-qwen kormo f2llmv2 megrez qwen35 gpt-4o llama4 kanana2 talkie "
    "minimax-m2"
)
SPLIT_LIKE_GPT2 = words(
    "default gpt-2 phi-2 roberta-bpe gigachat mellum a.x-4.0 mpt olmo jais trillion"
)
SPLIT_SINGLE_DIGITS = words("smollm starcoder refact command-r codeshell exaone")


def check_supported(header: GgufHeader, name: str) -> None:
    """StoreError, naming the file `name` and a way out, if transformers cannot read such a file."""
    problem = (
        unsupported_architecture(header)
        or unsupported_types(header)
        or unsupported_tokenizer(header)
    )
    if problem:
        raise StoreError(f"{name} cannot be used here, because {problem}: {WAY_OUT}.")


def unsupported_architecture(header: GgufHeader) -> str | None:
    architecture, metadata = header.architecture, header.metadata
    if architecture not in DENSE_ARCHITECTURES | BLOCK_ARCHITECTURES:
        return f"transformers does not read the GGUF architecture {architecture[:100]!r}"
    if architecture == "llama" and metadata.get("llama.expert_count", 0):
        return "transformers does not read GGUF files of Mixtral-like mixtures of experts"
    if metadata.get("split.count", 0) not in (0, 1):
        return "it is one part of a split GGUF"
    blocks = metadata.get(f"{architecture}.block_count")
    if not isinstance(blocks, int) or not 0 < blocks <= len(header.tensors):
        return "its metadata does not fit its tensors"
    return None


def unsupported_types(header: GgufHeader) -> str | None:
    dense = header.architecture in DENSE_ARCHITECTURES
    types = {tensor.type for tensor in header.tensors}
    unknown = sorted(types - (DENSE_TYPES if dense else BLOCK_TYPES))
    return f"transformers does not read the GGUF types {', '.join(unknown)}" if unknown else None


def unsupported_tokenizer(header: GgufHeader) -> str | None:
    model = header.metadata.get("tokenizer.ggml.model")
    if not isinstance(model, str) or model not in TOKENIZERS:
        return f"transformers does not read the GGUF tokenizer {str(model)[:100]!r}"
    if not isinstance(header.metadata.get("tokenizer.ggml.tokens"), int):
        return "it holds no vocabulary"
    split = header.metadata.get("tokenizer.ggml.pre", "default")
    known = SPLIT_BY_TRANSFORMERS | SPLIT_LIKE_GPT2 | SPLIT_SINGLE_DIGITS
    if model == "gpt2" and (not isinstance(split, str) or split not in known):
        return f"its way of cutting text ({str(split)[:100]!r}) is not known"
    return None
