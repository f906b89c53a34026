"""Pieces of made-up layers in each form that weights are kept in, to be timed (`speed`)."""

from collections.abc import Callable
from ctypes import CDLL

import torch
from attrs import frozen
from torch import Tensor

from helexa.engine.lean import library
from helexa.engine.lean.native import Kept, NativeHead, packed
from helexa.engine.lean.products import Plain, stored
from helexa.engine.orders import Measure, Quant
from helexa.engine.quant.grid import GROUP, Plane
from helexa.engine.quant.kernels import (
    ROWS_TOGETHER,
    can_unpack,
    int4_kernel,
    scales_and_zeros,
    to_float8,
)
from helexa.engine.quant.linear import PACKED_ROWS, Float8Linear, PackedLinear
from helexa.engine.skeleton import DTYPES

WEIGHTS = 1 << 20  # of a piece
SCALE = 2.0**-7
MOST_OFF = 0.05  # of the root mean square of a product: kernels that are further off are broken


@frozen(eq=False)
class Piece:
    """`multiply` takes [n, columns]; `again` makes another of the same weights, elsewhere in memory."""

    columns: int
    nbytes: int
    multiply: Callable[[Tensor], Tensor]
    again: Callable[[], "Piece"]


@frozen(eq=False)
class Cutter:
    """Makes pieces as a device would keep the layers of `order` in one form.

    `lib` are our own kernels, where they compute the packed layers.
    """

    order: Measure
    quant: Quant
    lib: CDLL | None

    def cut(self, rows: int, columns: int) -> Piece:
        """RuntimeError if the kernels compute something else here."""
        plane = plane_of(
            piece_rows(rows, columns), columns, planes=2 if self.quant == "int8" else 1
        )
        weight = plane.weight(columns).to(self.order.device, DTYPES[self.order.dtype])
        match self.quant:
            case "none":
                return self._plain(weight)
            case "fp8":
                return checked(self._float8(weight), weight)
        layer = self._layer(plane, columns)
        if self.lib is not None and can_unpack(layer.out_features, layer.kernel.layout):
            return checked(self._native(self.lib, layer), weight)
        found = checked(self._packed(layer), weight)
        return found if self.quant != "int4+bf16" else either(found, self._plain(weight))

    def _plain(self, weight: Tensor) -> Piece:
        form = stored(weight, None, weight.dtype) if self.order.fuses else Plain(weight, None)
        nbytes = sum(form.held.values())
        return Piece(weight.shape[1], nbytes, form, lambda: self._plain(weight.clone()))

    def _float8(self, weight: Tensor) -> Piece:
        layer = Float8Linear(*to_float8(weight), None)
        nbytes = weight.numel()
        return Piece(weight.shape[1], nbytes, layer.forward, lambda: self._float8(weight))

    def _layer(self, plane: Plane, columns: int) -> PackedLinear:
        kernel, device = int4_kernel(self.order.device), self.order.device
        levels = kernel.pack(plane.levels.to(device))
        return PackedLinear(kernel, columns, levels, scales_and_zeros(plane).to(device), None, None)

    def _packed(self, layer: PackedLinear) -> Piece:
        nbytes = layer.levels.nbytes + layer.scales.nbytes
        return Piece(layer.in_features, nbytes, layer.forward, lambda: self._packed(copy_of(layer)))

    def _native(self, lib: CDLL, layer: PackedLinear) -> Piece:
        kept = Kept()
        struct = packed(lib, kept, (layer,))
        return native(lib, struct, kept.tensors[0])


def native(lib: CDLL, struct: library.Weight, laid: Tensor) -> Piece:
    """`struct` points to `laid`."""
    kept, columns = Kept(), struct.columns
    there = library.Weight(kept.address(laid), None, struct.rows, columns, struct.planes)
    # Its norm changes nothing of rows whose root mean square is 1.
    head = NativeHead(lib, there, torch.ones(columns), 0.0, kept)
    return Piece(
        columns,
        laid.nbytes,
        head,
        lambda: native(lib, there, laid.clone()),
    )


def piece_rows(rows: int, columns: int) -> int:
    """Of a matrix as many rows as make a piece, in whole blocks of the kernels."""
    most = max(1, WEIGHTS // columns // ROWS_TOGETHER) * ROWS_TOGETHER
    return min(rows, most)


def plane_of(rows: int, columns: int, planes: int) -> Plane:
    """Made-up levels, with scales that every number format holds."""
    levels = torch.randint(0, 16, (rows, columns * planes), dtype=torch.uint8)
    scales = torch.full((rows, columns * planes // GROUP), SCALE, dtype=torch.bfloat16)
    if planes == 2:
        scales[:, : columns // GROUP] *= 16
    return Plane(levels, scales, torch.zeros_like(scales))


def copy_of(layer: PackedLinear) -> PackedLinear:
    levels, scales = layer.levels.clone(), layer.scales.clone()
    return PackedLinear(layer.kernel, layer.in_features, levels, scales, None, None)


def either(few: Piece, many: Piece) -> Piece:
    """Packed for few rows, plain for more, of which there is one."""

    def multiply(x: Tensor) -> Tensor:
        return (few if len(x) <= PACKED_ROWS else many).multiply(x)

    return Piece(few.columns, few.nbytes, multiply, lambda: either(few.again(), many))


def checked(piece: Piece, weight: Tensor) -> Piece:
    """The piece, if it multiplies by this weight."""
    x = torch.arange(piece.columns, device=weight.device).float().square().sin()[None]
    x /= x.square().mean().sqrt()
    expected = x @ weight.float().t()
    found = piece.multiply(x.to(weight.dtype)).float()
    if not (found - expected).square().mean() <= MOST_OFF**2 * expected.square().mean():
        raise RuntimeError("the kernels compute something else here")
    return piece
