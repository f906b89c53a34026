"""Trying the lean form of a model that was just loaded."""

from collections.abc import Sequence
from ctypes import CDLL

import torch

from helexa import logs
from helexa.devices.faults import classify
from helexa.engine.kv.layers import Kind, Layers, Segment
from helexa.engine.kv.spans import BLOCK
from helexa.engine.kv.trial import Tried, alike, ours
from helexa.engine.lean.forward import Fused, Lean, Rotation, signed
from helexa.engine.lean.library import library
from helexa.engine.lean.native import Native, NativeLayer, Run, refuse_unknown
from helexa.engine.lean.parts import MultiplyingLayer, Unusual, parts_of
from helexa.engine.loader import LoadedModel
from helexa.engine.quant.linear import PackedLinear

log = logs.get("helexa.engine")

# The largest difference of a logit from what transformers computes, as a part of their spread: as
# float32 rounds, and as bfloat16 does, in which packed layers multiply too.
CLOSE, ROUGHLY_CLOSE = 1e-3, 0.2
ALIKE = 0.99  # the cosine of what a compiled layer adds and what it should
TOKENS = 3  # that are tried on it


def try_fused(loaded: LoadedModel, tried: Tried) -> None:
    """Unusual, with the reason, for a model of another shape, or one that comes out differently."""
    try:
        compare(loaded, tried, Lean(parts_of(loaded.model), loaded.dtype))
    except Exception as error:
        if isinstance(error, Unusual) or classify(error) != "other":
            raise
        raise Unusual(str(error)) from error


def fused_form(loaded: LoadedModel, kinds: Sequence[Kind]) -> Fused:
    """Of a model that was tried.  The modules that transformers loaded are empty afterwards."""
    lean = Lean(parts_of(loaded.model), loaded.dtype)
    native = native_form(lean, kinds[0])
    if native is None:
        lean.settle()
    return native or lean


def native_form(lean: Lean, kind: Kind) -> Native | None:
    """For packed layers on a CPU that computes in float32; `kind` is the first layer's.

    None if the compiled kernels cannot be had, or compute something else.
    """
    if lean.table.device.type != "cpu" or lean.dtype is not torch.float32:
        return None
    try:
        refuse_unknown(lean.parts)
        lib = library()
        return Native(lib, lean.parts) if lib and first_layer_is_alike(lib, lean, kind) else None
    except Unusual as reason:
        log.info("not compiled", reason=str(reason))
        return None


@torch.inference_mode()
def first_layer_is_alike(lib: CDLL, lean: Lean, kind: Kind) -> bool:
    """Whether the kernels give what torch does, up to the rounding of activations to 8 bits."""
    native = NativeLayer.of(lib, lean.parts.layers[0])
    size = lean.table.shape[1]
    hidden = torch.arange(TOKENS * size, dtype=torch.float32).square().sin().view(TOKENS, size)
    cos, sin = lean.parts.rotary(hidden[None], torch.arange(TOKENS)[None])
    caches = Layers([kind], BLOCK, hidden.dtype, "cpu")
    segments = [Segment(0, 0, TOKENS, caches.new_states())]
    turn = signed(cos[0], sin[0])
    run = Run(hidden.clone(), *turn, segments, native.widths)
    expected = hidden.clone()
    with caches.passing(segments):
        lean.layers[0](expected, Rotation.of(cos[0], sin[0]), caches.layers[0])
    segments[0].states.update(caches.new_states())
    with caches.passing(segments):
        native(run, caches.layers[0])
    if alike(expected - hidden, run.hidden - hidden, ALIKE):
        return True
    log.warning("packed layers run uncompiled", reason="compiled, they compute something else")
    return False


@torch.inference_mode()
def compare(loaded: LoadedModel, tried: Tried, lean: Lean) -> None:
    expected, found = tried.logits, ours(loaded, tried.kinds, lean)
    if not torch.isfinite(expected).all():
        return
    is_exact = loaded.dtype is torch.float32 and not any(map(is_packed, lean.parts.multiplying))
    most = (CLOSE if is_exact else ROUGHLY_CLOSE) * expected.std()
    if (expected - found).abs().max() > most:
        raise Unusual("computed so, it comes out differently")


def is_packed(layer: MultiplyingLayer) -> bool:
    return isinstance(layer, PackedLinear)
