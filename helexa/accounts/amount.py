"""What a request takes of a budget: tokens, and their price in whole picodollars."""

import math

from attrs import frozen

PICO = 10**12  # picodollars in a dollar
PER_TOKEN = 10**6  # prices are USD per million tokens: picodollars per token are so many times that


@frozen(order=False)
class Amount:
    """Both are whole numbers, so that sums are exact whatever their order."""

    tokens: int = 0
    pico_usd: int = 0

    def __add__(self, other: "Amount") -> "Amount":
        return Amount(self.tokens + other.tokens, self.pico_usd + other.pico_usd)

    def __sub__(self, other: "Amount") -> "Amount":
        return Amount(self.tokens - other.tokens, self.pico_usd - other.pico_usd)

    @property
    def not_below_zero(self) -> "Amount":
        if self.tokens >= 0 and self.pico_usd >= 0:
            return self
        return Amount(max(0, self.tokens), max(0, self.pico_usd))

    def at_most(self, other: "Amount") -> "Amount":
        """The smaller of both, for tokens and for money by themselves."""
        return Amount(min(self.tokens, other.tokens), min(self.pico_usd, other.pico_usd))

    def fits(self, room: "Amount") -> bool:
        return self.tokens <= room.tokens and self.pico_usd <= room.pico_usd

    @property
    def usd(self) -> float:
        return self.pico_usd / PICO


NOTHING = Amount()


@frozen
class Used:
    """Tokens that a request took so far.

    `cached` (read from a prefix cache) and `cache_write` are parts of `prompt`.
    """

    prompt: int = 0
    completion: int = 0
    cached: int = 0
    cache_write: int = 0

    @property
    def tokens(self) -> int:
        return self.prompt + self.completion


UNUSED = Used()


@frozen
class Prices:
    """Picodollars per token, as whole numbers that are never below the price in the catalogue."""

    input: int = 0
    output: int = 0
    cache_read: int = 0
    cache_write: int = 0

    def of(self, used: Used) -> Amount:
        """What `used` costs."""
        plain = used.prompt - used.cached - used.cache_write
        pico_usd = (
            plain * self.input
            + used.cached * self.cache_read
            + used.cache_write * self.cache_write
            + used.completion * self.output
        )
        return Amount(used.tokens, pico_usd)

    def at_most(self, prompt_tokens: int, completion_tokens: int) -> Amount:
        """The most that so many tokens can cost, however much of the prompt is cached."""
        dearest = max(self.input, self.cache_read, self.cache_write)
        return Amount(
            prompt_tokens + completion_tokens,
            prompt_tokens * dearest + completion_tokens * self.output,
        )


FREE = Prices()


def prices(
    input: float, output: float, cache_read: float | None = None, cache_write: float | None = None
) -> Prices:
    """From USD per million tokens; a cache price that is not given is that of any other input."""
    return Prices(
        per_token(input),
        per_token(output),
        per_token(input if cache_read is None else cache_read),
        per_token(input if cache_write is None else cache_write),
    )


def per_token(usd_per_million: float) -> int:
    return math.ceil(round(usd_per_million * PER_TOKEN, 3))


def pico_usd(usd: float) -> int:
    return round(usd * PICO)
