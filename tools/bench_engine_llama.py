"""The peer: llama.cpp through llama-cpp-python's low-level API, in an environment of its own.

It is driven as well as it can be: prompts packed into batches of 512, all streams in one decode per
step, the best of its ways to keep and to attend over a KV cache tried for each kind of request, a
beginning that streams share computed once.  The next token is the largest logit, found with numpy.
"""

import ctypes
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import llama_cpp
import numpy as np
from bench_engine_wire import Answer, Request, Setup, Stream, Timing, Work, serve, shortened

BATCH = 512  # tokens of one decode
CELLS = 256  # what llama.cpp rounds the length of a sequence up to
SHARED = 64  # tokens that prompts must have in common to be computed once

Position = tuple[int, int, int, bool]  # token, position, sequence, whether its logits are wanted


@dataclass(frozen=True)
class Variant:
    """`unified`: one KV buffer for all sequences, or one for each."""

    unified: bool
    flash: int

    def __str__(self) -> str:
        flash = "off" if self.flash == llama_cpp.LLAMA_FLASH_ATTN_TYPE_DISABLED else "auto"
        return f"{'one KV' if self.unified else 'KV each'}, flash attention {flash}"


FLASH = (llama_cpp.LLAMA_FLASH_ATTN_TYPE_AUTO, llama_cpp.LLAMA_FLASH_ATTN_TYPE_DISABLED)
DEFAULT = Variant(False, llama_cpp.LLAMA_FLASH_ATTN_TYPE_AUTO)


class Context:
    """A llama_context with its KV cache.  Must be closed."""

    def __init__(self, setup: Setup, model: llama_cpp.llama_model_p, shape: "Shape") -> None:
        params = llama_cpp.llama_context_default_params()
        params.n_ctx = shape.streams * shape.length
        params.n_batch = params.n_ubatch = BATCH
        params.n_seq_max = shape.streams
        params.n_threads = params.n_threads_batch = setup.threads
        params.kv_unified = shape.variant.unified
        params.flash_attn_type = shape.variant.flash
        params.offload_kqv = params.op_offload = setup.device != "cpu"
        found = llama_cpp.llama_init_from_model(model, params)
        if found is None:
            raise RuntimeError(f"llama.cpp makes no context of {shape}")
        self._context = found
        self._batch = llama_cpp.llama_batch_init(BATCH, 0, 1)
        self._memory = llama_cpp.llama_get_memory(found)
        vocab = llama_cpp.llama_model_get_vocab(model)
        self._vocab_size = llama_cpp.llama_vocab_n_tokens(vocab)

    def close(self) -> None:
        llama_cpp.llama_batch_free(self._batch)
        llama_cpp.llama_free(self._context)

    def clear(self) -> None:
        llama_cpp.llama_memory_clear(self._memory, False)

    def share(self, source: int, target: int) -> None:
        """Give sequence `target` all that `source` has in the cache."""
        llama_cpp.llama_memory_seq_cp(self._memory, source, target, -1, -1)

    def decode(self, positions: list[Position]) -> dict[int, int]:
        """Compute at most BATCH positions; the next token of each sequence whose logits are wanted."""
        batch = self._batch
        batch.n_tokens = len(positions)
        for i, (token, position, sequence, wanted) in enumerate(positions):
            batch.token[i], batch.pos[i], batch.logits[i] = token, position, wanted
            batch.n_seq_id[i], batch.seq_id[i][0] = 1, sequence
        code = llama_cpp.llama_decode(self._context, batch)
        if code:
            raise RuntimeError(f"llama_decode gives {code}")
        return {
            sequence: self._argmax(i)
            for i, (_, _, sequence, wanted) in enumerate(positions)
            if wanted
        }

    def _argmax(self, row: int) -> int:
        logits = llama_cpp.llama_get_logits_ith(self._context, row)
        return int(np.ctypeslib.as_array(logits, (self._vocab_size,)).argmax())


@dataclass(frozen=True)
class Shape:
    streams: int
    length: int  # positions of each, at most
    variant: Variant


@dataclass(frozen=True)
class Kind:
    """Requests that one variant suits best."""

    streams: int
    length: int
    salts: int
    only_first: bool  # no token after the first


@dataclass
class Running:
    """A sequence: its tokens, of which the first `computed` are in the cache."""

    tokens: list[int]
    left: int
    timing: Timing
    computed: int = 0
    given: list[int] = field(default_factory=list)

    def positions(self, sequence: int, end: int | None = None) -> Iterator[Position]:
        """What is to be computed up to `end`; at the end of the tokens their logits are wanted."""
        start, self.computed = self.computed, len(self.tokens) if end is None else end
        last = len(self.tokens) - 1
        for position in range(start, self.computed):
            yield self.tokens[position], position, sequence, position == last


class Llama:
    def __init__(self, setup: Setup) -> None:
        self._setup = setup
        params = llama_cpp.llama_model_default_params()
        params.n_gpu_layers = 0 if setup.device == "cpu" else -1
        model = llama_cpp.llama_model_load_from_file(setup.gguf.encode(), params)
        if model is None:
            raise RuntimeError(f"llama.cpp cannot load {setup.gguf}")
        self._model = model
        self._best: dict[Kind, Variant] = {}
        self._kept: tuple[Shape, Context] | None = None

    def work(self, request: Request) -> Answer:
        at_once = [stream for stream in request.streams if stream.after is None]
        size = len(at_once), longest(request.streams)
        kind = Kind(
            *size, salts=len({stream.salt for stream in at_once}), only_first=is_first(at_once)
        )
        if request.warm_up:
            self._best[kind] = self._fastest(shortened(request), kind)
            return Answer([])
        return self._run(request, Shape(*size, self._best.get(kind, DEFAULT)))

    def _fastest(self, short: Request, kind: "Kind") -> Variant:
        layouts = [False] if kind.streams == 1 else [True, False]
        variants = [Variant(unified, flash) for unified in layouts for flash in FLASH]
        took = {
            variant: seconds(self._run(short, Shape(kind.streams, kind.length, variant)))
            for variant in variants
        }
        best = min(variants, key=lambda variant: took[variant])
        tried = "; ".join(f"{variant}: {took[variant]:.3f} s" for variant in variants)
        print(f"llama.cpp, {kind}: {tried}")
        return best

    def _context(self, shape: Shape) -> Context:
        """Kept from request to request of one shape, so that its memory is touched before."""
        if self._kept and self._kept[0] == shape:
            self._kept[1].clear()
            return self._kept[1]
        if self._kept:
            self._kept[1].close()
            self._kept = None
        self._kept = shape, Context(self._setup, self._model, shape)
        return self._kept[1]

    def _run(self, request: Request, shape: Shape) -> Answer:
        context = self._context(shape)
        began = time.perf_counter()
        timings = [Timing() for _ in request.streams]
        at_once = [i for i, stream in enumerate(request.streams) if stream.after is None]
        running = [start(request.streams[i], timings[i], 0.0) for i in at_once]
        share(context, request.streams, running)
        generate(context, running, began)
        for stream, timing in list(zip(request.streams, timings, strict=True))[len(at_once) :]:
            continued = start(stream, timing, time.perf_counter() - began)
            before = running[0]
            continued.tokens = before.tokens + continued.tokens
            continued.computed = before.computed
            generate(context, [continued], began)
        return Answer(timings)


def start(stream: Stream, timing: Timing, now: float) -> Running:
    timing.began = now
    return Running(list(stream.prompt), stream.max_tokens, timing)


def share(context: Context, streams: list[Stream], running: list[Running]) -> None:
    """Compute once what all prompts begin with, if they may share it and it is worth it."""
    if len(running) < 2 or len({stream.salt for stream in streams}) > 1:
        return
    prompts = [each.tokens for each in running]
    common = common_length(prompts)
    if common < SHARED or common >= min(map(len, prompts)):
        return
    for some in batches(running[0].positions(0, common)):
        context.decode(some)
    for sequence in range(1, len(running)):
        context.share(0, sequence)
        running[sequence].computed = common


def common_length(prompts: list[list[int]]) -> int:
    length = 0
    for column in zip(*prompts, strict=False):
        if len(set(column)) > 1:
            break
        length += 1
    return length


def generate(context: Context, running: list[Running], began: float) -> None:
    """The prompts in full batches, then a token of every sequence per step."""
    live = dict(enumerate(running))
    while live:
        for some in batches(p for sequence, each in live.items() for p in each.positions(sequence)):
            drawn = context.decode(some)
            now = time.perf_counter() - began
            for sequence, token in drawn.items():
                live[sequence].tokens.append(token)
                live[sequence].timing.times.append(now)
                live[sequence].left -= 1
        live = {sequence: each for sequence, each in live.items() if each.left}


def batches(positions: Iterable[Position]) -> Iterator[list[Position]]:
    batch: list[Position] = []
    for position in positions:
        batch.append(position)
        if len(batch) == BATCH:
            yield batch
            batch = []
    if batch:
        yield batch


def longest(streams: list[Stream]) -> int:
    """Positions that a sequence needs, those of its continuation included."""
    length = max(
        len(stream.prompt) + stream.max_tokens for stream in streams if stream.after is None
    )
    more = sum(len(stream.prompt) + stream.max_tokens for stream in streams if stream.continues)
    return -(-(length + more) // CELLS) * CELLS


def is_first(streams: list[Stream]) -> bool:
    return max(stream.max_tokens for stream in streams) == 1


def seconds(answer: Answer) -> float:
    """What a trial is judged by: the steps after the prompts, or the prompts if that is all."""
    first = max(timing.times[0] for timing in answer.streams)
    last = max(timing.times[-1] for timing in answer.streams)
    return last - first or last


@llama_cpp.llama_log_callback
def quiet(level: int, text: bytes, data: ctypes.c_void_p) -> None:
    """llama.cpp tells a page for every context."""


def open_llama(setup: Setup) -> tuple[str, Work]:
    llama_cpp.llama_log_set(quiet, ctypes.c_void_p(0))
    llama_cpp.llama_backend_init()
    system = llama_cpp.llama_print_system_info().decode().strip()
    about = f"llama-cpp-python {llama_cpp.__version__}, {setup.threads} threads, {system}"
    return about, Llama(setup).work


if __name__ == "__main__":
    serve(open_llama)
