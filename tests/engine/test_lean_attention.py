"""The compiled attention gives what torch's does: any sizes, texts and single tokens in one call."""

import ctypes

import pytest
import torch
from torch import Tensor

from helexa.engine.kv.attention import attend_laid
from helexa.engine.kv.layers import Kind, Layers, Pass, Segment
from helexa.engine.lean import library, native

TOTAL = 1024

# (begins at, positions before, tokens of the pass) of each sequence, one behind the other in the pool
SINGLE = [(0, 0, 1), (64, 63, 1), (192, 64, 1), (384, 300, 1)]
DRAFTED = [(0, 130, 3), (192, 7, 9)]
TEXTS = [(0, 0, 70), (128, 100, 25), (320, 1, 300)]
MIXED = [(0, 200, 1), (256, 65, 130), (512, 0, 5), (640, 63, 2)]


@pytest.mark.parametrize("places", [SINGLE, DRAFTED, TEXTS, MIXED])
@pytest.mark.parametrize(
    ("heads", "groups", "dim"), [(9, 3, 64), (4, 4, 32), (8, 1, 16), (2, 2, 256), (6, 2, 80)]
)
def test_it_is_torchs_attention(
    places: list[tuple[int, int, int]], heads: int, groups: int, dim: int
) -> None:
    torch.manual_seed(0)
    segments = [Segment(at, before, count, {}) for at, before, count in places]
    states = torch.randn(sum(s.count for s in segments), heads + 2 * groups, dim)
    cache = Layers([Kind(False, 0, groups, dim, dim)], TOTAL, torch.float32, "cpu").layers[0]
    for part in cache.pool:
        part.normal_()
    keys, values = (part.clone() for part in cache.pool)
    found = attended(states, keys, values, segments, heads, groups)
    cache.current = Pass(segments, "cpu")
    new = states.transpose(0, 1)[None]
    past, _ = cache.update(new[:, heads : heads + groups], new[:, heads + groups :])
    expected = attend_laid(states[:, :heads], past, dim**-0.5)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    assert torch.equal(keys, cache.pool[0])
    assert torch.equal(values, cache.pool[1])


def attended(
    states: Tensor,
    keys: Tensor,
    values: Tensor,
    segments: list[Segment],
    heads: int,
    groups: int,
) -> Tensor:
    list(library.compiling())
    lib = library.library()
    assert lib is not None
    tokens, width, dim = states.shape
    layer = library.Layer(heads=heads, groups=groups, dim=dim, scaling=dim**-0.5)
    layer.input.rows = width * dim
    laid, result = native.laid(segments), states.new_empty(tokens, heads, dim)
    lib.attend(
        *(ctypes.addressof(layer), states.data_ptr(), keys.data_ptr(), values.data_ptr(), TOTAL),
        *(laid.data_ptr(), len(segments), result.data_ptr()),
    )
    return result
