"""Whole answers in passing: how they ended, and what they took."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Literal

from attrs import frozen

from helexa.conversation import ChoiceFinished, Json, Usage, about_tokens
from helexa.wire.fields import MAX_FIELD_DEPTH, Fields, size_within
from helexa.wire.openai_chat.reader import USAGE as CHAT_USAGE
from helexa.wire.openai_responses.reader import USAGE as RESPONSES_USAGE
from helexa.wire.passing.chat import finish_reason
from helexa.wire.passing.messages import read_message_usage, read_stop
from helexa.wire.passing.responses import response_reason
from helexa.wire.upstream import MOST, malformed, read_json, read_usage, reading

Dialect = Literal["chat", "completions", "responses", "messages"]
ANSWERS: Mapping[Dialect, str] = {
    "chat": "choices",
    "completions": "choices",
    "responses": "output",
    "messages": "content",
}
# Where, below that, texts and calls of any dialect stand; scores, ids and the like cost no tokens.
SAID = (
    "message",
    "content",
    "text",
    "refusal",
    "reasoning_content",
    "thinking",
    "summary",
    "tool_calls",
    "function_call",
    "function",
    "custom",
    "name",
    "arguments",
    "input",
)
NONE_YET = Usage(0, 0)


@frozen
class Ending:
    """How an answer ended.  `usage` is None if it tells none; `tokens` is about how many it has, 0 where
    its usage tells."""

    choices: Sequence[ChoiceFinished]
    usage: Usage | None
    tokens: int


def read_whole(dialect: Dialect, body: bytes) -> Ending:
    """UpstreamMalformed, or the UpstreamError that it holds."""
    answer = read_json(body)
    with reading():
        choices, usage = list(read_ends(dialect, answer)), read_its_usage(dialect, answer)
    if usage is not None and usage.completion_tokens:
        return Ending(choices, usage, 0)
    num_bytes = sum(sizes_of(answer.get(ANSWERS[dialect])))
    return Ending(choices, usage, about_tokens(num_bytes))


def sizes_of(said: Json) -> Iterator[int]:
    """The bytes of each text and call in what a model said, however deep."""
    left = [said]
    while left:
        match left.pop():
            case str(text):
                yield len(text.encode())
            case list(values):
                left += values
            case {"type": "tool_use", "name": str(name), "input": arguments}:
                yield len(name) + (size_within(arguments, MAX_FIELD_DEPTH) or 0)
            case dict(values):
                left += [values[key] for key in SAID if key in values]
                if not values.get("reasoning_content"):  # some servers tell it under both names
                    left.append(values.get("reasoning"))


def read_ends(dialect: Dialect, answer: Fields) -> Iterator[ChoiceFinished]:
    match dialect:
        case "chat" | "completions":
            yield from read_choices(answer)
        case "messages":
            yield from read_stop(answer)
        case "responses":
            yield ChoiceFinished(0, response_reason(answer))


def read_its_usage(dialect: Dialect, answer: Fields) -> Usage | None:
    match dialect:
        case "chat" | "completions":
            return read_usage(answer, *CHAT_USAGE)
        case "messages":
            return read_message_usage(answer, NONE_YET)
        case "responses":
            return read_usage(answer, *RESPONSES_USAGE)


def read_choices(answer: Fields) -> Iterator[ChoiceFinished]:
    choices = answer.objects("choices", MOST)
    if not choices:
        raise malformed("it has no choices")
    for i, choice in enumerate(choices):
        number = choice.integer("index", 0, MOST)
        reason = finish_reason(choice.text("finish_reason"))
        yield ChoiceFinished(i if number is None else number, reason)
