"""Items of another server's answer, back to events: told in deltas, at their end, or only as a whole."""

from collections.abc import Iterator

from attrs import define, field

from helexa.conversation import (
    Delta,
    ReasoningDelta,
    TextDelta,
    TokenLogprob,
    ToolCallDelta,
    ToolCallStarted,
)
from helexa.wire.fields import Fields
from helexa.wire.logprobs import read_logprobs
from helexa.wire.openai_responses.calls import read_call_id
from helexa.wire.openai_responses.tools import Kind, Origin
from helexa.wire.request import free_text_arguments, read_arguments
from helexa.wire.upstream import MOST

CALLS: dict[str, Kind] = {"function_call": "function", "custom_tool_call": "custom"}


@define(eq=False)
class ItemReader:
    """One item.  What its deltas told is not told again at its end.

    `call` is the number of the call that the item is; None for other items, and before the name of its
    tool is known.
    """

    call: int | None = None
    _told: str = field(default="", init=False)
    _scored: bool = field(default=False, init=False)  # with no text, scores alone may be told
    _form: str | None = field(default=None, init=False)  # of reasoning: content or summary

    def say(self, text: str, logprobs: tuple[TokenLogprob, ...] = ()) -> Iterator[Delta]:
        self._told += text
        self._scored = self._scored or bool(logprobs)
        if text or logprobs:
            yield TextDelta(0, text, logprobs)

    def think(self, text: str, form: str) -> Iterator[Delta]:
        """Some servers tell the same both as content and as a summary: the first form counts."""
        self._form = self._form or form
        if text and self._form == form:
            self._told += text
            yield ReasoningDelta(0, text)

    def argue(self, arguments: str) -> Iterator[Delta]:
        if arguments and self.call is not None:
            self._told += arguments
            yield ToolCallDelta(0, self.call, arguments)

    def start(self, item: Fields, number: int) -> Iterator[Delta]:
        """A call begins; the item may be told again at its end."""
        name = item.text("name")
        if self.call is None and name:
            self.call = number
            kind = CALLS[item.required_text("type")]
            flat_name = Origin(kind, name, item.text("namespace")).flat_name
            yield ToolCallStarted(0, number, read_call_id(item) or f"call_{number}", flat_name)

    def end(self, item: Fields) -> Iterator[Delta]:
        match item.text("type"):
            case "message" if not (self._told or self._scored):
                for part in item.objects("content", MOST) or ():
                    yield from self.say(read_text(part), read_scores(part))
            case "reasoning" if not self._told:
                form = "content" if item.get("content") else "summary"
                texts = [read_text(part) for part in item.objects(form, MOST) or ()]
                yield from self.think("\n\n".join(texts), form)
            case "function_call":
                yield from self.argue(read_arguments(item).removeprefix(self._told))
            case "custom_tool_call" if not self._told:
                yield from self.argue(free_text_arguments(item.text("input") or ""))


def read_text(part: Fields) -> str:
    return part.text("text") or part.text("refusal") or ""


def read_scores(fields: Fields) -> tuple[TokenLogprob, ...]:
    return tuple(read_logprobs(fields, "logprobs"))
