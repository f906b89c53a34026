"""Script models: rules that say what such a model answers, and which of them fits what was said."""

from collections.abc import Iterator
from typing import Any

from attrs import field, frozen

from helexa.config.checks import Prose, Unfit, not_negative
from helexa.conversation import Conversation, Message, Text, ToolResult

WINDOW_TOKENS = 131072
SMALLEST_MB = 1  # what a script model fills that does not say


def pattern(_: object, __: object, value: str) -> None:
    if value and (why := refusal(value)):
        raise Unfit(f"a regular expression of RE2 ({why})", value)


def refusal(value: str) -> str:
    """Why RE2 refuses a pattern, or "" if it does not."""
    try:
        import re2
    except ImportError:
        return "google-re2 is not installed: pip install 'helexa[node]'"
    try:
        compiled(value)
    except re2.error as error:
        (reason,) = error.args
        return reason.decode(errors="replace") if isinstance(reason, bytes) else str(reason)
    return ""


def compiled(value: str) -> Any:
    """The pattern for bytes; RE2 keeps those that it met."""
    import re2  # a gateway alone does not have it

    options = re2.Options()
    options.log_errors = False
    return re2.compile(value.encode(), options)


@frozen
class Rule:
    """One `[[rules]]` table: what is said where `when` is found in the last turn; empty, it always is.

    `say` is raw model text, markup and special tokens included.  `tokens_per_second` 0 is as fast as
    it goes; the answer fails after `fail_after_tokens`.
    """

    say: Prose
    when: str = field(default="", validator=pattern)
    tokens_per_second: float = field(default=0.0, validator=not_negative)
    fail_after_tokens: int | None = field(default=None, validator=not_negative)
    load_seconds: float = field(default=0.0, validator=not_negative)

    def fits(self, said: bytes) -> bool:
        return not self.when or compiled(self.when).search(said) is not None


NO_RULE = Rule(Prose("No rule of this script model fits the last turn."))


@frozen
class Rules:
    """A file of rules.  A load is one for all of them: it takes the longest `load_seconds`."""

    rules: tuple[Rule, ...] = ()
    load_seconds: float = field(default=0.0, validator=not_negative)

    @property
    def longest_load_seconds(self) -> float:
        return max([self.load_seconds, *(rule.load_seconds for rule in self.rules)])


def choose(rules: Rules, said: str) -> Rule:
    """The first rule that fits what was `said`, else one that says that there is none."""
    octets = said.encode(errors="replace")
    return next((rule for rule in rules.rules if rule.fits(octets)), NO_RULE)


def last_turn(conversation: Conversation) -> str:
    """The text of the last user or tool turn.

    A user turn begins with the results of the tools that were called before it: some dialects send
    results and words in one message, and it must not matter which.
    """
    turn: list[Message] = []
    for message in reversed(conversation.messages):
        if message.role == "tool" or (message.role == "user" and not turn):
            turn.append(message)
        elif turn:
            break
    return "\n".join(text for message in reversed(turn) for text in texts(message))


def texts(message: Message) -> Iterator[str]:
    for part in message.parts:
        for inner in part.content if isinstance(part, ToolResult) else (part,):
            if isinstance(inner, Text):
                yield inner.text
