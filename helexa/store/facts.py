"""What a model's files say of it, for limits and memory estimates; no torch, no weight is read."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from math import prod
from pathlib import Path
from typing import Any, TypeAlias

from attrs import evolve, frozen

from helexa.errors import StoreError
from helexa.fleet.quant import Packable
from helexa.store.checkpoint import CONFIG, TAKEN, read_object
from helexa.store.gguf import GgufHeader
from helexa.store.gguf import read_header as read_gguf_header
from helexa.store.tensors import read_header as read_safetensors_header

FULL = frozenset({"full_attention", "attention"})
Shapes: TypeAlias = Mapping[str, tuple[int, ...]]  # rows first
Types: TypeAlias = Mapping[
    str, tuple[str, int]
]  # of matrices: "Q4_1" or "BF16", and how many elements
HEADS = frozenset({"lm_head.weight", "output.weight", "embed_out.weight"})
EMBEDDINGS = frozenset({"embed_tokens", "token_embd", "wte", "wpe", "embeddings", "embed_in"})
GATES = frozenset({"gate", "router", "ffn_gate_inp"})
DOWN = frozenset({"down_proj", "ffn_down"})
# GGUF's blocks whose whole numbers the engine's 4 bits keep (`helexa.engine.quant.grid`).
IN_4_BITS = frozenset({"Q4_0", "Q4_1", "Q4_K"})
NEARLY_ALL = 0.9
SLIDING = frozenset({"sliding_attention", "chunked_attention", "local_attention"})


@frozen
class Layers:
    """How many layers keep keys and values of the whole context, and how many of a window of it.

    The rest (linear attention, convolutions, state spaces) don't grow with the context: together they keep
    `state_elements`, 0 where the config does not tell in words that are known here.
    """

    total: int
    full: int
    sliding: int
    window: int  # tokens; 0 without sliding layers
    state_elements: int = 0


@frozen
class Facts:
    """What config.json says.  `head_dim` and `kv_heads` are a full layer's."""

    architecture: str
    model_type: str
    layers: Layers
    kv_heads: int
    head_dim: int
    max_position_embeddings: int
    vocab_size: int
    dtype: str  # torch's name: "bfloat16"


@frozen
class ModelFiles:
    """The facts of a directory, and its weights: what is loaded of them, in bytes and parameters."""

    facts: Facts
    weight_bytes: int
    parameters: int
    packable: Packable = Packable()


def read_facts(path: Path) -> ModelFiles:
    """The facts of a prepared model's directory; StoreError if its files don't say enough."""
    config = read_object(path / CONFIG, TAKEN[CONFIG])
    ggufs = sorted(path.glob("*.gguf"))
    files = sorted(path.glob("*.safetensors")) or ggufs
    shapes = {name: shape for file in files for name, shape in read_shapes(file).items()}
    facts = facts_from(config)
    bits = gguf_bits(read_gguf(ggufs[0])) if ggufs else plain_bits(facts)
    return ModelFiles(
        facts=facts,
        weight_bytes=sum(file.stat().st_size for file in files),
        parameters=sum(map(prod, shapes.values())),
        packable=evolve(packable_of(shapes), bits=bits),
    )


def read_shapes(file: Path) -> Shapes:
    if file.suffix == ".gguf":
        return gguf_shapes(read_gguf(file))
    _, header = read_safetensors_header(file)
    return safetensors_shapes(header)


def read_gguf(file: Path) -> GgufHeader:
    with file.open("rb") as stream:
        return read_gguf_header(stream, file.stat().st_size, file.name)


def gguf_shapes(header: GgufHeader) -> Shapes:
    return {tensor.name: tensor.shape[::-1] for tensor in header.tensors}


def gguf_bits(header: GgufHeader) -> int:
    """What most weights in layers have: 4 only where 4 bits of ours keep nearly all of them."""
    counts: Counter[int] = Counter()
    for tensor in header.tensors:
        if len(tensor.shape) > 1 and tensor.name not in HEADS and not is_embedding(tensor.name):
            counts[bits_of_type(tensor.type)] += tensor.elements
    if counts[4] < NEARLY_ALL * counts.total():
        counts[8] += counts.pop(4, 0)
    return max(counts, key=counts.__getitem__)


def plain_bits(facts: Facts) -> int:
    return 32 if facts.dtype == "float32" else 16


def bits_of_type(type: str) -> int:
    """4, 8, 16 or 32, for a GGUF's "Q6_K" or "BF16"."""
    if type in IN_4_BITS:
        return 4
    found = re.search(r"\d+", type)
    bits = int(found[0]) if found else 32
    return next((size for size in (8, 16) if bits <= size), 32)


def safetensors_shapes(header: Mapping[str, Any]) -> Shapes:
    return {name: tuple(entry["shape"]) for name, entry in header.items() if name != "__metadata__"}


def packable_of(shapes: Shapes) -> Packable:
    """What of the weights is in linear layers that the engine packs, told from names and shapes.

    A close estimate: the engine itself looks at the modules.
    """
    matrices = {
        name: shape
        for name, shape in shapes.items()
        if name.endswith(".weight") and len(shape) == 2 and shape[0] % 16 == shape[1] % 32 == 0
    }
    embeddings = [name for name in matrices if is_embedding(name)]
    heads = [name for name in matrices if name in HEADS]
    layers = [
        name
        for name in matrices.keys() - {*embeddings, *heads}
        if not is_expert(name) and name.rsplit(".", 2)[-2] not in GATES
    ]
    experts = [shape for name, shape in shapes.items() if is_expert(name) and fits_kernels(shape)]
    head = heads or embeddings
    return Packable(
        layers=sum(prod(matrices[name]) for name in layers),
        experts=sum(map(prod, experts)),
        head=max((prod(matrices[name]) for name in head), default=0),
        tied=not heads,
        down=sum(prod(matrices[name]) for name in layers if name.rsplit(".", 2)[-2] in DOWN),
        table=max((prod(matrices[name]) for name in embeddings), default=0),
        shapes=tuple(
            (rows, columns, count)
            for (rows, columns), count in sorted(Counter(matrices[n] for n in layers).items())
        ),
    )


def is_embedding(name: str) -> bool:
    return name.endswith(".weight") and name.rsplit(".", 2)[-2] in EMBEDDINGS


def is_expert(name: str) -> bool:
    """Of one, or of all of a layer, as checkpoints and as GGUF files name them."""
    return ".experts." in name or "_exps." in name


def fits_kernels(shape: tuple[int, ...]) -> bool:
    """A matrix, or one for each expert, whichever way round."""
    rows, columns = sorted(shape[-2:]) if len(shape) > 1 else (1, 1)
    return rows % 16 == columns % 16 == 0 and (rows % 32 == 0 or columns % 32 == 0)


def facts_from(config: Mapping[str, Any]) -> Facts:
    """The facts in a config, be it the model's own or around a `text_config`.

    StoreError, naming the field, where one is missing that has no sensible default.
    """
    text = config.get("text_config") or config
    architectures = config.get("architectures") or text.get("architectures") or [""]
    return Facts(
        architecture=str(architectures[0]),
        model_type=str(text.get("model_type") or config.get("model_type") or ""),
        layers=layers_of(text),
        kv_heads=kv_heads(text),
        head_dim=head_dim(text),
        max_position_embeddings=needed(
            text, "max_position_embeddings", "n_positions", "n_ctx", "seq_length", "max_seq_len"
        ),
        vocab_size=needed({**config, **text}, "vocab_size"),
        dtype=str(first(text, config, names=("dtype", "torch_dtype")) or "float32"),
    )


def first(*tables: Mapping[str, Any], names: Sequence[str]) -> Any:
    """The first value that is there and not null."""
    found = (table[name] for table in tables for name in names if table.get(name) is not None)
    return next(found, None)


def needed(table: Mapping[str, Any], *names: str) -> int:
    value = first(table, names=names)
    if not isinstance(value, int) or value <= 0:
        raise StoreError(f"{CONFIG} does not state a usable {names[0]}.")
    return value


def layers_of(text: Mapping[str, Any]) -> Layers:
    kinds = layer_kinds(text, needed(text, "num_hidden_layers", "n_layer", "num_layers"))
    sliding = sum(kind in SLIDING for kind in kinds)
    window = needed(text, "sliding_window", "attention_chunk_size") if sliding else 0
    full = sum(kind in FULL for kind in kinds)
    others = len(kinds) - full - sliding
    return Layers(len(kinds), full, sliding, window, others * state_elements(text))


def state_elements(text: Mapping[str, Any]) -> int:
    """What one layer keeps of a sequence that has a state: gated delta net, short convolution, Mamba."""

    def size(*names: str, otherwise: int = 0) -> int:
        value = first(text, names=names)
        return value if isinstance(value, int) else otherwise

    hidden = size("hidden_size")
    if key_dim := size("linear_key_head_dim"):
        keys = size("linear_num_key_heads") * key_dim
        values = size("linear_num_value_heads") * size("linear_value_head_dim")
        return values * key_dim + (2 * keys + values) * size("linear_conv_kernel_dim", otherwise=4)
    if columns := size("conv_L_cache"):
        return hidden * columns
    if state := size("mamba_d_state", "ssm_state_size"):
        heads = size("mamba_n_heads", "mamba_num_heads")
        inner = heads * size("mamba_d_head", "mamba_head_dim")
        inner = inner or hidden * size("mamba_expand", "expand", otherwise=2)
        mixed = inner + 2 * size("mamba_n_groups", "n_groups") * state
        return inner * state + mixed * size("mamba_d_conv", "conv_kernel", otherwise=4)
    return 0


def layer_kinds(text: Mapping[str, Any], total: int) -> list[str]:
    """One kind per layer, from whichever way the architecture has of telling."""
    stated = first(text, names=("layer_types", "layers_block_type"))
    if isinstance(stated, list) and len(stated) >= total:
        return [str(kind) for kind in stated[:total]]
    if interval := text.get("full_attention_interval"):
        return every(total, interval, interval - 1, otherwise="linear_attention")
    if period := text.get("attn_layer_period"):
        return every(total, period, text.get("attn_layer_offset", 0), otherwise="mamba")
    if not text.get("sliding_window") or text.get("use_sliding_window") is False:
        return ["full_attention"] * total
    if pattern := first(text, names=("sliding_window_pattern", "_sliding_window_pattern")):
        return every(total, pattern, pattern - 1, otherwise="sliding_attention")
    return ["sliding_attention"] * total


def every(total: int, period: int, offset: int, otherwise: str) -> list[str]:
    return ["full_attention" if i % period == offset else otherwise for i in range(total)]


def kv_heads(text: Mapping[str, Any]) -> int:
    if text.get("multi_query") and not text.get("new_decoder_architecture"):
        return 1
    if text.get("num_global_key_value_heads"):
        return needed(text, "num_global_key_value_heads")
    return needed(text, "num_key_value_heads", "num_kv_heads", "num_attention_heads", "n_head")


def head_dim(text: Mapping[str, Any]) -> int:
    """Elements per head of one key or value; for split heads (MLA) the mean of both, rounded up."""
    if "qk_nope_head_dim" in text:
        key = needed(text, "qk_nope_head_dim") + needed(text, "qk_rope_head_dim")
        return -(-(key + needed(text, "v_head_dim")) // 2)
    stated = first(text, names=("global_head_dim", "head_dim"))
    if isinstance(stated, int) and stated > 0:
        return stated
    hidden = needed(text, "hidden_size", "n_embd", "d_model")
    return hidden // needed(text, "num_attention_heads", "n_head")
