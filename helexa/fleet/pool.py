"""The KV pool of a loaded model: what it holds by the device's last word, and whether a prompt fits it."""

from typing import Literal

from attrs import astuple, evolve, frozen

from helexa.conversation import Principal
from helexa.engine.orders import KvUse, Loaded
from helexa.errors import InsufficientVram
from helexa.fleet.limits import Limit

UNUSED = KvUse(0, 0, 0, 0)


@frozen
class Pool:
    """`tokens` 0 is a model without a pool.  `alone` says why its sequences are computed one by one.

    `touched_tokens` is the most that it held since it has this size: a CPU's memory is taken when it is
    first written.
    """

    tokens: int = 0
    bytes_per_token: int = 0
    alone: str = ""
    touched_tokens: int = 0
    use: KvUse = UNUSED

    @property
    def held_tokens(self) -> int:
        return self.use.running_tokens + self.use.cached_tokens

    @property
    def held_bytes(self) -> int:
        """Of keys, values, windows and states."""
        return self.held_tokens * self.bytes_per_token + self.use.state_bytes

    @property
    def cached_bytes(self) -> int:
        return self.use.cached_tokens * self.bytes_per_token

    @property
    def total_mb(self) -> int:
        return self.tokens * self.bytes_per_token >> 20

    @property
    def untouched_mb(self) -> int:
        return max(0, self.tokens - self.touched_tokens) * self.bytes_per_token >> 20

    @property
    def free_mb(self) -> int:
        """Of what it could give a newcomer: all that no running sequence holds."""
        return max(0, self.tokens - self.use.running_tokens) * self.bytes_per_token >> 20

    def after(self, use: KvUse) -> "Pool":
        touched = use.running_tokens + use.cached_tokens
        if use.total_tokens == self.tokens:  # else it is a copy, of what it holds alone
            touched = max(touched, self.touched_tokens)
        return evolve(self, tokens=use.total_tokens, use=use, touched_tokens=touched)


def is_sized(use: KvUse, kv_tokens: int) -> bool:
    """Whether the pool has the size that was ordered, or what runs in it, if that is more."""
    return use.total_tokens == max(kv_tokens, use.running_tokens)


@frozen
class Counted:
    """What a KV pool and its sequences did between two words of the device."""

    hits: int = 0
    saved_tokens: int = 0
    evictions: int = 0
    preemptions: int = 0
    drafted: int = 0
    accepted: int = 0

    def __bool__(self) -> bool:
        return any(astuple(self))


def counted(before: KvUse, after: KvUse) -> Counted:
    return Counted(
        after.hits - before.hits,
        after.saved_tokens - before.saved_tokens,
        after.evictions - before.evictions,
        after.preemptions - before.preemptions,
        after.drafted - before.drafted,
        after.accepted - before.accepted,
    )


def pool_of(loaded: Loaded) -> Pool:
    return Pool(loaded.kv_tokens, loaded.kv_bytes_per_token, loaded.alone)


def check_fits(prompt_tokens: int, limit: Limit, pool: Pool) -> None:
    """InsufficientVram for a prompt that this load could not hold even if nothing else ran.

    A prompt within `limit.input` always fits.  One that is longer was let in by an earlier or an
    estimated limit, which was a promise of more memory than there is.  What fits but finds the pool
    full waits on the device.
    """
    most = min(limit.context, pool.tokens or limit.context)
    if prompt_tokens < most:
        return
    raise InsufficientVram(
        f"A prompt of {prompt_tokens} tokens does not fit the memory that this model was loaded with, "
        f"which is enough for {limit.input} tokens and an answer. Send less, or unload other models and "
        "load it again.",
        retry_after=5,
        required_mb=-(-(prompt_tokens + 1) * pool.bytes_per_token // 2**20),
        free_mb=pool.free_mb,
    )


def salt_of(principal: Principal, share: Literal["account", "all"]) -> str:
    """Whose prompts may share what was computed: those of an account, or everybody's."""
    return "" if share == "all" else principal.account_id
