"""Attention over what sequences have in the pool: nothing padded, nothing gathered.

Registered with transformers under NAME; a model that uses it gets a `Past` where its own attention
would get keys.
"""

from collections.abc import Sequence
from typing import Any

import torch
from attrs import define, field
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from transformers import PreTrainedModel
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

NAME = "helexa"


@define(eq=False)
class Masks:
    """Which of `seen` keys each of the last `count` tokens sees, made once a pass for all layers."""

    device: str
    _made: dict[tuple[int, int, int], Tensor] = field(factory=dict)

    def get(self, count: int, seen: int, width: int) -> Tensor:
        """Bool [count, seen]; `width` is a sliding layer's, 0 for one that sees all."""
        key = (count, seen, width)
        if key not in self._made:
            query = torch.arange(seen - count, seen, device=self.device)[:, None]
            keys = torch.arange(seen, device=self.device)[None]
            mask = keys <= query
            self._made[key] = mask & (keys > query - width) if width else mask
        return self._made[key]


@define(eq=False)
class Past:
    """What the tokens of a pass see in one layer: for every sequence keys and values [heads, seen, dim].

    `counts` are its own tokens in the pass; `width` as in Masks.
    """

    counts: Sequence[int]
    seen: Sequence[tuple[Tensor, Tensor]]
    masks: Masks
    width: int = 0

    @property
    def shape(self) -> torch.Size:
        """As one sequence's keys have it; some models look."""
        return self.seen[0][0][None].shape


def use(model: PreTrainedModel) -> None:
    """Let the model attend through `attend`.  ValueError if its attention cannot be exchanged."""
    ALL_ATTENTION_FUNCTIONS.register(NAME, attend)
    model.set_attn_implementation(NAME)


def attend(
    module: torch.nn.Module,
    query: Tensor,
    key: Past,
    value: object,
    attention_mask: None,
    scaling: float | None = None,
    softcap: float | None = None,
    s_aux: Tensor | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """Attention of `query` [batch, heads, tokens, dim]: [batch, tokens, heads, value dim].

    A pass is either one row, in which sequences lie one behind the other, or a row of one token for
    each sequence; both are the same once the rows are laid out behind each other.
    """
    batch, heads, length, _dim = query.shape
    laid = query.transpose(0, 1).reshape(heads, batch * length, -1)
    results, end = [], 0
    for count, (keys, values) in zip(key.counts, key.seen, strict=True):
        mine = laid[:, end : end + count]
        end += count
        if softcap is None and s_aux is None:
            results.append(fused(mine, keys, values, key, scaling))
        else:
            results.append(plain(mine, keys, values, key, scaling, softcap, s_aux))
    joined = results[0] if len(results) == 1 else torch.cat(results, 1)
    return joined.transpose(0, 1).reshape(batch, length, heads, -1), None


def fused(query: Tensor, keys: Tensor, values: Tensor, past: Past, scaling: float | None) -> Tensor:
    """torch's kernel: [heads, count, dim] against [kv heads, seen, dim]."""
    heads, count, dim = query.shape
    groups = keys.shape[0]
    if count == 1:  # a token sees all: the heads that share keys are its rows
        rows = query.reshape(1, groups, heads // groups, dim)
        result = scaled_dot_product_attention(rows, keys[None], values[None], scale=scaling)
        return result.reshape(heads, 1, -1)
    seen = keys.shape[1]
    whole = seen == count and not past.width
    return scaled_dot_product_attention(
        query[None],
        keys[None],
        values[None],
        attn_mask=None if whole else past.masks.get(count, seen, past.width),
        is_causal=whole,
        scale=scaling,
        enable_gqa=heads != groups,
    )[0]


def plain(
    query: Tensor,
    keys: Tensor,
    values: Tensor,
    past: Past,
    scaling: float | None,
    softcap: float | None,
    sinks: Tensor | None,
) -> Tensor:
    """The same with what torch's kernel has not: a cap of the scores (Gemma 2), sinks (gpt-oss)."""
    heads, count, dim = query.shape
    groups, seen = keys.shape[:2]
    rows = query.reshape(groups, heads // groups * count, dim)
    scale = dim**-0.5 if scaling is None else scaling
    scores = (rows @ keys.transpose(1, 2) * scale).reshape(heads, count, seen)
    if softcap is not None:
        scores = torch.tanh(scores / softcap) * softcap
    scores = scores.masked_fill(~past.masks.get(count, seen, past.width), -torch.inf)
    if sinks is not None:
        scores = torch.cat((scores, sinks.reshape(heads, 1, 1).expand(-1, count, 1)), -1)
    weights = scores.softmax(-1, dtype=torch.float32)[..., :seen].to(values.dtype)
    return (weights.reshape(groups, -1, seen) @ values).reshape(heads, count, -1)
