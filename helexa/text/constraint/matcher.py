"""One sequence on its way through a grammar.  Made in any thread, used on a device's."""

from typing import TYPE_CHECKING

from attrs import field, frozen

from helexa.errors import HelexaError
from helexa.escape import escape
from helexa.text.constraint.closers import Closers

if TYPE_CHECKING:
    from llguidance import LLMatcher


@frozen(eq=False)
class Constraint:
    """A compiled grammar.  Immutable: every sequence takes a matcher of its own.

    `end` is the id, one past the tokeniser's last, that stands for the end of the answer.
    """

    end: int
    _closers: Closers = field(repr=False)
    _beginning: "LLMatcher" = field(repr=False)

    def matcher(self) -> "Matcher":
        return Matcher(self.end, self._closers, self._beginning.deep_copy())


class Matcher:
    """Where one sequence is.  Not for two threads at once."""

    def __init__(self, end: int, closers: Closers, state: "LLMatcher") -> None:
        self._end = end
        self._closers = closers
        self._state = state

    def allowed(self) -> tuple[bytearray, bool]:
        """Which tokens may come next, and whether the answer may end here.

        Bit i % 8 of byte i // 8, from the lowest, is token i.  HelexaError if the grammar asks for
        more work than one step may take, or leaves nothing.
        """
        bits = bytearray(self._state.compute_bitmask())
        self._check()
        place, end = self._end // 8, 1 << self._end % 8
        may_end = bool(bits[place] & end)
        bits[place] &= ~end  # for the model it is no token, or another one
        return bits, may_end

    def closing(self, allowed: bytearray) -> bytearray:
        """Of these tokens those that close what is open in JSON; all of them if none does."""
        bits = self._closers.among(int.from_bytes(allowed, "little"))
        return bytearray(bits.to_bytes(len(allowed), "little"))

    def accept(self, token: int) -> None:
        """Go on with a token that was allowed."""
        self._state.consume_token(token)
        self._check()

    def _check(self) -> None:
        if self._state.is_error():
            reason = escape(self._state.get_error().strip().partition("\n")[0])[:200]
            raise HelexaError(f"the form of the answer cannot be kept any longer: {reason}")
