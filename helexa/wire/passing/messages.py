"""Anthropic's Messages in passing."""

from collections.abc import Iterator

from attrs import define

from helexa.conversation import ChoiceFinished, Event, FinishReason, Progress, Started, Usage
from helexa.wire.fields import Fields
from helexa.wire.passing.passage import Passage
from helexa.wire.upstream import MOST, PHASES, malformed, read_json, reading

STOP_REASONS: dict[str | None, FinishReason] = {
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tool_calls",
}


@define(eq=False)
class MessagesPassage(Passage):
    MARKS = (b"message_start", b"message_delta", b"message_stop", b'"error"')

    def _event(self, data: str) -> Iterator[Event]:
        event = read_json(data.encode())
        with reading():
            match event.text("type"):
                case "ping" if not self.begun:
                    yield from read_ping(event)
                case "message_start":
                    self._tell(event.object("message") or Fields({}))
                    told = self.usage or Usage(0, 0)
                    yield Started(told.prompt_tokens, told.cached_tokens)
                    self.begun = True
                case "message_delta":
                    self._tell(event)
                    yield from read_stop(event.object("delta") or Fields({}))
                case "message_stop":
                    self.done = True
                case _ if not self.begun:
                    raise malformed("it does not begin with message_start")

    def _tell(self, parent: Fields) -> None:
        self.usage = read_message_usage(parent, self.usage or Usage(0, 0)) or self.usage


def read_ping(ping: Fields) -> Iterator[Progress]:
    progress = ping.object("progress")
    if progress is not None:
        phase = PHASES.get(progress.text("phase") or "", "queued")
        done, total = (progress.integer(key, 0, MOST) or 0 for key in ("done", "total"))
        yield Progress(phase, done, total)


def read_stop(delta: Fields) -> Iterator[ChoiceFinished]:
    reason = delta.text("stop_reason")
    if reason is not None:
        yield ChoiceFinished(0, STOP_REASONS.get(reason, "stop"), delta.text("stop_sequence"))


def read_message_usage(parent: Fields, before: Usage) -> Usage | None:
    """What is told of usage counts from the beginning; what is not told is as `before`."""
    usage = parent.object("usage")
    if usage is None:
        return None
    cached = usage.integer("cache_read_input_tokens", 0, MOST)
    new = usage.integer("input_tokens", 0, MOST)
    written = usage.integer("cache_creation_input_tokens", 0, MOST) or 0
    given = usage.integer("output_tokens", 0, MOST)
    details = usage.object("output_tokens_details") or Fields({})
    return Usage(
        before.prompt_tokens if new is None else new + written + (cached or 0),
        before.completion_tokens if given is None else given,
        before.cached_tokens if cached is None else cached,
        details.integer("thinking_tokens", 0, MOST) or before.reasoning_tokens,
    )
