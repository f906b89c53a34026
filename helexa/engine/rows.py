"""Working on some rows of a batch only."""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

Rows = slice | list[int]  # what picks rows of a tensor


def span(rows: Sequence[int]) -> Rows:
    """Rising row numbers as an index: without a gap it is a slice, which copies nothing."""
    first, last = rows[0], rows[-1]
    return slice(first, last + 1) if last - first + 1 == len(rows) else list(rows)


def stacked(tensors: Iterable[Tensor | None]) -> tuple[Rows, Tensor] | None:
    """Which rows have a tensor, and these as [rows, ...]; None if no row has."""
    present = {row: tensor for row, tensor in enumerate(tensors) if tensor is not None}
    return (span(list(present)), torch.stack(list(present.values()))) if present else None
