"""Whether a model has the shape that the lean forward knows, and its modules by what they do.

The shape is that of Llama, Mistral, Qwen 2 and 3: norm, attention with rotary positions, norm, gated
MLP.  Only modules are looked at; whether they are used in the usual way is tried (`install`).
"""

from collections.abc import Mapping

from attrs import frozen
from torch import Tensor, nn
from transformers import PreTrainedModel

from helexa.engine.quant.linear import PackedLinear

MultiplyingLayer = nn.Linear | PackedLinear


class Unusual(Exception):
    """How a model differs from the shape."""


@frozen(eq=False)
class Norm:
    """Root mean square over the last dimension, times `weight`."""

    weight: Tensor
    epsilon: float


@frozen(eq=False)
class LayerParts:
    """`query_norm` and `key_norm`, if there are any, are over each head."""

    before_attention: Norm
    query: MultiplyingLayer
    key: MultiplyingLayer
    value: MultiplyingLayer
    query_norm: Norm | None
    key_norm: Norm | None
    head_dim: int
    scaling: float
    output: MultiplyingLayer
    before_mlp: Norm
    gate: MultiplyingLayer
    up: MultiplyingLayer
    act: nn.Module
    down: MultiplyingLayer

    @property
    def multiplying(self) -> tuple[MultiplyingLayer, ...]:
        projections = (self.query, self.key, self.value, self.output)
        return (*projections, self.gate, self.up, self.down)


@frozen(eq=False)
class Parts:
    embedding: nn.Embedding
    rotary: nn.Module
    layers: tuple[LayerParts, ...]
    norm: Norm
    head: MultiplyingLayer

    @property
    def multiplying(self) -> tuple[MultiplyingLayer, ...]:
        return (*(m for layer in self.layers for m in layer.multiplying), self.head)


def parts_of(model: PreTrainedModel) -> Parts:
    """Unusual, with the reason, for a model of another shape."""
    named = children(model, {"model", "lm_head"})
    body = children(named["model"], {"embed_tokens", "layers", "norm", "rotary_emb"})
    embedding = body["embed_tokens"]
    if type(embedding) is not nn.Embedding:
        raise Unusual(f"its embedding is a {type(embedding).__name__}")
    return Parts(
        embedding,
        body["rotary_emb"],
        tuple(layer_parts(layer) for layer in body["layers"].children()),
        norm(body["norm"]),
        linear(named["lm_head"]),
    )


def layer_parts(layer: nn.Module) -> LayerParts:
    named = children(layer, {"self_attn", "mlp", "input_layernorm", "post_attention_layernorm"})
    attention = named["self_attn"]
    projections = children(
        attention, {"q_proj", "k_proj", "v_proj", "o_proj"}, may={"q_norm", "k_norm"}
    )
    mlp = children(named["mlp"], {"gate_proj", "up_proj", "down_proj", "act_fn"})
    query_norm, key_norm = projections.get("q_norm"), projections.get("k_norm")
    return LayerParts(
        norm(named["input_layernorm"]),
        linear(projections["q_proj"]),
        linear(projections["k_proj"]),
        linear(projections["v_proj"]),
        norm(query_norm) if query_norm else None,
        norm(key_norm) if key_norm else None,
        int(number(attention, "head_dim")),
        number(attention, "scaling"),
        linear(projections["o_proj"]),
        norm(named["post_attention_layernorm"]),
        linear(mlp["gate_proj"]),
        linear(mlp["up_proj"]),
        mlp["act_fn"],
        linear(mlp["down_proj"]),
    )


def children(
    module: nn.Module, names: set[str], may: frozenset[str] | set[str] = frozenset()
) -> Mapping[str, nn.Module]:
    """The modules in it by name: all of `names`, maybe some of `may`, and no other."""
    found = dict(module.named_children())
    own = [name for name, _ in module.named_parameters(recurse=False)]
    if not names <= found.keys() <= names | may or own:
        told = ", ".join(sorted([*(found.keys() ^ names) - may, *own]))
        raise Unusual(f"its {type(module).__name__} differs in {told}")
    return found


def linear(module: nn.Module) -> MultiplyingLayer:
    if type(module) is nn.Linear or type(module) is PackedLinear:
        return module
    raise Unusual(f"it multiplies with {type(module).__name__}")


def norm(module: nn.Module) -> Norm:
    parameters = dict(module.named_parameters())
    if parameters.keys() != {"weight"}:
        raise Unusual(f"its norms are {type(module).__name__}")
    return Norm(parameters["weight"].detach(), number(module, "variance_epsilon"))


def number(module: nn.Module, name: str) -> float:
    value = getattr(module, name, None)
    if not isinstance(value, int | float):
        raise Unusual(f"its {type(module).__name__} has no {name}")
    return value
