"""One pass through a model of the usual shape, in as few operations as torch has for it.

Tokens of all sequences lie behind each other in one row: everything is [tokens, features].
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, Protocol

import torch
from attrs import define, field, frozen
from torch import Tensor, nn
from torch.nn.functional import rms_norm, silu
from transformers.activations import SiLUActivation

from helexa.engine.kv.attention import attend_laid
from helexa.engine.lean.parts import LayerParts, Norm, Parts
from helexa.engine.lean.products import Apart, Half, Product, fits_half, joined

MOST_AT_ONCE = 4  # layers that are joined: each is there twice meanwhile

Normalise = Callable[[Tensor], Tensor]


class Fused(Protocol):
    """A model in fewer operations."""

    @property
    def nbytes(self) -> int:
        """Of its weights."""

    def __call__(
        self, ids: Tensor, positions: Tensor, caches: Sequence[Any], keep: Tensor | slice
    ) -> Tensor:
        """The logits of the tokens that `keep` picks; `ids` and `positions` are [tokens]."""


@define(eq=False)
class LeanLayer:
    """`heads` and `groups` are the query's and the key's."""

    before_attention: Normalise
    joined_input: Product  # query, key and value
    heads: int
    groups: int
    dim: int
    scaling: float
    query_norm: Normalise | None
    key_norm: Normalise | None
    output: Product
    before_mlp: Normalise
    joined_gate: Product  # gate and up
    inner: int
    act: Callable[[Tensor], Tensor]
    down: Product

    @classmethod
    def of(cls, parts: LayerParts) -> "LeanLayer":
        return cls(
            normaliser(parts.before_attention),
            Apart((parts.query, parts.key, parts.value)),
            parts.query.out_features // parts.head_dim,
            parts.key.out_features // parts.head_dim,
            parts.head_dim,
            parts.scaling,
            normaliser(parts.query_norm) if parts.query_norm else None,
            normaliser(parts.key_norm) if parts.key_norm else None,
            Apart((parts.output,)),
            normaliser(parts.before_mlp),
            Apart((parts.gate, parts.up)),
            parts.gate.out_features,
            activation(parts.act),
            Apart((parts.down,)),
        )

    @property
    def products(self) -> tuple[Product, ...]:
        return self.joined_input, self.output, self.joined_gate, self.down

    def settle(self, parts: LayerParts, dtype: torch.dtype) -> None:
        """Join what reads the same input; the modules of `parts` are empty then."""
        self.joined_input = joined((parts.query, parts.key, parts.value), dtype)
        self.output = joined((parts.output,), dtype)
        self.joined_gate = joined((parts.gate, parts.up), dtype)
        # Some models put single huge values in here, beside which FBGEMM, adding in order, loses
        # a hundred times as much of the others as blocked sums do.
        self.down = joined((parts.down,), dtype, may_halve=False)

    def __call__(self, hidden: Tensor, turn: "Rotation", cache: Any) -> None:
        """Add the layer's results to `hidden` [tokens, hidden size]."""
        self.finish(hidden, self.attend(hidden, turn, cache))

    def attend(self, hidden: Tensor, turn: "Rotation", cache: Any) -> Tensor:
        """What each token sees [tokens, heads · head dim]; the keys and values of all go into `cache`."""
        count, turned = len(hidden), self.heads + self.groups
        states = self.joined_input(self.before_attention(hidden)).view(count, -1, self.dim)
        rotated = states[:, :turned]
        if self.query_norm and self.key_norm:
            parts = (
                self.query_norm(rotated[:, : self.heads]),
                self.key_norm(rotated[:, self.heads :]),
            )
            rotated = torch.cat(parts, 1)
        rotated = turn(rotated)
        keys, values = rotated[:, self.heads :], states[:, turned:]
        past, _ = cache.update(keys.transpose(0, 1)[None], values.transpose(0, 1)[None])
        return attend_laid(rotated[:, : self.heads], past, self.scaling).reshape(count, -1)

    def finish(self, hidden: Tensor, seen: Tensor) -> None:
        """Add to `hidden` what comes of `seen`, whichever tokens these are."""
        hidden.add_(self.output(seen))
        both = self.joined_gate(self.before_mlp(hidden))
        gated = self.act(both[:, : self.inner]).mul_(both[:, self.inner :])
        hidden.add_(self.down(gated))


@frozen(eq=False)
class Rotation:
    """Rotary positions of the tokens of a pass: `cos` and `sin` [tokens, 1, head dim].

    The first half of `sin` is negative, as that half of a turned head is taken from the other.
    """

    cos: Tensor
    sin: Tensor

    @classmethod
    def of(cls, cos: Tensor, sin: Tensor) -> "Rotation":
        """Of what transformers' rotary embedding gives, [tokens, head dim]."""
        cos, sin = signed(cos, sin)
        return cls(cos[:, None], sin[:, None])

    def __call__(self, heads: Tensor) -> Tensor:
        """[tokens, heads, head dim]"""
        count, num, dim = heads.shape
        swapped = heads.reshape(count, num, 2, dim // 2).flip(2).view(count, num, dim)
        return torch.addcmul(heads * self.cos, swapped, self.sin)


@define(eq=False)
class Lean:
    """A model made of its parts.  Until `settle` they are called as they were loaded."""

    parts: Parts
    dtype: torch.dtype  # that it computes in
    layers: list[LeanLayer] = field(init=False)
    norm: Normalise = field(init=False)
    head: Product = field(init=False)
    table: Tensor = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.layers = [LeanLayer.of(layer) for layer in self.parts.layers]
        self.norm = normaliser(self.parts.norm)
        self.head = Apart((self.parts.head,))
        self.table = self.parts.embedding.weight.detach()

    def __call__(
        self, ids: Tensor, positions: Tensor, caches: Sequence[Any], keep: Tensor | slice
    ) -> Tensor:
        """The logits of the tokens that `keep` picks; `ids` and `positions` are [tokens]."""
        hidden = self.parts.embedding(ids).to(self.dtype)
        cos, sin = self.parts.rotary(hidden[None], positions[None])
        turn = Rotation.of(cos[0], sin[0])
        *layers, (last, its_cache) = zip(self.layers, caches, strict=True)
        for layer, cache in layers:
            layer(hidden, turn, cache)
        seen, hidden = last.attend(hidden, turn, its_cache)[keep], hidden[keep]
        last.finish(hidden, seen)
        return self.head(self.norm(hidden))

    @property
    def nbytes(self) -> int:
        """Of all weights but the norms'."""
        products = [self.head, *(p for layer in self.layers for p in layer.products)]
        held = {self.table.data_ptr(): self.table.nbytes}
        for product in products:
            held |= product.held
        return sum(held.values())

    def settle(self) -> None:
        """Join what reads the same input; the modules it was made of are empty then."""
        each = zip(self.layers, self.parts.layers, strict=True)
        layers = [partial(layer.settle, parts, self.dtype) for layer, parts in each]
        carry_out([self._settle_head, *layers], self.table.device)

    def _settle_head(self) -> None:
        self.head = joined((self.parts.head,), self.dtype)
        if isinstance(self.head, Half):
            self.table = halved(self.parts.embedding, self.dtype)


def carry_out(jobs: Sequence[Callable[[], None]], device: torch.device) -> None:
    """On a CPU a few at once, as FBGEMM puts a matrix into its order on one core."""
    if device.type != "cpu":
        for job in jobs:
            job()
        return
    with ThreadPoolExecutor(min(MOST_AT_ONCE, torch.get_num_threads())) as pool:
        for done in [pool.submit(job) for job in jobs]:
            done.result()


def signed(cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor]:
    """With the first half of `sin` negative; each [tokens, head dim], one token behind the other."""
    half = sin.shape[-1] // 2
    return cos.contiguous(), torch.cat((-sin[:, :half], sin[:, half:]), -1)


def halved(layer: nn.Embedding, dtype: torch.dtype) -> Tensor:
    """Its table, for a model in `dtype` from now on in float16 if that holds it, and no file's pages."""
    table = layer.weight.detach()
    if dtype is torch.float32 and table.device.type == "cpu" and fits_half(table):
        layer.weight = nn.Parameter(table.to(torch.float16, copy=True), requires_grad=False)
    return layer.weight.detach()


def normaliser(norm: Norm) -> Normalise:
    """As few operations as there are: one on CUDA, in narrow numbers too; four short ones on a CPU."""
    weight, epsilon, size = norm.weight, norm.epsilon, norm.weight.shape[0]
    if weight.device.type != "cpu" or weight.dtype is not torch.float32:
        return lambda x: rms_norm(x, (size,), weight, epsilon)
    # x / sqrt(mean(x²) + ε) · w = x / sqrt(|x|² + nε) · w√n
    least, scaled = torch.tensor((size * epsilon) ** 0.5), weight * size**0.5
    return lambda x: (
        x / torch.hypot(torch.linalg.vector_norm(x, dim=-1, keepdim=True), least)
    ).mul_(scaled)


def activation(module: nn.Module) -> Callable[[Tensor], Tensor]:
    return silu if is_silu(module) else module


def is_silu(module: nn.Module) -> bool:
    return isinstance(module, nn.SiLU | SiLUActivation)
