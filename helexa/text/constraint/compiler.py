"""Grammars compiled for one tokeniser, and remembered."""

import llguidance
from attrs import field, frozen

from helexa.errors import InvalidRequest
from helexa.text.constraint.closers import Closers
from helexa.text.constraint.matcher import Constraint
from helexa.text.constraint.trial import Reason, Vocabulary, attempt, limits, reason_of
from helexa.text.constraint.vocabulary import Tokens
from helexa.text.tokenizer import Tokenizer

MAX_REMEMBERED = 32  # grammars; a large one takes some megabytes


@frozen
class Source:
    """A grammar, and the grammars of its parts by the field that each came in.

    The parts are tried one by one, so that an error names its field.
    """

    grammar: str
    parts: tuple[tuple[str, str], ...] = ()


@frozen(eq=False)
class Compiler:
    """Any number of threads may use it at once; at worst both compile the same grammar."""

    end: int
    _closers: Closers
    _tokens: llguidance.LLTokenizer
    _vocabulary: Vocabulary
    _compiled: dict[Source, Constraint | InvalidRequest] = field(factory=dict, init=False)

    @classmethod
    def of(cls, tokenizer: Tokenizer) -> "Compiler":
        """Takes some tenths of a second for a large vocabulary."""
        end = tokenizer.num_ids
        read = Tokens(tokenizer)
        tokens = llguidance.LLTokenizer(
            llguidance.TokenizerWrapper(read),
            n_vocab=end + 1,
            eos_token=end,
            slices=llguidance.LLTokenizer.json_slices(),
        )
        special = {id: tokenizer.token(id) for id in sorted(tokenizer.special_ids)}
        return cls(end, read.closers(), tokens, Vocabulary(end, special))

    def compile(self, source: Source) -> Constraint:
        """Slow for what is not remembered.  InvalidRequest, which names the field and the keyword."""
        known = self._compiled.pop(source, None)
        if known is None:
            try:
                known = self._compile(source)
            except InvalidRequest as error:
                known = error
        self._compiled[source] = known
        for oldest in list(self._compiled)[:-MAX_REMEMBERED]:
            self._compiled.pop(oldest, None)
        if isinstance(known, InvalidRequest):
            raise known.again()
        return known

    def _compile(self, source: Source) -> Constraint:
        grammars = [*(grammar for _, grammar in source.parts), source.grammar]
        params = [*(param for param, _ in source.parts), None]
        for param, reason in zip(params, attempt(grammars, self._vocabulary), strict=False):
            if reason:
                raise refusal(reason, param)
        state = llguidance.LLMatcher(self._tokens, source.grammar, log_level=0, limits=limits())
        constraint = Constraint(self.end, self._closers, state)
        state.compute_bitmask()
        if state.is_error():
            raise refusal(reason_of(state.get_error()), params[0])
        return constraint


def refusal(reason: Reason, param: str | None) -> InvalidRequest:
    where = param or "the form of the answer"
    return InvalidRequest(f"{where} cannot be enforced: {reason}", param=param)
