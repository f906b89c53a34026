"""A bound on what a model thinks before it speaks: whatever form its answer has, reasoning is closed."""

from attrs import evolve, field, frozen

from helexa.conversation import Conversation
from helexa.engine import orders
from helexa.text.answer import kept_ids, reader_of
from helexa.text.constraint.vocabulary import LEAD
from helexa.text.detokenize import Detokenizer
from helexa.text.markup import Markup, MarkupReader, Say
from helexa.text.markup.harmony import CHANNEL, END, START
from helexa.text.prompt import Prompt
from helexa.text.tokenizer import Tokenizer

SPOKEN = ("final", "commentary")  # harmony's channels that are no reasoning


def bounded(
    tokenizer: Tokenizer, conversation: Conversation, prompt: Prompt, markup: Markup
) -> Prompt:
    """The prompt, its answers bound to the budget of the conversation besides what they are bound to."""
    most = conversation.thinking.budget
    if most is None or conversation.texts:
        return prompt
    marks = Marks.of(tokenizer, markup)
    if marks is None:
        return prompt
    return evolve(prompt, constraint=Budget(most, marks, tokenizer, conversation, prompt, markup))


@frozen
class Marks:
    """What ends reasoning and begins it, in sets of token ids as the bits of a number.

    `closing` are forced one after the other, any one of each set.  `opening` begins reasoning, 0 if no
    token does alone.  After the token `channel`, which harmony alone has, reasoning begins unless one
    of `spoken` comes.
    """

    closing: tuple[int, ...] = field(repr=False)
    opening: int = field(default=0, repr=False)
    channel: int | None = None
    spoken: int = field(default=0, repr=False)

    @classmethod
    def of(cls, tokenizer: Tokenizer, markup: Markup) -> "Marks | None":
        """None for a model that does not think, as far as is known."""
        if markup.tools == "harmony":
            spoken = sum({1 << following(tokenizer, CHANNEL, name)[0] for name in SPOKEN})
            head = [1 << id for id in tokenizer.encode(f"{END}{START}assistant{CHANNEL}")]
            return cls((*head, spoken), channel=tokenizer.token_id(CHANNEL), spoken=spoken)
        if markup.think is None:
            return None
        opening, closing = (mark.strip() for mark in markup.think)
        end = following(tokenizer, LEAD, f"\n{closing}")
        alone = tokenizer.token_id(opening)
        return cls(tuple(1 << id for id in end), 0 if alone is None else 1 << alone)


def following(tokenizer: Tokenizer, before: str, text: str) -> tuple[int, ...]:
    """The tokens of a text that stands after another one."""
    known, both = tokenizer.encode(before), tokenizer.encode(before + text)
    return both[len(known) :] if both[: len(known)] == known else tokenizer.encode(text)


@frozen(eq=False)
class Budget:
    """At most `most` tokens of reasoning, counted as the usage counts them, and those that close it."""

    most: int
    marks: Marks
    tokenizer: Tokenizer = field(repr=False)
    conversation: Conversation = field(repr=False)
    prompt: Prompt = field(repr=False)
    markup: Markup

    def matcher(self) -> "BudgetMatcher":
        reader = reader_of(self.conversation, self.prompt, self.markup)
        assert reader is not None, "no answers without reasoning are bound"
        kept = kept_ids(self.tokenizer, self.markup)
        text = Detokenizer(self.tokenizer, continues=self.prompt.continues, kept=kept)
        form = self.prompt.constraint
        return BudgetMatcher(self, reader, text, form.matcher() if form is not None else None)


class BudgetMatcher:
    """Reads along.  Where nothing is to be closed it asks the form alone, which there may be none of."""

    def __init__(
        self,
        rule: Budget,
        reader: MarkupReader,
        text: Detokenizer,
        form: orders.Matcher | None,
    ) -> None:
        self._rule = rule
        self._reader = reader
        self._reader.push("")  # to where the prompt leaves it
        self._text = text
        self._form = form
        self._left = rule.most
        self._said = rule.prompt.continues and not reader.thinking
        self._forced: tuple[int, ...] = ()  # what must come next, see Marks
        self._force()

    def allowed(self) -> tuple[bytearray, bool] | None:
        found = self._form.allowed() if self._form is not None else None
        only = self._only()
        if only is None:
            return found
        num_ids = self._rule.tokenizer.num_ids
        if found is None:
            return bytearray(
                (only & (1 << num_ids) - 1).to_bytes(num_ids // 8 + 1, "little")
            ), False
        bits, may_end = found
        both = int.from_bytes(bits, "little") & only
        if not both:  # the form has no place for it: a character must be completed first
            return found
        return bytearray(both.to_bytes(len(bits), "little")), may_end and not self._forced

    def closing(self, allowed: bytearray) -> bytearray:
        return allowed if self._form is None else self._form.closing(allowed)

    def accept(self, token: int) -> None:
        if self._form is not None:
            self._form.accept(token)
        if self._speaks:
            return
        thought = self._reader.thinking
        outputs = self._reader.push(self._text.push(token))
        self._said = self._said or any(isinstance(output, Say) for output in outputs)
        self._left -= thought or self._reader.thinking
        went_on = self._forced and self._forced[0] >> token & 1
        self._forced = self._forced[1:] if went_on else ()
        self._force(token)

    @property
    def _speaks(self) -> bool:
        """No reasoning can follow."""
        return self._said and self._rule.marks.channel is None

    def _force(self, token: int | None = None) -> None:
        marks = self._rule.marks
        if self._left > 0 or self._forced:
            return
        if self._reader.thinking:
            self._forced = marks.closing
        elif token is not None and token == marks.channel:
            self._forced = (marks.spoken,)

    def _only(self) -> int | None:
        """The tokens that may come next as far as the budget goes; None for all."""
        if self._forced:
            return self._forced[0]
        if self._left <= 0 and self._rule.marks.opening and not self._speaks:
            return ~self._rule.marks.opening
        return None
