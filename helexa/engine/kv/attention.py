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
class CausalMasks:
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

    `counts` are its own tokens in the pass; `width` as in CausalMasks.
    """

    counts: Sequence[int]
    seen: Sequence[tuple[Tensor, Tensor]]
    masks: CausalMasks
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
    laid = query.transpose(1, 2).reshape(batch * length, heads, -1)
    result = attend_laid(laid, key, scaling, softcap, s_aux)
    return result.view(batch, length, heads, -1), None


def attend_laid(
    query: Tensor,
    past: Past,
    scaling: float | None,
    softcap: float | None = None,
    sinks: Tensor | None = None,
) -> Tensor:
    """Attention of tokens laid out behind each other, [tokens, heads, dim]: [tokens, heads, value dim]."""
    results, end = [], 0
    for count, (keys, values) in zip(past.counts, past.seen, strict=True):
        mine = query if count == len(query) else query[end : end + count]
        end += count
        if softcap is not None or sinks is not None:
            results.append(plain(mine, keys, values, past, scaling, softcap, sinks))
        elif count == 1:
            results.append(last(mine, keys, values, scaling))
        else:
            results.append(fused(mine, keys, values, past, scaling))
    return results[0] if len(results) == 1 else torch.cat(results)


def last(query: Tensor, keys: Tensor, values: Tensor, scaling: float | None) -> Tensor:
    """One token [1, heads, dim], which sees all: the heads that share keys are its rows."""
    _, heads, dim = query.shape
    rows = query.reshape(1, keys.shape[0], -1, dim)
    result = scaled_dot_product_attention(rows, keys[None], values[None], scale=scaling)
    return result.reshape(1, heads, -1)


def fused(query: Tensor, keys: Tensor, values: Tensor, past: Past, scaling: float | None) -> Tensor:
    """torch's kernel: [count, heads, dim] against [kv heads, seen, dim]."""
    count, heads, _ = query.shape
    seen = keys.shape[1]
    whole = seen == count and not past.width
    result = scaled_dot_product_attention(
        query.transpose(0, 1)[None],
        keys[None],
        values[None],
        attn_mask=None if whole else past.masks.get(count, seen, past.width),
        is_causal=whole,
        scale=scaling,
        enable_gqa=heads != keys.shape[0],
    )
    return result[0].transpose(0, 1)


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
    count, heads, dim = query.shape
    groups, seen = keys.shape[:2]
    rows = query.transpose(0, 1).reshape(groups, heads // groups * count, dim)
    scale = dim**-0.5 if scaling is None else scaling
    scores = (rows @ keys.transpose(1, 2) * scale).reshape(heads, count, seen)
    if softcap is not None:
        scores = torch.tanh(scores / softcap) * softcap
    scores = scores.masked_fill(~past.masks.get(count, seen, past.width), -torch.inf)
    if sinks is not None:
        scores = torch.cat((scores, sinks.reshape(heads, 1, 1).expand(-1, count, 1)), -1)
    weights = scores.softmax(-1, dtype=torch.float32)[..., :seen].to(values.dtype)
    result = weights.reshape(groups, -1, seen) @ values
    return result.reshape(heads, count, -1).transpose(0, 1)
