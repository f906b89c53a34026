"""Context limits: how long a prompt and an answer may be, and what bounds that, as plain arithmetic."""

import math

from attrs import evolve, frozen

from helexa.average import smoothed
from helexa.engine.kv.spans import BLOCK, rounded
from helexa.engine.orders import KvDtype

UNIT_TOKENS = 1024  # what was measured is rounded down to it, so that it says no more than is known
OUTPUT_RESERVE_TOKENS = 8192
LEAST_TOKENS = 4096  # of context that a load must have room for, where the model has as much
PREFILL_SECONDS = 120.0  # that the longest prompt may take to be read

FIRST_PREFILL_RATE = 800.0  # tokens per second, before any was measured
LEAST_SAMPLE_TOKENS = 128  # fewer tell of the overhead of a step rather than of a rate

HYSTERESIS = 1 / 8  # an estimate stays until a new one differs by more


@frozen
class Limit:
    """Tokens.  `context` = `input` + `output`; a prompt of `input` tokens is never refused for length."""

    context: int
    input: int
    output: int


@frozen
class PrefillRate:
    """How many prompt tokens are computed in a second: an average that forgets.

    Tokens that came out of the prefix cache are not computed and must not be counted.
    """

    tokens_per_second: float = FIRST_PREFILL_RATE
    measured: bool = False

    def after(self, tokens: int, seconds: float) -> "PrefillRate":
        """With one more sample; one that says nothing is ignored."""
        if tokens < LEAST_SAMPLE_TOKENS or not 0 < seconds < math.inf:
            return self
        before = self.tokens_per_second if self.measured else None
        return PrefillRate(smoothed(before, tokens / seconds), measured=True)


@frozen
class Terms:
    """All that bounds a model's context.  0 is unset, or not known.

    Stated in files and by the operator: `positions` (max_position_embeddings), `max_context`,
    `output_reserve`, `max_prompt_tokens` and `kv_budget_mb` (of the KV pool), and
    `prefill_limit_seconds`, the time that the longest prompt may take.

    `kv_dtype` is how keys and values are kept.

    Found where the model is placed: a token takes `kv_bytes_per_token` and a sequence
    `kv_window_bytes` beside its tokens, of which there are `sequences` at once, running ones and
    snapshots; the device has `free_mb`, of which `spare_mb` stay free and the
    weights take `weights_mb`; prompts are read at `prefill_rate`, None for a model that computes nothing.
    """

    positions: int
    max_context: int = 0
    output_reserve: int = 0
    max_prompt_tokens: int = 0
    kv_budget_mb: int = 0
    prefill_limit_seconds: float = 0.0
    kv_bytes_per_token: int = 0
    kv_window_bytes: int = 0
    free_mb: int = 0
    spare_mb: int = 0
    weights_mb: int = 0
    prefill_rate: PrefillRate | None = None
    kv_dtype: KvDtype = "auto"
    sequences: int = 1

    # -- the terms ---------------------------------------------------------------------------------

    @property
    def memory(self) -> int | None:
        """The tokens of one sequence that the device has room for; None if it does not say."""
        return self.tokens_in(self.room_mb) if self.free_mb else None

    @property
    def kv_budget(self) -> int | None:
        """The tokens of one sequence that the operator's budget has room for."""
        return self.tokens_in(self.kv_budget_mb) if self.kv_budget_mb else None

    @property
    def prefill(self) -> int | None:
        """The tokens that are read in the time that a prompt may take."""
        if self.prefill_rate is None or not self.prefill_limit_seconds:
            return None
        return int(self.prefill_limit_seconds * self.prefill_rate.tokens_per_second)

    @property
    def room_mb(self) -> int:
        """MiB that the device has for keys and values."""
        return max(0, self.free_mb - self.spare_mb - self.weights_mb)

    def tokens_in(self, mb: int) -> int | None:
        """The tokens that fit into `mb` MiB beside the windows; None for any."""
        left = max(0, (mb << 20) - self.windows_bytes(mb))
        if not self.kv_bytes_per_token:
            return None if left else 0
        return left // self.kv_bytes_per_token

    def windows_bytes(self, mb: int) -> int:
        """What windows take of `mb` MiB: those of fewer sequences where the shortest context needs the
        room, but of one at least."""
        window = self.kv_window_bytes
        if not window:
            return 0
        left = (mb << 20) - self.least_tokens * self.kv_bytes_per_token
        return max(1, min(self.sequences, left // window)) * window

    @property
    def kv_mb(self) -> int | None:
        """MiB that keys, values and windows may take in all; None if nothing bounds them."""
        rooms = [self.kv_budget_mb or None, self.room_mb if self.free_mb else None]
        return min((mb for mb in rooms if mb is not None), default=None)

    # -- what they come to -------------------------------------------------------------------------

    @property
    def bounds(self) -> dict[str, int]:
        """The longest context by each term that bounds it, in tokens."""
        found = {
            "positions": self.positions,
            "max_context": self.max_context or None,
            "kv_budget": rounded_down(self.kv_budget),
            "memory": rounded_down(self.memory),
            "prefill": rounded_down(self.prefill),
        }
        return {name: tokens for name, tokens in found.items() if tokens is not None}

    @property
    def binds(self) -> str:
        """The term that decides; of equals the first."""
        if self.limit.context < self._window:
            return "max_prompt_tokens"
        bounds = self.bounds
        return min(bounds, key=bounds.__getitem__)

    @property
    def limit(self) -> Limit:
        reserve = self._reserve
        prompt = self._window - reserve
        if self.max_prompt_tokens:
            prompt = min(prompt, self.max_prompt_tokens)
        return Limit(prompt + reserve, prompt, reserve)

    @property
    def _window(self) -> int:
        return max(1, min(self.bounds.values()))

    @property
    def _reserve(self) -> int:
        """Kept for the answer: `output_reserve`, else 8192; of a small window a quarter.

        What the operator states holds for the window that was stated; of one that came out smaller it
        takes at most half.
        """
        window = self._window
        most = window - 1
        if not self.output_reserve:
            return min(OUTPUT_RESERVE_TOKENS, max(1, window // 4), most)
        if window < min(self.positions, self.max_context or self.positions):
            most = window // 2
        return min(self.output_reserve, most)

    @property
    def least_tokens(self) -> int:
        """The context that must have room for the model to be loaded at all."""
        return min(LEAST_TOKENS, evolve(self, free_mb=0, kv_budget_mb=0).limit.context)

    @property
    def stated(self) -> "Terms":
        """Without what changes by itself."""
        return evolve(self, free_mb=0, spare_mb=0, weights_mb=0, prefill_rate=None, sequences=1)


def rounded_down(tokens: int | None) -> int | None:
    """To whole units; less than one is left as it is."""
    if tokens is None or tokens < UNIT_TOKENS:
        return tokens
    return tokens // UNIT_TOKENS * UNIT_TOKENS


def kv_elements(kv_heads: int, head_dim: int, tensor_parallel: int = 1) -> int:
    """The elements that one layer keeps of one token on each card: a key and a value per head."""
    return 2 * max(1, kv_heads // tensor_parallel) * head_dim


def pool_tokens(terms: Terms, batch_width: int) -> int:
    """What the KV pool of a load holds: `batch_width` of the longest sequences, if there is room.

    At least one of them, which was promised; 0 for a model that keeps nothing of a token.
    """
    if not terms.kv_bytes_per_token:
        return 0
    one = rounded(terms.limit.context)
    wanted = batch_width * one
    if terms.kv_mb is not None:
        wanted = min(wanted, terms.tokens_in(terms.kv_mb) or 0)
    return max(one, wanted // BLOCK * BLOCK)


@frozen
class Windows:
    """How many sequences run at once, and what snapshots of their windows and states may take in bytes.

    None bounds no bytes.
    """

    batch_width: int
    snapshot_bytes: int | None


def windows_beside(terms: Terms, kv_tokens: int, batch_width: int, max_snapshots: int) -> Windows:
    """What of a model's memory its pool of `kv_tokens` leaves to windows: sequences come before snapshots."""
    window = terms.kv_window_bytes
    if not window:
        return Windows(batch_width, None)
    if terms.kv_mb is None:
        return Windows(batch_width, max_snapshots * window)
    left = (terms.kv_mb << 20) - kv_tokens * terms.kv_bytes_per_token
    width = max(1, min(batch_width, left // window))
    return Windows(width, max(0, min(max_snapshots * window, left - width * window)))


def settled(last: Terms | None, now: Terms) -> Terms:
    """What a model that is not loaded shows: the last terms, until they changed for good.

    That is when the operator or the files say something else, or when the context differs by more
    than an eighth; figures that come to the same context are always the new ones.
    """
    if last is None or last.stated != now.stated:
        return now
    before, after = last.limit.context, now.limit.context
    return last if 0 < abs(after - before) <= HYSTERESIS * before else now


def clamp_output(asked: int | None, prompt_tokens: int, limit: Limit) -> int:
    """How many tokens may be generated after a prompt of `prompt_tokens`, at least 1.

    A request that does not say gets the advertised output; one that asks for more than the window
    has left gets what is left.
    """
    left = limit.context - prompt_tokens
    return max(1, min(asked if asked is not None else limit.output, left))
