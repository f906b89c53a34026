"""The keys and values of all sequences as transformers' cache: one pool for each layer."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from attrs import define, field, frozen
from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import (
    Cache,
    CacheLayerMixin,
    DynamicLayer,
    DynamicSlidingWindowLayer,
    LinearAttentionLayer,
)

from helexa.engine.kv.attention import CausalMasks, Past
from helexa.engine.kv.states import States, Window, stacked, unstack
from helexa.engine.kv.storage import Storage, storage_of
from helexa.engine.orders import KvDtype

MOVED_AT_ONCE = 1024  # tokens of one layer that are there twice while a span is moved


class NotTogether(Exception):
    """Why sequences of a model cannot be computed together."""


@frozen
class Kind:
    """How one layer keeps the past: every token (`width` 0), the last `width`, or a state."""

    is_recurrent: bool = False
    width: int = 0
    heads: int = 0
    key_dim: int = 0
    value_dim: int = 0

    def bytes_per_token(self, storage: Storage) -> int:
        """That the pool takes for a token."""
        if self.is_recurrent or self.width:
            return 0
        return sum(storage.num_bytes(self.heads, dim) for dim in (self.key_dim, self.value_dim))


def kinds_of(tried: DynamicCache, max_positions: int | None) -> list[Kind]:
    """What the layers of a model keep, from a cache that it was run with once."""
    return [kind_of(layer, max_positions) for layer in tried.layers]


def kind_of(layer: Any, max_positions: int | None) -> Kind:
    if type(layer) is LinearAttentionLayer:
        return Kind(is_recurrent=True)
    if type(layer) not in (DynamicLayer, DynamicSlidingWindowLayer):
        raise NotTogether(f"a layer keeps its past in a way of its own ({type(layer).__name__})")
    if not layer.is_initialized:
        raise NotTogether("a layer keeps nothing of its own")
    width = getattr(layer, "sliding_window", 0)
    if max_positions and width >= max_positions:
        width = 0
    _, heads, _, key_dim = layer.keys.shape
    return Kind(False, width, heads, key_dim, layer.values.shape[-1])


@frozen(eq=False)
class Segment:
    """Tokens of one sequence in a pass: `count` of them behind `before` that are in the cache.

    `at` is where the sequence begins in the pool.
    """

    at: int
    before: int
    count: int
    states: States


@define(eq=False)
class Pass:
    """Which tokens are computed together, and where their keys and values go."""

    segments: Sequence[Segment]
    device: str
    masks: CausalMasks = field(init=False)
    places: Tensor | None = field(init=False)  # of single tokens

    def __attrs_post_init__(self) -> None:
        self.masks = CausalMasks(self.device)
        self.places = None
        if all(segment.count == 1 for segment in self.segments):
            places = [segment.at + segment.before for segment in self.segments]
            self.places = torch.tensor(places, device=self.device)

    @property
    def counts(self) -> list[int]:
        return [segment.count for segment in self.segments]

    def write(self, pool: Tensor, new: Tensor) -> None:
        """New keys or values [heads, tokens, dim] to their places in `pool` [heads, total, dim]."""
        if self.places is not None:
            pool.index_copy_(1, self.places, new)
            return
        end = 0
        for segment in self.segments:
            place = segment.at + segment.before
            pool[:, place : place + segment.count] = new[:, end : end + segment.count]
            end += segment.count


def laid_out(new: Tensor) -> Tensor:
    """[batch, heads, tokens, dim] as [heads, batch · tokens, dim]."""
    return new.transpose(0, 1).reshape(new.shape[1], -1, new.shape[3])


class Layer(CacheLayerMixin):  # type: ignore[misc]
    """What transformers asks of a layer beside `update`; positions are always given to the model."""

    def __init__(self, kind: Kind) -> None:
        super().__init__()
        self.kind = kind
        self.current: Pass | None = None

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        pass

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        raise NotTogether("the model makes masks of its own")

    def get_seq_length(self) -> int:
        raise NotTogether("the model counts positions by itself")

    def get_max_length(self) -> int:
        return -1


class FullLayer(Layer):
    """Every token of every sequence, in one pool of tensors [heads, total, ...].

    `pool` are first the parts of the keys, then as many of the values: one each, [heads, total, dim], unless
    the storage has scales beside them.
    """

    def __init__(self, kind: Kind, total: int, storage: Storage, device: str) -> None:
        super().__init__(kind)
        self.storage = storage
        self.pool: tuple[Tensor, ...] = tuple(
            part
            for dim in (kind.key_dim, kind.value_dim)
            for part in storage.empty(kind.heads, total, dim, device)
        )

    def update(
        self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any
    ) -> tuple[Past, Past]:
        assert self.current is not None
        keys, values = laid_out(key_states), laid_out(value_states)
        for part, new in zip(
            self.pool, (*self.storage.pack(keys), *self.storage.pack(values)), strict=True
        ):
            self.current.write(part, new)
        seen = [
            self.seen(segment.at, segment.at + segment.before + segment.count, keys.dtype)
            for segment in self.current.segments
        ]
        past = Past(self.current.counts, seen, self.current.masks)
        return past, past

    def seen(self, start: int, end: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Keys and values [heads, end - start, dim] in `dtype`, of the model's own form as they lie."""
        parts = tuple(part[:, start:end] for part in self.pool)
        keys, values = parts[: self.storage.num_parts], parts[self.storage.num_parts :]
        return self.storage.unpack(keys, dtype), self.storage.unpack(values, dtype)

    def resize(self, total: int, used: int) -> None:
        """A pool of another size with the same first `used` tokens; both are there while they are copied."""
        resized = []
        for old in self.pool:
            new = old.new_empty(old.shape[0], total, old.shape[2])
            new[:, :used] = old[:, :used]
            resized.append(new)
        self.pool = tuple(resized)

    def copy(self, source: int, target: int, count: int) -> None:
        for tensor in self.pool:
            tensor[:, target : target + count] = tensor[:, source : source + count]

    def move(self, moves: Sequence[tuple[int, int, int]]) -> None:
        """(source, target, count) each, which lose nothing by overlapping.

        Those that go down keep their order, and are copied in small pieces; one that goes up, past them,
        is put aside meanwhile.
        """
        for tensor in self.pool:
            aside = [
                (target, tensor[:, source : source + count].clone())
                for source, target, count in moves
                if target > source
            ]
            for source, target, count in sorted(moves):
                if target < source:
                    slide(tensor, source, target, count)
            for target, part in aside:
                tensor[:, target : target + part.shape[1]] = part


def slide(tensor: Tensor, source: int, target: int, count: int) -> None:
    """Move `count` tokens down to `target`, where they may overlap what they were."""
    for done in range(0, count, MOVED_AT_ONCE):
        size = min(MOVED_AT_ONCE, count - done)
        piece = tensor[:, source + done : source + done + size].clone()
        tensor[:, target + done : target + done + size] = piece


class SlidingLayer(Layer):
    """The windows of the sequences, each in its own states."""

    def __init__(self, kind: Kind, index: int) -> None:
        super().__init__(kind)
        self.index = index

    def update(
        self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any
    ) -> tuple[Past, Past]:
        assert self.current is not None
        keys, values = laid_out(key_states), laid_out(value_states)
        seen, end = [], 0
        for segment in self.current.segments:
            window = segment.states[self.index]
            assert isinstance(window, Window)
            new = slice(end, end + segment.count)
            seen.append(window.append(keys[:, new], values[:, new]))
            end += segment.count
        past = Past(self.current.counts, seen, self.current.masks, self.kind.width)
        return past, past


class Layers(Cache):  # type: ignore[misc]
    """The cache that a model is called with.  `passing` says which pass a call is.

    `outside_bytes` are those of a token in caches that are not here, of a model that has its own.
    """

    def __init__(
        self,
        kinds: Sequence[Kind],
        total: int,
        dtype: torch.dtype,
        device: str,
        kv_dtype: KvDtype = "auto",
        outside_bytes: int = 0,
    ) -> None:
        self.kinds = kinds
        self.storage = storage_of(kv_dtype, dtype)
        self.device = device
        self._outside_bytes = outside_bytes
        super().__init__(
            layers=[
                LinearAttentionLayer()
                if kind.is_recurrent
                else SlidingLayer(kind, index)
                if kind.width
                else FullLayer(kind, total, self.storage, device)
                for index, kind in enumerate(kinds)
            ]
        )

    @property
    def full(self) -> Iterator[FullLayer]:
        return (layer for layer in self.layers if isinstance(layer, FullLayer))

    @property
    def bytes_per_token(self) -> int:
        return sum(kind.bytes_per_token(self.storage) for kind in self.kinds) + self._outside_bytes

    @property
    def has_states(self) -> bool:
        return any(kind.is_recurrent or kind.width for kind in self.kinds)

    @property
    def is_recurrent(self) -> bool:
        """Whether sequences must have a row each: a state runs through all tokens of a row."""
        return any(kind.is_recurrent for kind in self.kinds)

    @property
    def can_go_back(self) -> bool:
        """Whether the last tokens of a sequence, if they are few, can be forgotten: no state can."""
        return not self.is_recurrent

    def new_states(self) -> States:
        return {
            index: LinearAttentionLayer() if kind.is_recurrent else Window(kind.width)
            for index, kind in enumerate(self.kinds)
            if kind.is_recurrent or kind.width
        }

    @contextmanager
    def passing(self, segments: Sequence[Segment]) -> Iterator[None]:
        current = Pass(segments, self.device)
        for index, kind in enumerate(self.kinds):
            if kind.is_recurrent:
                mine = [segment.states[index] for segment in segments]
                self.layers[index] = mine[0] if len(mine) == 1 else stacked(mine)
            else:
                self.layers[index].current = current
        yield
        for index, kind in enumerate(self.kinds):
            if kind.is_recurrent and len(segments) > 1:
                unstack(self.layers[index], [segment.states[index] for segment in segments])
