"""What requests on one model take, as measured, and how long one that comes now would wait."""

from collections.abc import Sequence
from math import sqrt
from statistics import NormalDist

from attrs import frozen

FIRST_GUESS_SECONDS = 5.0  # service time of a request, before one was measured
FIRST_GUESS_TOKENS = 256.0  # of an answer
SMOOTHING = 0.1  # of averages, once there were ten samples
QUANTILE = 0.9  # of ten who wait as long as they are told, nine find it was long enough
DEVIATIONS = NormalDist().inv_cdf(QUANTILE)


@frozen
class Demand:
    """What a request may cost: its prompts' tokens, how many answers, the most tokens of each."""

    prompt_tokens: int
    answers: int
    max_answer_tokens: int


@frozen
class Spent:
    """What a request took: tokens of prompts that were computed, and tokens of all its answers."""

    prompt_tokens: int
    answer_tokens: int

    @property
    def tokens(self) -> int:
        return self.prompt_tokens + self.answer_tokens


@frozen
class Pace:
    """Seconds that a request holds its slots, mean and variance, and tokens of an answer, mean."""

    num_samples: int = 0
    seconds: float = FIRST_GUESS_SECONDS
    variance: float = 0.0
    answer_tokens: float = FIRST_GUESS_TOKENS

    def after(self, seconds: float, answer_tokens: float) -> "Pace":
        """With one more request that was served."""
        part = max(SMOOTHING, 1 / (self.num_samples + 1))
        away = seconds - self.seconds
        variance = (1 - part) * (self.variance + part * away**2)
        tokens = self.answer_tokens + part * (answer_tokens - self.answer_tokens)
        return Pace(self.num_samples + 1, self.seconds + part * away, variance, tokens)

    def cost(self, demand: Demand) -> int:
        """Expected tokens: of the prompts, and of answers as long as they are on average."""
        answer_tokens = min(demand.max_answer_tokens, round(self.answer_tokens))
        return max(1, demand.prompt_tokens + demand.answers * answer_tokens)

    def wait(self, width: int, elapsed: Sequence[float], ahead: int, slots: int) -> float:
        """Seconds until a request of `slots` starts, in nine of ten cases.

        Of `width` slots those with an entry in `elapsed` are taken, for so many seconds; `ahead` are
        needed by those who go before it.  A slot is free after the usual time, and so again and again;
        of one that is taken for longer nothing is known but how far times differ.
        """
        deviation = sqrt(self.variance)
        left = sorted(max(self.seconds - seconds, deviation) for seconds in elapsed)
        free = max(0, width - len(left))
        turns = ahead + slots - free  # of slots that are taken
        if turns <= 0:
            return 0.0
        again, first = divmod(turns - 1, width)
        free_after = [*left, *[self.seconds] * free][first]
        return again * self.seconds + free_after + DEVIATIONS * deviation * sqrt(turns) / width
