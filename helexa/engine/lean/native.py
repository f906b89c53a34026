"""A packed model of the usual shape computed by the kernels of `native.cpp`: three calls a layer.

On CPUs without fast bfloat16.  Weights stay in 4 bits and activations are rounded to 8 where they meet
them, which a CPU multiplies several times as fast as floats; the rest is float32.
"""

import ctypes
from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import torch
from attrs import define, field, frozen
from torch import Tensor

from helexa.engine.kv.attention import attend_laid
from helexa.engine.kv.layers import FullLayer, Segment
from helexa.engine.lean import library
from helexa.engine.lean.forward import halved, is_silu, signed
from helexa.engine.lean.parts import LayerParts, MultiplyingLayer, Norm, Parts, Unusual
from helexa.engine.lean.products import bias_of, give_up
from helexa.engine.quant.grid import GROUP
from helexa.engine.quant.kernels import can_unpack, unpack_cpu
from helexa.engine.quant.linear import PackedLinear

VECTOR = 8  # floats
MOST_DIM = 256  # of a head


def refuse_unknown(parts: Parts) -> None:
    """Unusual, with the reason, for what the kernels do not know."""
    for layer in parts.multiplying:
        if not isinstance(layer, PackedLinear):
            raise Unusual("not all of its layers are packed")
        if not can_unpack(layer.out_features, layer.kernel.layout):
            raise Unusual(f"it has packed layers of {layer.out_features} rows")
    for each in parts.layers:
        if len({layer.planes for layer in each.multiplying if isinstance(layer, PackedLinear)}) > 1:
            raise Unusual("its layers are packed in several ways")
        if not is_silu(each.act) or each.head_dim % (2 * VECTOR) or each.head_dim > MOST_DIM:
            raise Unusual("its activation or the size of its heads is another")
        if (each.query_norm is None) != (each.key_norm is None):
            raise Unusual("it norms only queries or keys")


@frozen(eq=False)
class Kept:
    """Tensors that C has addresses of."""

    tensors: list[Tensor] = field(factory=list)

    def address(self, tensor: Tensor | None) -> int | None:
        if tensor is None:
            return None
        self.tensors.append(tensor)
        return tensor.data_ptr()

    @property
    def nbytes(self) -> int:
        return sum(tensor.nbytes for tensor in self.tensors)


@define(eq=False)
class NativeLayer:
    """One layer: `struct` for C, and what it points to."""

    lib: ctypes.CDLL
    struct: library.Layer
    kept: Kept
    address: int = field(init=False)
    heads: int = field(init=False)
    groups: int = field(init=False)
    dim: int = field(init=False)
    scaling: float = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.address = ctypes.addressof(self.struct)
        self.heads, self.groups = self.struct.heads, self.struct.groups
        self.dim, self.scaling = self.struct.dim, self.struct.scaling

    @classmethod
    def of(cls, lib: ctypes.CDLL, parts: LayerParts) -> "NativeLayer":
        kept = Kept()
        struct = library.Layer(
            kept.address(floats(parts.before_attention)),
            kept.address(floats(parts.before_mlp)),
            kept.address(floats(parts.query_norm) if parts.query_norm else None),
            kept.address(floats(parts.key_norm) if parts.key_norm else None),
            packed(lib, kept, (parts.query, parts.key, parts.value)),
            packed(lib, kept, (parts.output,)),
            packed(lib, kept, (parts.gate, parts.up)),
            packed(lib, kept, (parts.down,)),
            parts.query.out_features // parts.head_dim,
            parts.key.out_features // parts.head_dim,
            parts.head_dim,
            parts.before_attention.epsilon,
            parts.query_norm.epsilon if parts.query_norm else 0,
            parts.scaling,
        )
        return cls(lib, struct, kept)

    @property
    def widths(self) -> tuple[int, int]:
        return self.struct.input.rows, self.struct.output.columns

    def __call__(self, run: "Run", cache: Any) -> None:
        """Add the layer's results to `run.hidden`."""
        self.finish(run.hidden, self.attend(run, cache))

    def attend(self, run: "Run", cache: Any) -> Tensor:
        """What each token sees; the keys and values of all go into `cache`."""
        lib, address, states = self.lib, self.address, run.states_at
        lib.before(address, run.hidden_at, run.tokens, run.cos_at, run.sin_at, states)
        if not (isinstance(cache, FullLayer) and is_plain(cache)):
            return self._attend(run, cache)
        keys, values = cache.pool
        lib.attend(
            *(address, states, keys.data_ptr(), values.data_ptr(), keys.shape[1]),
            *(run.segments_at, len(run.segments), run.attended.data_ptr()),
        )
        return run.attended

    def finish(self, hidden: Tensor, seen: Tensor) -> None:
        """Add to `hidden` what comes of `seen`, whichever tokens these are."""
        self.lib.after(self.address, hidden.data_ptr(), seen.data_ptr(), len(hidden))

    def _attend(self, run: "Run", cache: Any) -> Tensor:
        states = run.states.view(run.tokens, -1, self.dim)
        turned = self.heads + self.groups
        keys, values = states[:, self.heads : turned], states[:, turned:]
        past, _ = cache.update(keys.transpose(0, 1)[None], values.transpose(0, 1)[None])
        return attend_laid(states[:, : self.heads], past, self.scaling).contiguous()


@define(eq=False)
class Run:
    """What one pass works on, and where that lies."""

    hidden: Tensor
    cos: Tensor
    sin: Tensor
    segments: Sequence[Segment]
    widths: tuple[int, int]  # of a token's queries, keys and values; of what attention gives for it
    tokens: int = field(init=False)
    states: Tensor = field(init=False)
    attended: Tensor = field(init=False)
    laid: Tensor = field(init=False)
    hidden_at: int = field(init=False)
    cos_at: int = field(init=False)
    sin_at: int = field(init=False)
    states_at: int = field(init=False)
    segments_at: int = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.tokens = len(self.hidden)
        self.states = self.hidden.new_empty(self.tokens, self.widths[0])
        self.attended = self.hidden.new_empty(self.tokens, self.widths[1])
        self.hidden_at, self.cos_at = self.hidden.data_ptr(), self.cos.data_ptr()
        self.sin_at = self.sin.data_ptr()
        self.states_at = self.states.data_ptr()
        self.laid = laid(self.segments)
        self.segments_at = self.laid.data_ptr()


def laid(segments: Sequence[Segment]) -> Tensor:
    """As C has them, int64 [segments, 4]: first token, count, where it begins, how many before."""
    firsts = accumulate((segment.count for segment in segments), initial=0)
    return torch.tensor(
        [(first, s.count, s.at, s.before) for first, s in zip(firsts, segments, strict=False)]
    )


@define(eq=False)
class NativeHead:
    """The last norm and the layer that makes logits."""

    lib: ctypes.CDLL
    struct: library.Weight
    norm: Tensor
    epsilon: float
    kept: Kept

    def __call__(self, hidden: Tensor) -> Tensor:
        logits = hidden.new_empty(len(hidden), self.struct.rows)
        self.lib.logits(
            *(ctypes.addressof(self.struct), self.norm.data_ptr(), self.epsilon),
            *(hidden.data_ptr(), len(hidden), logits.data_ptr()),
        )
        return logits


@define(eq=False)
class Native:
    """A model made of its parts, which are empty afterwards."""

    lib: ctypes.CDLL
    parts: Parts
    table: Tensor = field(init=False)
    layers: list[NativeLayer] = field(init=False, factory=list)
    head: NativeHead = field(init=False)

    def __attrs_post_init__(self) -> None:
        for parts in self.parts.layers:
            self.layers.append(NativeLayer.of(self.lib, parts))
            for layer in parts.multiplying:
                give_up(layer)
        self.head = head_of(self.lib, self.parts)
        give_up(self.parts.head)
        self.table = halved(self.parts.embedding, torch.float32)

    @property
    def nbytes(self) -> int:
        """Of all weights."""
        kept = [self.head.kept, *(layer.kept for layer in self.layers)]
        return self.table.nbytes + sum(each.nbytes for each in kept)

    def __call__(
        self, ids: Tensor, positions: Tensor, caches: Sequence[Any], keep: Tensor | slice
    ) -> Tensor:
        """The logits of the tokens that `keep` picks; `ids` and `positions` are [tokens]."""
        hidden = self.parts.embedding(ids).float()
        cos, sin = self.parts.rotary(hidden[None], positions[None])
        turn = signed(cos[0], sin[0])
        segments = caches[0].current.segments
        run = Run(hidden, *turn, segments, self.layers[0].widths)
        *layers, (last, its_cache) = zip(self.layers, caches, strict=True)
        for layer, cache in layers:
            layer(run, cache)
        seen, hidden = last.attend(run, its_cache)[keep], hidden[keep]
        last.finish(hidden, seen)
        return self.head(hidden)


def head_of(lib: ctypes.CDLL, parts: Parts) -> NativeHead:
    kept = Kept()
    struct = packed(lib, kept, (parts.head,))
    return NativeHead(lib, struct, floats(parts.norm), parts.norm.epsilon, kept)


def packed(lib: ctypes.CDLL, kept: Kept, layers: Sequence[MultiplyingLayer]) -> library.Weight:
    """The weights of layers that read the same input, as C reads them."""
    parts, scales = [], []
    for layer in layers:
        assert isinstance(layer, PackedLinear)
        parts.append(unpack_cpu(layer.levels, layer.kernel.layout))
        scales.append(layer.scales)
        planes = layer.planes
    levels, pairs = torch.cat(parts), torch.cat(scales, 1)
    scale, zero = (pairs[..., i].t().contiguous() for i in (0, 1))
    rows, columns = levels.shape
    laid = torch.empty(rows * columns // GROUP * 20, dtype=torch.uint8)
    lib.pack(
        *(levels.data_ptr(), scale.data_ptr(), zero.data_ptr()),
        *(rows, columns // GROUP, laid.data_ptr()),
    )
    bias = bias_of(layers)
    return library.Weight(
        *(kept.address(laid), kept.address(bias), rows, columns // planes, planes)
    )


def is_plain(cache: FullLayer) -> bool:
    """Whether keys and values lie in it as they were computed."""
    return len(cache.pool) == 2 and cache.pool[0].dtype is torch.float32


def floats(norm: Norm) -> Tensor:
    return norm.weight.float().contiguous()
