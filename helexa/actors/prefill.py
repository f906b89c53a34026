"""How far the prompts of one request are read, what of them was there already, and how fast it went."""

from collections.abc import Iterator, Sequence

from attrs import define, field

from helexa.engine.orders import PrefillProgress


@define
class Read:
    """What one sequence has of its prompt.  `begun` is where and when it was first told of."""

    cached: int
    done: int
    begun: tuple[int, float]
    at: float


@define(eq=False)
class Prefill:
    """`lengths` are the prompts' in tokens; each has `n` sequences, numbered prompt by prompt.

    A prompt counts once: as far as the fastest of its sequences is, and cached only as far as none of
    them had to compute it.  What was told once is not taken back: a sequence that gave way to others is
    computed again, which is nobody's business.
    """

    lengths: Sequence[int]
    n: int
    _reads: dict[int, Read] = field(factory=dict, init=False)  # by number of the sequence
    _again: bool = field(default=False, init=False)  # the first sequence lost what it had

    def moved(self, number: int, notice: PrefillProgress, now: float) -> None:
        read = self._reads.get(number)
        if read is None:
            done = notice.done_tokens
            self._reads[number] = Read(notice.cached_tokens, done, (done, now), now)
        elif notice.done_tokens > read.done:
            read.done, read.at = notice.done_tokens, now
        elif number == 0 and notice.done_tokens < read.done:
            self._again = True

    @property
    def total(self) -> int:
        return sum(self.lengths)

    @property
    def done(self) -> int:
        return sum(max((read.done for read in reads), default=0) for reads in self._by_prompt())

    @property
    def cached(self) -> int:
        return sum(min((read.cached for read in reads), default=0) for reads in self._by_prompt())

    def _by_prompt(self) -> Iterator[list[Read]]:
        for prompt in range(len(self.lengths)):
            numbers = range(prompt * self.n, (prompt + 1) * self.n)
            yield [self._reads[number] for number in numbers if number in self._reads]

    @property
    def sample(self) -> tuple[int, float]:
        """Tokens that the device computed, and the seconds it took: (0, 0.0) if that is not known.

        Of the first sequence, which finds nothing that its siblings computed; from its first notice on,
        because before it the device may have been busy with others.
        """
        read = self._reads.get(0)
        if read is None or self._again:
            return 0, 0.0
        tokens, began_at = read.begun
        return read.done - tokens, read.at - began_at
