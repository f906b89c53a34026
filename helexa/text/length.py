"""Whether a text can be short enough for a model, told before all of it is turned into tokens.  Pure.

Turning a text into tokens takes about a second and 250 MB per megabyte, however long it is; what
cannot fit is told from its size, and what is suspiciously long is counted in pieces.
"""

from collections.abc import Iterator

from helexa.conversation import Conversation, Part, Text, ToolResult
from helexa.text.tokenizer import Tokenizer

PIECE_CHARACTERS = 64 * 1024
USUAL_BYTES = 4  # of one token, in most languages' prose and in code
# Tokens around a cut differ from those of the whole text; that the others do not makes this ample.
CUTS_ADD = 2


class PromptTooLong(Exception):
    """It has `at_least` so many tokens: found without making all of them."""

    def __init__(self, at_least: int) -> None:
        super().__init__(at_least)
        self.at_least = at_least


def check_said(conversation: Conversation, tokenizer: Tokenizer, most: int | None) -> None:
    """PromptTooLong for what cannot fit whatever the template makes of it."""
    if most is not None:
        check_size(sum(map(len, said(conversation))), tokenizer, most)


def said(conversation: Conversation) -> Iterator[str]:
    """What every template passes on.  Of what the assistant said templates leave out thoughts."""
    for message in conversation.messages:
        if message.role != "assistant":
            for part in message.parts:
                yield from texts(part)


def texts(part: Part) -> Iterator[str]:
    for inner in part.content if isinstance(part, ToolResult) else (part,):
        if isinstance(inner, Text):
            yield inner.text


def check_length(text: str, tokenizer: Tokenizer, most: int | None) -> None:
    """PromptTooLong if `text` has surely more than `most` tokens.  None is no limit.

    What passes is at most a few times too long, so that encoding it takes what the limit lets it take.
    """
    if most is None:
        return
    size = len(text.encode(errors="replace"))
    check_size(size, tokenizer, most)
    if size <= max(PIECE_CHARACTERS, USUAL_BYTES * most):
        return
    num_tokens = 0
    for begin in range(0, len(text), PIECE_CHARACTERS):
        num_tokens += tokenizer.count(text[begin : begin + PIECE_CHARACTERS])
        if num_tokens > CUTS_ADD * most:
            raise PromptTooLong(num_tokens // CUTS_ADD)


def check_count(num_tokens: int, most: int | None) -> None:
    """PromptTooLong, as for a text, if it is more than a little too long."""
    if most is not None and num_tokens > CUTS_ADD * most:
        raise PromptTooLong(num_tokens)


def check_size(num_bytes: int, tokenizer: Tokenizer, most: int) -> None:
    if tokenizer.longest and num_bytes > most * tokenizer.longest:
        raise PromptTooLong(-(-num_bytes // tokenizer.longest))
