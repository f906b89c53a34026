"""Guessing how a text goes on: as it did where its last tokens stood before.

A pass computes some more positions of a sequence for little more than one, so that a guess which is
right saves a step.  Nothing here decides what a text says: that is drawn as ever.
"""

from array import array
from collections.abc import Sequence

from attrs import frozen

from helexa.average import smoothed

LENGTHS = (4, 3, 2)  # of the n-grams that are looked for, the longest first
MOST_DRAFTED = 8  # tokens of a sequence in a step
FIRST_CHANCE = 0.5  # that a guess is right, before any was seen
CHANCE_WEIGHT = 0.15  # of one guess in what is known of its kind
SLOTS_PER_TOKEN = 4  # three n-grams end at each
MOST_SLOTS = 1 << 19  # of 4 bytes
ENTERED_AT_ONCE = 4096  # tokens, some milliseconds: a long prompt is entered over some steps


@frozen
class Match:
    """The last `length` tokens stood right before `place` as well."""

    place: int
    length: int


class Lookup:
    """Where the n-grams of a text that grows stood last.

    A table of hashes, in which those that fall on one slot drive each other out: its size is bounded,
    and what is found is compared, so that it may miss a place and never names a wrong one.
    """

    def __init__(self, tokens: Sequence[int], most_tokens: int) -> None:
        """`tokens` may grow to about `most_tokens`, which is no bound."""
        slots = 1 << (SLOTS_PER_TOKEN * most_tokens).bit_length()
        self._tokens = tokens
        self._places = array("i", bytes(4 * min(slots, MOST_SLOTS)))  # 0 is none
        self._entered = 0  # n-grams that end at this place or before are in the table

    def find(self) -> Match | None:
        """The last place of the longest n-gram that stands at the end of the text."""
        self._enter()
        tokens, end = self._tokens, len(self._tokens)
        for length in LENGTHS:
            gram = tuple(tokens[max(0, end - length) :])
            place = self._places[self.slot(gram)]
            if place >= length and tuple(tokens[place - length : place]) == gram:
                return Match(place, length)
        return None

    def continuation(self, place: int, count: int) -> list[int]:
        """`count` tokens from `place` on; a text that runs out there is taken to repeat itself."""
        period = len(self._tokens) - place
        return [self._tokens[place + i % period] for i in range(count)]

    def slot(self, gram: tuple[int, ...]) -> int:
        return hash(gram) % len(self._places)

    def _enter(self) -> None:
        """All that end before the last token: what stands at the very end is what is looked for."""
        tokens, first = self._tokens, self._entered + 1
        end = min(len(tokens), first + ENTERED_AT_ONCE)
        for place in range(first, end):
            for length in LENGTHS:
                if place >= length:
                    self._places[self.slot(tuple(tokens[place - length : place]))] = place
        self._entered = max(self._entered, end - 1)


class Drafter:
    """Guesses how one sequence goes on, and learns how often it is right.

    It guesses in every step and compares with what came, also where nobody computes the guess: to know
    the chances costs nothing.  A longer n-gram is right more often, so each length has its own.
    """

    def __init__(self, tokens: Sequence[int], most_tokens: int) -> None:
        self._tokens = tokens
        self._lookup = Lookup(tokens, most_tokens)
        self._chances = dict.fromkeys(LENGTHS, FIRST_CHANCE)
        self._guess: list[int] = []
        self._length = 0  # of the n-gram that the guess came from
        self._at = 0  # how many tokens there were then

    def guess(self, most: int = MOST_DRAFTED) -> tuple[list[int], float]:
        """Up to `most` tokens that may come next, and the chance of each once those before it came."""
        self._learn()
        match = self._lookup.find()
        self._guess = self._lookup.continuation(match.place, MOST_DRAFTED) if match else []
        self._length = match.length if match else 0
        self._at = len(self._tokens)
        return self._guess[:most], self._chances.get(self._length, 0.0)

    def _learn(self) -> None:
        for guessed, token in zip(self._guess, self._tokens[self._at :], strict=False):
            is_right = guessed == token
            before = self._chances[self._length]
            self._chances[self._length] = smoothed(before, is_right, CHANCE_WEIGHT)
            if not is_right:
                return


def worth(chance: float, cost: float | None, decoding: int, most: int) -> int:
    """How many tokens to draft for one of `decoding` sequences so that a second brings most tokens.

    Each guessed token is right with `chance` if those before it were; to compute it takes `cost` of a
    step, None if that is not known yet.  0 is to draft nothing, `most` the most.
    """
    if cost is None:
        return 0
    best, best_rate = 0, float(decoding)
    expected, passes = float(decoding), 1.0
    for count in range(1, most + 1):
        passes *= chance
        expected += passes
        rate = expected / (1 + count * cost)
        if rate > best_rate:
            best, best_rate = count, rate
    return best
